"""What every strategy owes, on small pools: B distinct unlabelled rows, the same for any cut and order of the pool."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest

from alray.errors import StrategyError
from alray.models.head import Head
from alray.selection import Selection, select
from alray.strategies import STRATEGIES, find
from alray.strategies.base import HEAD_NEEDS, NEEDS, Strategy
from alray.strategies.diversity import Diversity

NAMES = sorted(STRATEGIES())
WITH_HEAD = [name for name in NAMES if find(name).needs & HEAD_NEEDS]
ROWS, BUDGET = 300, 20
COUNT = itertools.count()


class Rows:
    """Rows of a pool and labels of some of them; `write` cuts them into files as a test says."""

    def __init__(self, folder: Path, rows: int = ROWS, classes: int = 4, dim: int = 8, matrix: Any = None) -> None:
        self.folder, self.ids = folder, builders.ids(rows)
        features_ND, self.truth = builders.features(rows, dim, seed=3, classes=classes)
        self.features_ND = features_ND if matrix is None else np.asarray(matrix, dtype=np.float16)
        self.labels = {self.ids[i]: self.truth[i] for i in range(0, rows, max(rows // 24, 1))}

    def write(self, order: Sequence[int] | None = None, files: Sequence[int] | None = None) -> str:
        """Write the pool's rows in this order, cut into files of these sizes; return its glob."""
        order = np.arange(len(self.ids)) if order is None else np.asarray(order)
        folder, at = self.folder / f"pool-{next(COUNT)}", 0
        for number, rows in enumerate(files or [len(order)]):
            part = order[at : at + rows]
            columns = {"id": [self.ids[i] for i in part], "features": builders.vectors(self.features_ND[part])}
            builders.parquet(folder / f"{number:02d}.parquet", columns, row_group=64)
            at += rows
        assert at == len(order)
        return str(folder / "*.parquet")


def run(name: str, pool: str, rows: Rows, budget: int = BUDGET, **more: Any) -> Selection:
    """Select on the local runtime, with labels if the strategy needs a head."""
    labels = more.pop("labels", rows.labels)
    return select(name, pool, budget=budget, labels=labels, runtime="local", **more)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_strategy_says_what_it_is(name: str) -> None:
    member = STRATEGIES()[name]
    assert issubclass(member, Strategy) and member.model_fields["name"].default == name
    built = member()
    assert built.needs <= NEEDS and isinstance(member.exact, bool) and member.__doc__
    assert isinstance(built.diversity, Diversity) and (built.diversity.exact or not member.exact)


# picks


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("budget", [1, BUDGET, 150])
def test_distinct_unlabelled_rows(name: str, budget: int, rows: Rows) -> None:
    check(run(name, rows.write(files=[100, 77, 123]), rows, budget), rows, budget)


@pytest.mark.parametrize("name", NAMES)
def test_excluded_rows_are_not_picked(name: str, rows: Rows) -> None:
    pool = rows.write()
    gone = run(name, pool, rows).picks.ids.tolist()
    again = run(name, pool, rows, exclude=gone)
    check(again, rows, BUDGET)
    assert not set(gone) & set(again.picks.ids)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_picks(name: str, rows: Rows) -> None:
    pool = rows.write(files=[150, 150])
    once, again = run(name, pool, rows, seed=7).picks, run(name, pool, rows, seed=7).picks
    assert once.digest() == again.digest() and (once.scores == again.scores).all()


def test_random_follows_seed_and_round(rows: Rows) -> None:
    pool = rows.write()
    digests = {run("random", pool, rows, seed=s, round=r).picks.digest() for s in (0, 1) for r in (0, 1)}
    assert len(digests) == 4


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


@pytest.mark.parametrize("cut", sorted(cuts()))
@pytest.mark.parametrize("name", NAMES)
def test_the_cut_of_the_pool_leaves_no_trace(name: str, cut: str, rows: Rows) -> None:
    whole = run(name, rows.write(), rows, regime="central")
    found = run(name, rows.write(*cuts()[cut]), rows, regime="central")
    if STRATEGIES()[name].exact:
        assert found.picks.digest() == whole.picks.digest()
        np.testing.assert_allclose(found.picks.scores, whole.picks.scores, rtol=1e-6, atol=1e-7)
    for key in ("candidates", "cap", "available"):
        assert found.report.get(key) == whole.report.get(key)
    check(found, rows, BUDGET)


