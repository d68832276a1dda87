"""Diverse strategies under rules: they choose, in every pass, and what they cannot choose is drawn, never by id."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

from alray.models.head import Head
from alray.selection import offers, select, under_rules
from alray.selection.diversity.candidates import Candidates

ORDERED = ["coreset", "kmeans_pp", "badge", "typiclust", "active_ft"]
FLAT = [*ORDERED, "kmeans"]


def pool(folder: Path, matrix_ND: np.ndarray, **columns: Any) -> tuple[str, list[str]]:
    """Write a pool of these rows; return (path, ids)."""
    names = builders.ids(len(matrix_ND))
    features = builders.vectors(np.asarray(matrix_ND, dtype=np.float16))
    return builders.parquet(folder / "pool.parquet", {"id": names, "features": features, **columns}, 64), names


def head(dim: int) -> Head:
    return Head.linear(np.random.default_rng(7).normal(size=(3, dim)), np.zeros(3), list("xyz"))


def more(name: str, dim: int) -> dict[str, Any]:
    """Return what a strategy has to be given."""
    return {"head": head(dim)} if name in ("badge", "cdal") else {}


@pytest.fixture
def two_sources(tmp_path: Path) -> tuple[str, list[str]]:
    """60 rows of `b`, and 30 of `a`, which lie six times as far out: their ids are the last."""
    matrix_ND = np.random.default_rng(0).normal(size=(90, 4))
    matrix_ND[60:] *= 6
    return pool(tmp_path, matrix_ND, source=["b"] * 60 + ["a"] * 30)


@pytest.mark.parametrize("name", FLAT)
def test_what_is_missing_is_chosen_and_not_the_first_by_id(name: str, two_sources: tuple[str, list[str]]) -> None:
    path, names = two_sources
    found = select(name, path, budget=50, quotas={"source": {"at_most": {"a": 2}}}, **more(name, 4)).picks
    left_out = set(range(60)) - {names.index(i) for i in found.ids}
    assert len(found) == 50 and len(left_out) == 12
    assert len(left_out & set(range(30))) >= 2  # by id it would be none


def test_coreset_under_a_quota_is_greedy_among_the_rows_it_lets_in(tmp_path: Path) -> None:
    """On a line, apart from the two rows of `a` that it took: what k-centre would take next, not what stands first."""
    at = np.r_[np.linspace(0, 1, 40), 50 + np.arange(10)]
    path, names = pool(tmp_path, np.stack([at, np.zeros(50)], axis=1), source=["b"] * 40 + ["a"] * 10)
    labels = {names[0]: "x"}
    found = select("coreset", path, budget=22, labels=labels, quotas={"source": {"at_most": {"a": 2}}}).picks
    taken = sorted(names.index(i) for i in found.ids if names.index(i) < 40)
    assert len(taken) == 20 and max(np.diff([0, *taken])) <= 3 and taken[-1] == 39


@pytest.mark.parametrize("name", FLAT)
def test_all_that_are_left_are_not_taken_by_id_when_a_quota_lets_in_some(
    name: str, two_sources: tuple[str, list[str]]
) -> None:
    path, names = two_sources
    found = select(name, path, budget=90, quotas={"source": {"at_most": {"a": 10}}}, **more(name, 4)).picks
    of_a = {names.index(i) for i in found.ids if names.index(i) >= 60}
    assert len(found) == 70 and len(of_a) == 10 and of_a != set(range(60, 70))


@pytest.mark.parametrize("passes", [1, under_rules.DIVERSE_PASSES])
@pytest.mark.parametrize("name", FLAT)
def test_after_a_diverse_strategy_comes_a_draw_that_ranks_last(
    name: str, passes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nine rows in ten lie in one loose blob: the rule refuses much of what is chosen."""
    rng = np.random.default_rng(1)
    blob_ND = np.eye(8)[0] * 4 + rng.normal(scale=0.7, size=(1080, 8))
    path, names = pool(tmp_path, np.concatenate([blob_ND, rng.normal(size=(120, 8))])[rng.permutation(1200)])
    monkeypatch.setattr(under_rules, "DIVERSE_PASSES", passes)
    found = select(name, path, budget=60, min_distance=0.15, **more(name, 8))
    reasons, scores = found.picks.reasons, found.picks.scores
    chosen = reasons.count("strategy")
    assert len(found.picks) == 60 and reasons == ("strategy",) * chosen + ("fill",) * (60 - chosen)
    assert np.isfinite(scores[1:chosen]).all() and np.isneginf(scores[chosen:]).all()
    assert passes > 1 or chosen < 60
    if chosen < 40:
        assert abs(np.mean([names.index(i) for i in found.picks.ids[chosen:]]) - 600) < 250  # by id: the first ones


@pytest.mark.parametrize("name", ["diverse", "alfa_mix"])
def test_where_scores_say_something_the_best_of_them_follow(name: str, tmp_path: Path) -> None:
    path, _, names, labels = builders.features_pool(tmp_path, files=(200, 100), dim=4)
    known = dict(zip(names[:40], labels[:40], strict=True))
    found = select(name, path, budget=40, labels=known, min_distance=0.01).picks
    assert "strategy" in found.reasons and np.isfinite(found.scores[: found.reasons.count("strategy")]).all()


