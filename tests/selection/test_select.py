"""The five stages on pools small enough to check by hand."""

from __future__ import annotations

import logging
from pathlib import Path

import builders
import numpy as np
import pytest

import alray.selection as selection
from alray.errors import LabelsError, PoolError, QuarantineError, StrategyError
from alray.features import from_pool
from alray.labelling import Labels
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.selection.diversity import by_kmeans, coreset
from alray.selection.diversity.candidates import Candidates
from alray.selection.resident import Exclusion, Scan
from alray.selection.shortlisted import Limit
from alray.strategies import Given, find


@pytest.fixture
def pool(tmp_path: Path) -> tuple[str, np.ndarray, list[str], list[str]]:
    return builders.features_pool(tmp_path)


def labels_of(pool: tuple[str, np.ndarray, list[str], list[str]], count: int) -> dict[str, str]:
    return dict(zip(pool[2][:count], pool[3][:count], strict=True))


def test_margin_takes_the_rows_that_a_brute_force_takes(pool: tuple[str, np.ndarray, list[str], list[str]]) -> None:
    path, matrix, names, _ = pool
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(4, 8)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    head = Head.linear(weight, bias, ["class-0", "class-1", "class-2", "class-3"])
    found = selection.select("margin", path, budget=9, head=head).picks
    logits = matrix.astype(np.float64) @ weight.astype(np.float64).T + bias
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs = np.sort(probs / probs.sum(1, keepdims=True), axis=1)
    gap = probs[:, -1] - probs[:, -2]
    assert list(found.ids) == [names[i] for i in np.argsort(gap)[:9]]
    assert np.allclose(found.scores, -np.sort(gap)[:9], atol=1e-6)


def test_labelled_and_excluded_rows_are_not_picked(pool: tuple[str, np.ndarray, list[str], list[str]]) -> None:
    labels = labels_of(pool, 20)
    found = selection.select("random", pool[0], budget=125, labels=labels, exclude=pool[2][20:30])
    assert set(found.picks.ids) == set(pool[2][30:])


