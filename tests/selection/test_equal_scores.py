"""Scores that are all equal, picks that are nearly all filled up, and a regime that does not pay: each is said once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

from alray.models.head import Head
from alray.pool import Pool
from alray.selection import select

CLASSES = [f"class-{c}" for c in range(3)]
FLAT = Head.linear(np.zeros((3, 6), dtype=np.float32), np.zeros(3, dtype=np.float32), CLASSES)
"""It says the same of every row."""


@pytest.fixture
def pool(tmp_path: Path) -> tuple[str, list[str]]:
    path, _, names, _ = builders.features_pool(tmp_path, files=(120, 60), dim=6)
    return path, names


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.WARNING, logger="alray")
    return caplog


@pytest.mark.parametrize("rules", [{}, {"quotas": {"label": {"at_most": 9}}}])
@pytest.mark.parametrize("name", ["margin", "bald", "entropy"])
def test_equal_scores_are_drawn_from_and_it_is_said_once(
    name: str, rules: dict[str, Any], pool: tuple[str, list[str]], said: pytest.LogCaptureFixture
) -> None:
    path, names = pool
    found = [
        select(name, Pool.open(path, rows_per_shard=rows), budget=12, head=FLAT, seed=3, **rules) for rows in (16, 999)
    ]
    assert said.text.count("the scores of all 180 candidates are equal: picks are drawn at random") == 2
    assert len({one.picks.digest() for one in found}) == 1 and set(found[0].picks.reasons) == {"strategy"}
    assert max(names.index(i) for i in found[0].picks.ids) > 60  # by id: the first ones
    assert select(name, path, budget=12, head=FLAT, seed=4, **rules).picks.digest() != found[0].picks.digest()


def test_a_shortlist_of_equal_scores_goes_by_id_and_says_so(
    pool: tuple[str, list[str]], said: pytest.LogCaptureFixture
) -> None:
    path, names = pool
    found = select({"name": "diverse", "multiple": 3}, path, budget=12, head=FLAT)
    assert "the scores of all 180 candidates are equal: the shortlist of 36 goes by id" in said.text
    assert set(found.picks.ids) <= set(names[:36])


def test_best_scores_that_are_equal_go_by_id_and_it_is_said(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    """Ties by id are a promise as long as any score says something: here that of the first 30 rows, which are worse."""
    rows = np.zeros((90, 6), dtype=np.float16)
    rows[:30, 0] = 5
    names = builders.ids(90)
    path = builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(rows)}, 16)
    head = Head.linear(np.eye(3, 6, dtype=np.float32), np.zeros(3, dtype=np.float32), CLASSES)
    found = select("margin", Pool.open(path, rows_per_shard=16), budget=12, head=head)
    assert found.picks.ids.tolist() == names[30:42] and found.report["tied"] == 60
    assert said.text.count("the scores of the best 60 of 90 candidates are equal: picks go by id") == 1
    said.clear()
    select("margin", path, budget=60, head=head)
    select("margin", path, budget=1, head=head)
    assert "equal" not in said.text


def test_nothing_is_said_where_all_are_taken_or_any_score_differs(
    pool: tuple[str, list[str]], said: pytest.LogCaptureFixture
) -> None:
    path, _ = pool
    assert len(select("margin", path, budget=180, head=FLAT).picks) == 180
    head = Head.linear(np.eye(3, 6, dtype=np.float32), np.zeros(3, dtype=np.float32), CLASSES)
    select("margin", path, budget=1, head=head)
    select("random", path, budget=1)
    select("coreset", path, budget=5)
    assert "equal" not in said.text


@pytest.mark.parametrize("name", ["coreset", "cdal", "kmeans_pp", "prob_cover"])
def test_a_round_of_copies_says_that_it_is_drawn_and_why(
    name: str, tmp_path: Path, said: pytest.LogCaptureFixture
) -> None:
    rows = np.repeat(np.random.default_rng(0).normal(size=(5, 6)), 20, axis=0).astype(np.float16)
    names = builders.ids(100)
    path = builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(rows)})
    known = {names[20 * copy]: CLASSES[copy % 3] for copy in range(5)}
    assert select(name, path, budget=10, labels=known).report["filled"] == 10
    assert said.text.count(f"{name}: 10 of 10 picks are drawn at random, because ") == 1
    assert "set `selection.min_distance`" in said.text and "another strategy" in said.text
    said.clear()
    select("random", path, budget=10, labels=known)
    assert "drawn at random" not in said.text


def test_the_coreset_regime_on_few_shards_is_said_to_be_slow(
    pool: tuple[str, list[str]], said: pytest.LogCaptureFixture
) -> None:
    select("kmeans", Pool.open(pool[0], rows_per_shard=20), budget=5, regime="coreset")
    select("kmeans", Pool.open(pool[0]), budget=5, regime="auto")
    assert "regime" not in said.text
    select("kmeans", Pool.open(pool[0]), budget=5, regime="coreset")
    assert said.text.count("`selection.regime` is coreset and the pool has 2 shards") == 1
