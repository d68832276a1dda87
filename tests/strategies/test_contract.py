"""What every strategy owes, on small pools: B distinct unlabelled rows, the same for any cut and order of the pool.

It runs on every strategy and on the variants of `tests/variants.py`, in this process and on Ray.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from variants import CASES, PLAIN, VARIANTS, built, exact, head_of

from alray.errors import StrategyError
from alray.features import FeatureSet, from_pool
from alray.labelling import Labels
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import LocalRuntime, Runtime, RuntimeConfig
from alray.selection import Picks, ResidentPool, Selection, select
from alray.selection.select import prepare_given
from alray.strategies import STRATEGIES, Strategy
from alray.strategies.base import HEAD_NEEDS, NEEDS
from alray.strategies.diversity import Diversity

WITH_HEAD = [case for case in CASES if built(case).wants & HEAD_NEEDS]
ROWS, BUDGET = 300, 20
COUNT = itertools.count()


class Rows:
    """Rows of a pool and labels of some of them; `write` cuts them into files as a test says."""

    def __init__(self, folder: Path, rows: int = ROWS, classes: int = 4, dim: int = 8, matrix: Any = None) -> None:
        self.folder, self.ids = folder, builders.ids(rows)
        features_ND, self.truth = builders.features(rows, dim, seed=3, classes=classes)
        self.features_ND = features_ND if matrix is None else np.asarray(matrix, dtype=np.float16)
        self.labels = {self.ids[i]: self.truth[i] for i in range(0, rows, max(rows // 24, 1))}
        self.source = ["abc"[i % 3] for i in range(rows)]

    def write(self, order: Sequence[int] | None = None, files: Sequence[int] | None = None) -> str:
        """Write the pool's rows in this order, cut into files of these sizes; return its glob."""
        order = np.arange(len(self.ids)) if order is None else np.asarray(order)
        folder, at = self.folder / f"pool-{next(COUNT)}", 0
        for number, rows in enumerate(files or [len(order)]):
            part = order[at : at + rows]
            columns = {"id": [self.ids[i] for i in part], "features": builders.vectors(self.features_ND[part])}
            columns["source"] = [self.source[i] for i in part]
            builders.parquet(folder / f"{number:02d}.parquet", columns, row_group=64)
            at += rows
        assert at == len(order)
        return str(folder / "*.parquet")


def run(case: str, pool: str | Pool, rows: Rows, budget: int = BUDGET, **more: Any) -> Selection:
    """Select in this process, with the rows' labels unless others are given."""
    labels = more.pop("labels", rows.labels)
    return select(built(case), pool, budget=budget, labels=labels, head_config=head_of(case), **more)


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    return Rows(tmp_path)


def check(found: Selection, rows: Rows, budget: int) -> None:
    """Check B distinct rows of the pool that were not labelled, ranked by score."""
    ids = found.picks.ids.tolist()
    assert len(ids) == len(set(ids)) == budget
    assert not set(ids) & set(rows.labels) and set(ids) <= set(rows.ids)
    keys = list(zip((-found.picks.scores).tolist(), ids, strict=True))
    assert keys == sorted(keys)


# declarations


@pytest.mark.parametrize("name", PLAIN)
def test_a_strategy_says_what_it_is(name: str) -> None:
    member = STRATEGIES()[name]
    assert issubclass(member, Strategy) and member.model_fields["name"].default == name
    assert member.needs <= NEEDS and isinstance(member.exact, bool) and member.__doc__ and member.cost
    diversity = built(name).diversity
    assert isinstance(diversity, Diversity) and (diversity.exact or not member.exact)


def test_every_variant_is_another_strategy_than_the_plain_ones() -> None:
    assert len({(str(built(case)), case in VARIANTS and VARIANTS[case].get("head")) for case in CASES}) == len(CASES)
    assert all(built(case).wants <= NEEDS for case in CASES)


# picks


