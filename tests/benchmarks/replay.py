"""Labelling played again on features whose labels are known: the same head and first labels for every strategy.

Used by `label_efficiency.py`, `factorial.py` and `stress.py`. A world is a pool, its truth and a clean test set; the
head is multinomial regression whose l2 is tuned once for each number of labels, on rows drawn at random and judged on
other rows of the pool, never the test set, and then given to all.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alray.features import from_pool
from alray.labelling import Labels, read_labels
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.selection.resident_pool import ResidentPool
from alray.selection.select import prepare_given
from alray.selection.settings import SelectionConfig
from alray.selection.stages import Selection
from alray.strategies import Strategy
from alray.training.probe import HeadConfig, fit_head

L2 = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
TUNING_SEEDS = (1001, 1002, 1003)
JUDGES = 5000
JUNK = "junk"
"""What a person answers who can say no class: paid, and of no use to a head."""


@dataclass(frozen=True)
class World:
    """A pool with its truth, row by row, and a test set. `label_N` is what a person would answer; it may be wrong."""

    name: str
    path: str
    ids: np.ndarray
    features_ND: np.ndarray
    label_N: np.ndarray
    test_TD: np.ndarray
    test_label_T: np.ndarray
    classes: tuple[str, ...]
    place: dict[str, int] = field(repr=False, compare=False)

    @staticmethod
    def write(
        name: str,
        work: Path,
        ids: Sequence[str],
        features_ND: np.ndarray,
        label_N: np.ndarray,
        test_TD: np.ndarray,
        test_label_T: np.ndarray,
    ) -> World:
        """Write the pool's file where it is not there yet, and return its world. Rows are rounded to fp16."""
        work.mkdir(parents=True, exist_ok=True)
        path, x_ND = work / f"{name}.parquet", features_ND.astype(np.float16)
        if not path.exists():
            column = pa.FixedSizeListArray.from_arrays(pa.array(x_ND.ravel()), x_ND.shape[1])
            partial = path.with_suffix(".partial")
            pq.write_table(pa.table({"id": pa.array(list(ids)), "features": column}), partial, row_group_size=4096)
            partial.rename(path)
        elif not np.array_equal(matrix(pq.read_table(path)), x_ND):
            raise SystemExit(f"{path} holds other rows. Give another folder, or remove this one.")
        names = np.array(list(ids))
        return World(
            name,
            str(path),
            names,
            x_ND.astype(np.float32),
            label_N.astype(str),
            test_TD.astype(np.float16).astype(np.float32),
            test_label_T.astype(str),
            tuple(sorted(set(test_label_T.astype(str).tolist()))),
            {i: n for n, i in enumerate(names.tolist())},
        )

    def resident(self) -> ResidentPool:
        """Return the pool on the workers of one process; a context manager."""
        pool = Pool.open(self.path)
        pool.check_ids()
        return ResidentPool(from_pool(pool), LocalRuntime())

    def answers(self, ids: Collection[str]) -> dict[str, str]:
        """Return what a person says of these rows, sorted by id."""
        return {i: str(self.label_N[self.place[i]]) for i in sorted(ids)}

    def fit(self, known: Mapping[str, str], l2: float) -> Head:
        """Return the head of these labels; those that name no class are not trained on."""
        ids = sorted(i for i, label in known.items() if label != JUNK)
        rows_MD = self.features_ND[[self.place[i] for i in ids]]
        return fit_head(HeadConfig(l2=l2), rows_MD, [known[i] for i in ids], self.classes, 0)

    def predicted(self, head: Head) -> np.ndarray:
        """Return the head's class of every test row."""
        return np.array(self.classes)[scores(head, self.test_TD).argmax(axis=1)]

    def accuracy(self, head: Head) -> float:
        """Return the share of test rows that the head gets right."""
        return float((self.predicted(head) == self.test_label_T).mean())