@pytest.mark.parametrize("rows_per_shard", [7, 64, 299])
@pytest.mark.parametrize("name", NAMES)
def test_shards_inside_a_file_leave_no_trace(name: str, rows_per_shard: int, rows: Rows) -> None:
    from alray.pool import Pool

    path = rows.write()
    whole = run(name, path, rows, regime="central")
    found = run(name, Pool.open(path, rows_per_shard=rows_per_shard), rows, regime="central")  # type: ignore[arg-type]
    assert found.picks.digest() == whole.picks.digest()


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_alfa_mix_picks_among_its_candidates(regime: str, rows: Rows) -> None:
    found = run("alfa_mix", rows.write(files=[150, 150]), rows, 5, regime=regime)
    assert found.report["candidates"] > 5 and found.report["regime"] == regime
    assert (found.picks.scores > -found.report["cap"]).all() and set(found.picks.reasons) == {"strategy"}


# budgets


@pytest.mark.parametrize("name", NAMES)
def test_the_whole_pool(name: str, rows: Rows) -> None:
    left = ROWS - len(rows.labels)
    check(run(name, rows.write(files=[200, 100]), rows, left), rows, left)


@pytest.mark.parametrize("name", NAMES)
def test_more_than_the_pool_gives_all_of_it_and_a_warning(
    name: str, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    left = ROWS - len(rows.labels)
    with caplog.at_level(logging.WARNING, logger="alray"):
        check(run(name, rows.write(), rows, 1000), rows, left)
    assert f"{left} rows left" in caplog.text and "1000" in caplog.text


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_that_is_all_labelled_gives_nothing(name: str, rows: Rows) -> None:
    rows.labels = dict(zip(rows.ids, rows.truth, strict=True))
    assert len(run(name, rows.write(), rows).picks) == 0


# labels


@pytest.mark.parametrize("name", WITH_HEAD)
@pytest.mark.parametrize("labels", [None, {}])
def test_no_labels_are_refused(name: str, labels: Any, rows: Rows) -> None:
    with pytest.raises(StrategyError, match=rf"`{name}`.*(?s:labels).*`?random`?"):
        run(name, rows.write(), rows, labels=labels)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WITH_HEAD)))
def test_no_labels_are_needed(name: str, rows: Rows) -> None:
    rows.labels = {}
    check(run(name, rows.write(), rows, labels=None), rows, BUDGET)


def test_alfa_mix_with_a_head_but_no_labels_is_refused(rows: Rows) -> None:
    head = Head.linear(np.eye(4, 8, dtype=np.float32), np.zeros(4, dtype=np.float32), list("abcd"))
    with pytest.raises(StrategyError, match=r"`alfa_mix` mixes features.*no labels.*`strategy: random`"):
        run("alfa_mix", rows.write(), rows, labels=None, head=head)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_without_labels(name: str, rows: Rows) -> None:
    rows.labels = {i: label for i, label in rows.labels.items() if label != "class-2"}
    names = [f"class-{c}" for c in range(4)]
    check(run(name, rows.write(), rows, classes=names), rows, BUDGET)


@pytest.mark.parametrize("name", NAMES)
def test_labels_of_one_class_only(name: str, rows: Rows) -> None:
    rows.labels = dict.fromkeys(rows.labels, "class-0")
    check(run(name, rows.write(), rows), rows, BUDGET)


@pytest.mark.parametrize("name", NAMES)
def test_one_label_a_class(name: str, rows: Rows) -> None:
    first = {label: i for i, label in reversed(list(rows.labels.items()))}
    rows.labels = {i: label for label, i in first.items()}
    check(run(name, rows.write(), rows), rows, BUDGET)


# rows


@pytest.mark.parametrize("matrix", ["identical", "zero", "two kinds"])
@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_alike(name: str, matrix: str, tmp_path: Path) -> None:
    made = {
        "identical": np.ones((60, 8)),
        "zero": np.zeros((60, 8)),
        "two kinds": np.repeat([[1.0] * 8, [-1.0] * 8], 30, axis=0),
    }
    rows = Rows(tmp_path, 60, matrix=made[matrix])
    for files in ([60], [20, 1, 39]):
        check(run(name, rows.write(files=files), rows, 10), rows, 10)


@pytest.mark.parametrize("name", NAMES)
def test_bad_rows_are_quarantined_and_never_picked(name: str, rows: Rows) -> None:
    free = [i for i, id_ in enumerate(rows.ids) if id_ not in rows.labels]
    bad = free[5::40]
    rows.features_ND[bad[0::2], 3], rows.features_ND[bad[1::2]] = np.nan, np.inf
    left = len(free) - len(bad)
    found = run(name, rows.write(files=[99, 201]), rows, left, max_quarantine=0.1)
    check(found, rows, left)
    assert len(found.quarantine) == len(bad) and not {rows.ids[i] for i in bad} & set(found.picks.ids)


@pytest.mark.parametrize("name", NAMES)
def test_features_with_a_large_common_offset(name: str, tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    rows.features_ND = (10 + 0.1 * rows.features_ND).astype(np.float16)
    check(run(name, rows.write(files=[120, 180]), rows), rows, BUDGET)