@pytest.mark.parametrize(
    ("case", "budget"), [(case, n) for case in PLAIN for n in (1, BUDGET, 150)] + [(case, BUDGET) for case in VARIANTS]
)
def test_distinct_unlabelled_rows(case: str, budget: int, rows: Rows) -> None:
    check(run(case, rows.write(files=[100, 77, 123]), rows, budget), rows, budget)


@pytest.mark.parametrize("case", PLAIN)
def test_excluded_rows_are_not_picked(case: str, rows: Rows) -> None:
    pool = rows.write()
    gone = run(case, pool, rows).picks.ids.tolist()
    again = run(case, pool, rows, exclude=gone)
    check(again, rows, BUDGET)
    assert not set(gone) & set(again.picks.ids)


@pytest.mark.parametrize("case", CASES)
def test_the_same_seed_gives_the_same_picks(case: str, rows: Rows) -> None:
    pool = rows.write(files=[150, 150])
    once, again = run(case, pool, rows, seed=7).picks, run(case, pool, rows, seed=7).picks
    assert once.digest() == again.digest() and (once.scores == again.scores).all()


def test_random_follows_seed_and_round(rows: Rows) -> None:
    pool = rows.write()
    digests = {run("random", pool, rows, seed=s, round=r).picks.digest() for s in (0, 1) for r in (0, 1)}
    assert len(digests) == 4


@pytest.mark.parametrize("case", PLAIN)
def test_rules_hold_whatever_the_strategy(case: str, rows: Rows) -> None:
    quotas = {"source": {"at_most": {"a": 4}, "at_least": {"b": 9}}, "predicted_class": {"at_most": 11}}
    found = run(case, rows.write(files=[100, 200]), rows, quotas=quotas, min_distance=1e-4)
    check(found, rows, BUDGET)
    sources = Counter(rows.source[rows.ids.index(i)] for i in found.picks.ids)
    assert sources["a"] <= 4 and sources["b"] >= 9 and found.report["quotas"]["source"] == dict(sources)
    assert max(found.report["quotas"]["predicted_class"].values()) <= 11


# cuts


def cuts() -> dict[str, tuple[np.ndarray, list[int]]]:
    """Return orders and file sizes of the same rows: shuffled, re-cut, uneven, sorted by class."""
    rng = np.random.default_rng(5)
    truth = np.array(builders.features(ROWS, 8, seed=3)[1])
    plain = np.arange(ROWS)
    return {
        "files swapped": (np.r_[200:300, 0:200], [100, 200]),
        "rows shuffled": (rng.permutation(ROWS), [300]),
        "many files": (plain, [1, 2, 3, 5, 100, 7, 182]),
        "one row a file": (plain, [1] * 40 + [260]),
        "sorted by class": (np.argsort(truth, kind="stable"), np.unique(truth, return_counts=True)[1].tolist()),
    }


@pytest.mark.parametrize(
    ("case", "cut"),
    [(case, cut) for case in PLAIN for cut in sorted(cuts())] + [(case, "sorted by class") for case in VARIANTS],
)
def test_the_cut_of_the_pool_leaves_no_trace(case: str, cut: str, rows: Rows) -> None:
    whole = run(case, rows.write(), rows, regime="central")
    found = run(case, rows.write(*cuts()[cut]), rows, regime="central")
    if exact(case):
        assert found.picks.digest() == whole.picks.digest()
        np.testing.assert_allclose(found.picks.scores, whole.picks.scores, rtol=1e-6, atol=1e-7)
    for key in ("candidates", "cap", "available"):
        assert found.report.get(key) == whole.report.get(key)
    check(found, rows, BUDGET)


