"""ProbCover as a strategy: what it is given, what it reports, and the same picks for any cut of the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

import alray.selection as selection
from alray import seeds
from alray.pool import Pool
from alray.strategies import find
from alray.strategies.base import Given
from alray.table import Table


def choose(pool: Any, budget: int, **strategy: Any) -> selection.Selection:
    labels = strategy.pop("labels", None)
    return selection.select({"name": "prob_cover", **strategy}, pool, budget=budget, labels=labels, runtime="local")


def test_picks_are_those_of_a_loop_that_counts_everything_anew(tmp_path: Path) -> None:
    path, matrix, names, truth = builders.features_pool(tmp_path, files=(90, 110, 100), dim=6)
    labels = {names[i]: truth[i] for i in range(0, 300, 60)}
    found = choose(path, 25, radius=0.35, labels=labels)
    unit = matrix.astype(np.float64)
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    inside = np.sqrt(((unit[:, None] - unit[None]) ** 2).sum(axis=2)) < 0.35
    known = np.array([name in labels for name in names])
    covered = inside[known].any(axis=0)
    number = seeds.uniform(seeds.key(0, "prob_cover", 0), seeds.hash_ids(names))
    slow: dict[str, int] = {}
    while len(slow) < 25:
        gain = np.where(known, -1, (inside & ~covered & ~known).sum(axis=1))
        best = min(np.flatnonzero(gain == gain.max()), key=lambda row: number[row])
        slow[names[best]] = int(gain[best])
        covered |= inside[best]
    assert dict(zip(found.picks.ids, found.picks.scores.tolist(), strict=True)) == slow
    assert set(found.picks.reasons) == {"strategy"} and found.report["sample"] == 295


def test_what_is_left_when_all_is_covered_is_filled_at_random(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(60, 60), dim=6)
    found = choose(path, 30, radius=1.9)
    taken = found.picks.reasons.count("strategy")
    assert 0 < taken < 30 and found.report["filled"] == 30 - taken
    assert (found.picks.scores[:taken] >= 1).all() and np.isneginf(found.picks.scores[taken:]).all()


@pytest.mark.parametrize("most", [100, 20_000])
def test_the_cut_of_the_pool_leaves_no_trace(tmp_path: Path, most: int) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(100, 150, 50), dim=6)
    found = [choose(Pool.open(path, rows_per_shard=rows), 20, most=most) for rows in (7, 64, 65536)]
    assert len({one.picks.digest() for one in found}) == 1
    assert {one.report["sample"] for one in found} == {min(most, 300)}


def test_the_radius_follows_the_classes_of_the_pseudo_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(200,), dim=6)
    with caplog.at_level("INFO", logger="alray.strategies.prob_cover"):
        choose(path, 5, classes=1)
        choose(path, 5, classes=30)
    said = [record.args for record in caplog.records if record.name == "alray.strategies.prob_cover"]
    one, thirty = (float(args[0]) for args in said)  # type: ignore[index, arg-type]
    assert one == 63 / 64 and thirty < 0.5


def test_two_ids_that_share_a_hash_are_told_apart() -> None:
    import torch

    strategy = find("prob_cover")
    prepared = {"hash": np.array([5, 5]), "id": np.array(["a", "c"]), "score": np.array([2, 1], np.float32)}
    rows = Table(["a", "b", "c", "d"], {"hash": torch.tensor([5, 5, 5, 6])})
    assert strategy.score(rows, prepared).tolist() == [2, -np.inf, 1, -np.inf]


def test_a_pool_without_rows_gives_nothing() -> None:
    prepared = find("prob_cover").prepare(Given(budget=3, seed=0, round=0))
    assert all(len(part) == 0 for part in prepared.values())