def test_a_budget_beyond_the_pool_takes_all_of_it_and_says_so(
    pool: tuple[str, np.ndarray, list[str], list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = selection.select("margin", pool[0], budget=500, labels=labels_of(pool, 40))
    assert sorted(found.picks.ids) == pool[2][40:]
    assert "The pool has 85 rows left to pick from; the budget is 500" in caplog.text


def test_alfa_mix_fills_from_the_rest_when_there_are_too_few_candidates(
    pool: tuple[str, np.ndarray, list[str], list[str]],
) -> None:
    found = selection.select("alfa_mix", pool[0], budget=80, labels=labels_of(pool, 40))
    reasons = found.picks.reasons
    assert len(set(found.picks.ids)) == 80
    assert found.report["filled"] == reasons.count("fill") > 0
    assert reasons.count("strategy") == found.report["candidates"]


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_separate_blobs_give_one_pick_each(tmp_path: Path, regime: str) -> None:
    # Two classes split on one coordinate, six far-apart directions: with B = 6 each direction is picked once (P10).
    rng = np.random.default_rng(2)
    spots = np.eye(7)[1:] * 8
    matrix = np.concatenate([s + rng.normal(scale=0.02, size=(30, 7)) for s in spots]).astype(np.float16)
    names = builders.ids(len(matrix))
    order = rng.permutation(len(matrix))
    for number, part in enumerate(np.array_split(order, 3)):
        columns = {"id": [names[i] for i in part], "features": builders.vectors(matrix[part])}
        builders.parquet(tmp_path / f"pool-{number}.parquet", columns)
    weight = np.array([[1.0, 0, 0, 0, 0, 0, 0], [-1.0, 0, 0, 0, 0, 0, 0]], dtype=np.float32)
    head = Head.linear(weight, np.zeros(2, np.float32), ["a", "b"])
    labels = {names[0]: "a", names[40]: "b"}
    found = selection.select("alfa_mix", str(tmp_path), budget=6, labels=labels, head=head, regime=regime)  # type: ignore[arg-type]
    assert found.report["regime"] == regime
    assert sorted(int(i.split("-")[1]) // 30 for i in found.picks.ids) == [0, 1, 2, 3, 4, 5]


def test_identical_rows_are_still_distinct_picks(tmp_path: Path) -> None:
    matrix = np.ones((50, 4), dtype=np.float16)
    builders.parquet(tmp_path / "p.parquet", {"id": builders.ids(50), "features": builders.vectors(matrix)})
    for name in ("margin", "alfa_mix", "random"):
        labels = {"row-00000": "a", "row-00001": "b"}
        picks = selection.select(name, str(tmp_path), budget=10, labels=labels).picks
        assert len(set(picks.ids)) == 10


def test_a_strategy_that_needs_labels_says_what_to_use_instead(
    pool: tuple[str, np.ndarray, list[str], list[str]],
) -> None:
    with pytest.raises(StrategyError, match=r"`margin` scores rows by a head's predictions.*use `random`"):
        selection.select("margin", pool[0], budget=3)


def test_labels_of_another_pool_are_refused_with_examples(pool: tuple[str, np.ndarray, list[str], list[str]]) -> None:
    for name in ("margin", "random"):
        with pytest.raises(LabelsError, match=r"1 of 2 labelled ids are not in the pool: 'who\?'"):
            selection.select(name, pool[0], budget=3, labels={"who?": "a", pool[2][0]: "b"})


def test_a_label_that_the_head_does_not_know_is_refused(pool: tuple[str, np.ndarray, list[str], list[str]]) -> None:
    head = Head.linear(np.zeros((2, 8), np.float32), np.zeros(2, np.float32), ["cat", "dog"])
    with pytest.raises(
        LabelsError, match=r"1 labels are not among the head's 2 classes \('cat', 'dog'\): 'row-00000': 'cow'"
    ):
        selection.select("margin", pool[0], budget=3, labels={pool[2][0]: "cow"}, head=head)


def test_a_budget_below_one_is_refused(pool: tuple[str, np.ndarray, list[str], list[str]]) -> None:
    with pytest.raises(StrategyError, match="The budget is 0; expected at least 1"):
        selection.select("random", pool[0], budget=0)


def test_nan_rows_are_quarantined_never_picked_and_too_many_stop(tmp_path: Path) -> None:
    matrix, _ = builders.features(400, 4)
    matrix[[7, 130]] = np.nan
    builders.parquet(tmp_path / "p.parquet", {"id": builders.ids(400), "features": builders.vectors(matrix)})
    found = selection.select("random", str(tmp_path), budget=400)
    assert len(found.picks) == 398
    assert {one.id for one in found.quarantine} == {"row-00007", "row-00130"}
    with pytest.raises(
        QuarantineError, match=r"2 of 400 rows \(0\.5%\) cannot be read; `pool.max_quarantine` allows 0\.1%"
    ):
        selection.select("random", str(tmp_path), budget=4, max_quarantine=0.001)


def test_a_pool_of_pictures_is_sent_to_alray_features(tmp_path: Path) -> None:
    path, _, _ = builders.image_pool(tmp_path)
    with pytest.raises(PoolError, match=r"The pool has image rows and no `features`.*`alray features CONFIG`"):
        selection.select("random", path, budget=2)


def test_blocks_are_cut_by_shard_number_alone() -> None:
    assert coreset.blocks([2, 0, 1]) == [[1], [2], [0]]
    cut = coreset.blocks(list(range(40)))
    assert len(cut) == 16
    assert [n for block in cut for n in block] == list(range(40))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_a_limited_shortlist_keeps_the_best_multiple_of_the_budget(tmp_path: Path) -> None:
    path, _, names, classes = builders.features_pool(tmp_path, files=(300, 300), dim=4)
    labels = dict(list(zip(names, classes, strict=True))[:40])
    whole = selection.select("alfa_mix", path, budget=4, labels=labels)
    assert whole.report["candidates"] > 12
    limited = selection.select({"name": "alfa_mix", "shortlist_multiple": 2.5}, path, budget=4, labels=labels)
    assert limited.report["shortlist"] == 10
    tight = selection.select({"name": "alfa_mix", "shortlist_multiple": 1.01}, path, budget=4, labels=labels)
    scores = sorted(selection.select("alfa_mix", path, budget=560, labels=labels).picks.scores, reverse=True)
    assert np.array_equal(tight.picks.scores, scores[:4])
    assert limited.picks.scores.min() >= scores[9]


def test_many_identical_candidates_are_picked_in_the_order_of_their_ids(tmp_path: Path) -> None:
    # One cluster holds all: what is missing is taken from it by (distance, id), in one pass.
    matrix = np.concatenate([np.full((900, 4), 0.25), np.eye(4)[[0, 1]] * 2]).astype(np.float16)
    names = builders.ids(len(matrix))
    builders.parquet(tmp_path / "p.parquet", {"id": names, "features": builders.vectors(matrix)})
    head = Head.linear(np.eye(4, dtype=np.float32)[:2], np.array([0.0, 0.01], np.float32), ["a", "b"])
    labels = {names[-2]: "a", names[-1]: "b"}
    found = selection.select("alfa_mix", str(tmp_path), budget=300, labels=labels, head=head)
    assert found.report["candidates"] == 900
    assert list(found.picks.ids) == names[:300]


def test_rows_without_a_score_are_quarantined_with_the_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matrix = np.ones((300, 2), dtype=np.float16)
    matrix[5] = 60000
    builders.parquet(tmp_path / "p.parquet", {"id": builders.ids(300), "features": builders.vectors(matrix)})
    head = Head.linear(np.full((2, 2), 1e35, np.float32), np.zeros(2, np.float32), ["a", "b"])
    found = selection.select("margin", str(tmp_path), budget=300, head=head)
    assert "row-00005" not in found.picks.ids
    assert len(found.picks) == 299
    assert [(one.id, one.reason) for one in found.quarantine] == [
        ("row-00005", "score: `margin` gives it no number (an overflow in the head?)")
    ]
    assert "1 rows have no score and cannot be picked" in caplog.text


@pytest.mark.parametrize(
    ("shards", "rows", "budget", "regime"),
    [(16, 10**5, 10, "central"), (16, 10**5, 2000, "coreset"), (2, 10**5, 2000, "central"), (2, 10**7, 10, "coreset")],
)
def test_auto_goes_by_bytes_work_and_shards(tmp_path: Path, shards: int, rows: int, budget: int, regime: str) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(5,) * shards, dim=128)
    features = from_pool(Pool.open(path))
    with selection.ResidentPool(features, LocalRuntime()) as pool:
        strategy, head = (
            find("alfa_mix"),
            Head.linear(np.zeros((3, 128), np.float32), np.zeros(3, np.float32), ["a", "b", "c"]),
        )
        given = Given(budget=budget, seed=0, round=0, head=head)
        scan = Scan("t", features.version, strategy, {}, head, Exclusion(frozenset()))
        where = (pool.held, pool.runtime, pool.numbers, 128)
        found = Candidates(*where, scan, Limit(-1.0), rows, given, strategy.diversity, "auto")
        assert by_kmeans.regime(found, found.budget) == regime


def test_skipped_rows_are_paid_for_and_cancelled_rows_may_be_picked(
    pool: tuple[str, np.ndarray, list[str], list[str]],
) -> None:
    names = pool[2]
    rows = [
        {"id": names[0], "label": "class-0"},
        {"id": names[1], "status": "skipped"},
        {"id": names[2], "status": "cancelled"},
    ]
    found = selection.select("random", pool[0], budget=125, labels=Labels.of(rows))
    assert set(found.picks.ids) == set(names[2:])


def test_fill_draws_other_rows_in_another_round(pool: tuple[str, np.ndarray, list[str], list[str]]) -> None:
    def filled(number: int) -> set[str]:
        found = selection.select("alfa_mix", pool[0], budget=60, labels=labels_of(pool, 40), round=number)
        pairs = zip(found.picks.ids, found.picks.reasons, strict=True)
        return {i for i, reason in pairs if reason == "fill"}

    assert filled(1) == filled(1)
    assert filled(1) != filled(2)