@pytest.mark.parametrize("rows_per_shard", [7, 64])
@pytest.mark.parametrize("case", PLAIN)
def test_shards_inside_a_file_leave_no_trace(case: str, rows_per_shard: int, rows: Rows) -> None:
    path = rows.write()
    whole = run(case, path, rows, regime="central")
    found = run(case, Pool.open(path, rows_per_shard=rows_per_shard), rows, regime="central")
    assert found.picks.digest() == whole.picks.digest()


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_alfa_mix_picks_among_its_candidates(regime: str, rows: Rows) -> None:
    found = run("alfa_mix", rows.write(files=[150, 150]), rows, 5, regime=regime)
    assert found.report["candidates"] > 5 and found.report["regime"] == regime
    assert (found.picks.scores > -found.report["cap"]).all() and set(found.picks.reasons) == {"strategy"}


# workers


@functools.cache
def shared_set(folder: Path) -> tuple[Rows, FeatureSet]:
    """Return rows and their features in shards of 40, class after class, in uneven files."""
    rows = Rows(folder)
    return rows, from_pool(Pool.open(rows.write(*cuts()["sorted by class"]), rows_per_shard=40))


def shuffled(features: FeatureSet, seed: int) -> FeatureSet:
    """Return the same shards in another order."""
    order = np.random.default_rng(seed).permutation(len(features.shards))
    return dataclasses.replace(features, shards=tuple(features.shards[i] for i in order))


def picks_of(case: str, pool: ResidentPool, rows: Rows) -> Picks:
    """Return the picks of a case on a pool that is held already: workers start once for all cases."""
    strategy, labels = built(case), Labels.of(rows.labels)
    given = prepare_given(pool, strategy, labels, None, BUDGET, 5, 1, head_config=head_of(case))
    return pool.select(strategy, given, excluded=labels.paid_ids()).picks


@functools.cache
def picks_here(case: str, folder: Path) -> Picks:
    """Return the picks of a case in this process."""
    rows, features = shared_set(folder)
    with ResidentPool(features, LocalRuntime()) as pool:
        return picks_of(case, pool, rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("case", CASES)
def test_shuffled_shards_give_the_same_bits(case: str, folder: Path) -> None:
    rows, features = shared_set(folder)
    with ResidentPool(shuffled(features, 1), LocalRuntime()) as pool:
        found = picks_of(case, pool, rows)
    assert found.digest() == picks_here(case, folder).digest()
    assert np.array_equal(found.scores, picks_here(case, folder).scores)


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2, 4])
def test_any_number_of_workers_gives_the_same_bits(workers: int, folder: Path, ray_runtime: Runtime) -> None:
    """All strategies on the same held shards, in other orders; the variants on two workers."""
    from alray.runtime.ray import RayRuntime

    rows, features = shared_set(folder)
    wrong = []
    with ResidentPool(shuffled(features, workers), RayRuntime(RuntimeConfig(workers=workers))) as pool:
        for case in CASES if workers == 2 else PLAIN:
            here, there = picks_here(case, folder), picks_of(case, pool, rows)
            if there.digest() != here.digest() or not np.array_equal(there.scores, here.scores):
                wrong.append(case)
    assert not wrong


# budgets


@pytest.mark.parametrize("case", CASES)
def test_the_whole_pool(case: str, rows: Rows) -> None:
    left = ROWS - len(rows.labels)
    check(run(case, rows.write(files=[200, 100]), rows, left), rows, left)