def scores(head: Head, rows_ND: np.ndarray) -> np.ndarray:
    """Return a linear head's logits."""
    weight_CD, bias_C = (t.float().numpy() for t in head.last)
    return np.asarray(rows_ND @ weight_CD.T + bias_C)


def digits(work: Path) -> World:
    """Return scikit-learn's digits as pixels: 1,438 rows of pool, 359 of test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    test, pool = order[:359], np.sort(order[359:])
    x, y = found.data / 16.0, found.target.astype(str)
    return World.write("digits", work, [f"digit-{n:04d}" for n in pool], x[pool], y[pool], x[test], y[test])


def cifar(work: Path, folder: Path) -> World:
    """Return CIFAR-10's features of a folder like `cifar10/features512`, with labels from the folder above it."""
    pool = pa.concat_tables([pq.read_table(path) for path in sorted(folder.glob("pool-*.parquet"))]).combine_chunks()
    test, ids = pq.read_table(folder / "test.parquet"), pool["id"].to_pylist()
    truth = read_labels(str(folder.parent / "oracle.parquet")).mapping()
    said = pq.read_table(folder.parent / "test.parquet", columns=["id", "label"])
    test_truth = dict(zip(said["id"].to_pylist(), said["label"].to_pylist(), strict=True))
    labels = [np.array([truth[i] for i in ids]), np.array([test_truth[i] for i in test["id"].to_pylist()])]
    return World.write("cifar10", work, ids, matrix(pool), labels[0], matrix(test), labels[1])


def matrix(table: pa.Table) -> np.ndarray:
    """Return a table's features, [N, D]."""
    flat = table["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(table), -1))


def drawn(world: World, count: int, seed: int) -> list[str]:
    """Return the ids of `count` rows drawn at random: the same for every strategy of a seed."""
    return sorted(np.random.default_rng(seed).choice(world.ids, count, replace=False).tolist())


def tuned(world: World, sizes: Sequence[int], work: Path) -> dict[int, float]:
    """Return for each number of labels the l2 of the best mean accuracy on rows of the pool that were not drawn."""
    path = work / f"{world.name}.l2.json"
    known = {int(size): l2 for size, l2 in json.loads(path.read_text()).items()} if path.exists() else {}
    for size in sorted(set(sizes) - set(known)):
        known[size] = max(L2, key=lambda l2: float(np.mean([_judged(world, size, l2, s) for s in TUNING_SEEDS])))
        path.write_text(json.dumps(known))
    return known


def _judged(world: World, size: int, l2: float, seed: int) -> float:
    taken = drawn(world, size, seed)
    head = world.fit(world.answers(taken), l2)
    taken_rows = [world.place[i] for i in taken]
    others = np.setdiff1d(np.arange(len(world.ids)), taken_rows)
    judges = np.random.default_rng(seed).choice(others, min(JUDGES, len(others)), replace=False)
    keep = judges[world.label_N[judges] != JUNK]
    names = np.array(world.classes)[scores(head, world.features_ND[keep]).argmax(axis=1)]
    return float((names == world.label_N[keep]).mean())


def pick(
    resident: ResidentPool,
    strategy: Strategy,
    known: Mapping[str, str],
    head: Head,
    *,
    budget: int,
    seed: int,
    round: int,
    l2: float,
    config: SelectionConfig | None = None,
) -> Selection:
    """Return the rows that a strategy buys next. If it keeps labels back, its head is of the rest."""
    labels = Labels.of({i: label for i, label in known.items() if label != JUNK})
    own: Any = None if strategy.reference() else head
    given = prepare_given(
        resident, strategy, labels, own, budget, seed, round, classes=head.classes, head_config=HeadConfig(l2=l2)
    )
    return resident.select(strategy, given, excluded=set(known), config=config)


def one_thread() -> None:
    """Keep to one core, so that runs beside each other do not slow each other down."""
    torch.set_num_threads(1)