def test_badge_buys_no_copy_of_what_it_took_in_a_pass_before(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    matrix_ND = np.concatenate([np.repeat(rng.normal(size=(60, 6)), 2, axis=0), rng.normal(size=(200, 6)) * 8])
    path, names = pool(tmp_path, matrix_ND, source=["good"] * 120 + ["junk"] * 200)
    for seed in range(3):
        found = select("badge", path, budget=40, seed=seed, head=head(6), quotas={"source": {"at_most": {"junk": 3}}})
        good = [names.index(i) // 2 for i in found.picks.ids if names.index(i) < 120]
        assert len(good) >= 37 and len(set(good)) == len(good)


@pytest.mark.parametrize("name", ["kmeans_pp", "badge", "coreset", "active_ft", "typiclust"])
def test_every_pass_draws_numbers_of_its_own_and_sees_what_was_taken(
    name: str, two_sources: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that a race left for late would be late again in each pass."""
    seen: list[tuple[int, int]] = []
    chosen = offers.diversify

    def spy(found: Candidates) -> Any:
        known = found.bought(before=False)
        seen.append((found.stream("race"), 0 if known is None else len(known)))
        return chosen(found)

    monkeypatch.setattr(offers, "diversify", spy)
    select(name, two_sources[0], budget=20, quotas={"source": {"at_most": {"a": 2}}}, **more(name, 4))
    assert len(seen) > 1 and len({stream for stream, _ in seen}) == len(seen)
    assert seen[0][1] == 0 and seen[1][1] > 0


@pytest.mark.parametrize("name", [*ORDERED, "cdal"])
def test_ranks_are_the_order_of_picking_over_all_passes(
    name: str, two_sources: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[list[str]] = []
    chosen = offers.diversify

    def spy(found: Candidates) -> Any:
        ids, scores = chosen(found)
        passes.append([str(ids[at]) for at in np.argsort(-scores, kind="stable")])
        return ids, scores

    monkeypatch.setattr(offers, "diversify", spy)
    quotas = {"source": {"at_most": {"a": 2}}}
    found = select(name, two_sources[0], budget=20, quotas=quotas, **more(name, 4)).picks
    order = {i: at for at, i in enumerate(dict.fromkeys(i for ids in passes for i in ids))}
    ranks = [order[i] for i, why in zip(found.ids, found.reasons, strict=True) if why == "strategy"]
    assert len(passes) > 1 and len(ranks) > 10
    assert (np.diff(found.scores[: len(ranks)]) < 0).all()
    assert set(found.ids[:2]) <= set(passes[0])  # the two of `a` are of the first pass, and far out
    again = [[i for i in ids if i in set(found.ids)] for ids in passes]
    first = [i for i in found.ids if i in again[0]]
    assert found.ids.tolist()[: len(first)] == first


@pytest.mark.parametrize("name", [*FLAT, "diverse"])
def test_rules_that_refuse_nothing_change_nothing(name: str, two_sources: tuple[str, list[str]]) -> None:
    given = more("badge" if name == "diverse" else name, 4)
    free = select(name, two_sources[0], budget=12, **given).picks
    loose = select(name, two_sources[0], budget=12, quotas={"source": {"at_most": 80}}, **given).picks
    assert loose.digest() == free.digest() and np.array_equal(loose.scores, free.scores)


# Minimums of two columns


def crossed(folder: Path, both: int) -> tuple[str, list[str], list[tuple[str, str]]]:
    """Write 60 rows: 20 of `x`, 20 of `u`, and the last `both` are both."""
    values = [("x", "v") if n % 3 == 0 else ("y", "u") if n % 3 == 1 else ("y", "v") for n in range(60)]
    values[60 - both :] = [("x", "u")] * both
    path, names = pool(
        folder,
        np.random.default_rng(0).normal(size=(60, 4)),
        a=[v[0] for v in values],
        b=[v[1] for v in values],
    )
    return path, names, values


@pytest.mark.parametrize("budget", [5, 7, 10, 12])
@pytest.mark.parametrize("name", ["random", "coreset"])
def test_rows_that_fill_two_minimums_come_first_where_the_budget_has_no_row_for_each(
    name: str, budget: int, tmp_path: Path
) -> None:
    path, names, values = crossed(tmp_path, 15)
    for seed in range(3):
        quotas = {"a": {"at_least": {"x": 5}}, "b": {"at_least": {"u": 5}}}
        found = select(name, path, budget=budget, seed=seed, quotas=quotas).picks
        had = Counter(v for i in found.ids for v in values[names.index(i)])
        assert len(found) == budget and had["x"] >= 5 and had["u"] >= 5


def test_minimums_that_compete_for_the_budget_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, _, _ = crossed(tmp_path, 2)
    quotas = {"a": {"at_least": {"x": 5}}, "b": {"at_least": {"u": 5}}}
    with caplog.at_level(logging.WARNING):
        found = select("random", path, budget=6, quotas=quotas)
    got = found.report["quotas"]
    assert got["a"]["x"] + got["b"]["u"] == 8  # two rows are both, four are one or the other
    assert "the minimums compete" in caplog.text and "the budget of 6" in caplog.text