@pytest.mark.parametrize("case", PLAIN)
def test_more_than_the_pool_gives_all_of_it_and_a_warning(
    case: str, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    left = ROWS - len(rows.labels)
    with caplog.at_level(logging.WARNING, logger="alray"):
        check(run(case, rows.write(), rows, 1000), rows, left)
    assert f"{left} rows left" in caplog.text and "1000" in caplog.text


@pytest.mark.parametrize("case", PLAIN)
def test_a_pool_that_is_all_labelled_gives_nothing(case: str, rows: Rows) -> None:
    rows.labels = dict(zip(rows.ids, rows.truth, strict=True))
    assert len(run(case, rows.write(), rows).picks) == 0


# labels


@pytest.mark.parametrize("case", WITH_HEAD)
@pytest.mark.parametrize("labels", [None, {}])
def test_no_labels_are_refused(case: str, labels: Any, rows: Rows) -> None:
    with pytest.raises(StrategyError, match=rf"`{built(case).name}`.*(?s:labels).*`?random`?"):
        run(case, rows.write(), rows, labels=labels)


@pytest.mark.parametrize("case", sorted(set(CASES) - set(WITH_HEAD)))
def test_no_labels_are_needed(case: str, rows: Rows) -> None:
    rows.labels = {}
    check(run(case, rows.write(), rows, labels=None), rows, BUDGET)


def test_alfa_mix_with_a_head_but_no_labels_is_refused(rows: Rows) -> None:
    head = Head.linear(np.eye(4, 8, dtype=np.float32), np.zeros(4, dtype=np.float32), list("abcd"))
    with pytest.raises(StrategyError, match=r"`alfa_mix` mixes features.*no labels.*`strategy: random`"):
        run("alfa_mix", rows.write(), rows, labels=None, head=head)


@pytest.mark.parametrize("case", CASES)
def test_a_class_without_labels(case: str, rows: Rows) -> None:
    rows.labels = {i: label for i, label in rows.labels.items() if label != "class-2"}
    names = [f"class-{c}" for c in range(4)]
    check(run(case, rows.write(), rows, classes=names), rows, BUDGET)


@pytest.mark.parametrize("case", PLAIN)
def test_labels_of_one_class_only(case: str, rows: Rows) -> None:
    rows.labels = dict.fromkeys(rows.labels, "class-0")
    check(run(case, rows.write(), rows), rows, BUDGET)


@pytest.mark.parametrize("case", [c for c in CASES if CASES[c].get("top_k") != 2])  # of two classes that is all
def test_two_classes(case: str, tmp_path: Path) -> None:
    rows = Rows(tmp_path, 120, classes=2)
    check(run(case, rows.write(files=[50, 70]), rows), rows, BUDGET)


@pytest.mark.parametrize("case", PLAIN)
def test_one_label_a_class(case: str, rows: Rows) -> None:
    first = {label: i for i, label in reversed(list(rows.labels.items()))}
    rows.labels = {i: label for label, i in first.items()}
    check(run(case, rows.write(), rows), rows, BUDGET)


# rows


@pytest.mark.parametrize("matrix", ["identical", "zero", "two kinds"])
@pytest.mark.parametrize("case", CASES)
def test_rows_that_are_alike(case: str, matrix: str, tmp_path: Path) -> None:
    made = {
        "identical": np.ones((60, 8)),
        "zero": np.zeros((60, 8)),
        "two kinds": np.repeat([[1.0] * 8, [-1.0] * 8], 30, axis=0),
    }
    rows = Rows(tmp_path, 60, matrix=made[matrix])
    check(run(case, rows.write(files=[20, 1, 39]), rows, 10), rows, 10)


@pytest.mark.parametrize("case", PLAIN)
def test_bad_rows_are_quarantined_and_never_picked(case: str, rows: Rows) -> None:
    free = [i for i, id_ in enumerate(rows.ids) if id_ not in rows.labels]
    bad = free[5::40]
    rows.features_ND[bad[0::2], 3], rows.features_ND[bad[1::2]] = np.nan, np.inf
    left = len(free) - len(bad)
    found = run(case, rows.write(files=[99, 201]), rows, left, max_quarantine=0.1)
    check(found, rows, left)
    assert len(found.quarantine) == len(bad) and not {rows.ids[i] for i in bad} & set(found.picks.ids)


@pytest.mark.parametrize("case", PLAIN)
def test_features_with_a_large_common_offset(case: str, tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.features_ND = (10 + 0.1 * rows.features_ND).astype(np.float16)
    check(run(case, rows.write(files=[120, 180]), rows), rows, BUDGET)
