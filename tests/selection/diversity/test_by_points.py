"""Picks by one more number a row: the highest points of a shortlist, ties by id, from any shards."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar, Literal

import builders
import numpy as np
from torch import Tensor

from alray.pool import Pool
from alray.selection import select
from alray.selection.diversity.by_points import MergePointed, Pointed
from alray.strategies import Diversity, Strategy
from alray.strategies.diversity import Highest
from alray.strategies.shortlist import GrowingCap
from alray.table import Table, as_ids


class SecondNumber(Strategy):
    """Candidates by the first number of a row, picks by the second."""

    name: Literal["second_number"] = "second_number"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    exact: ClassVar[bool] = True

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return -rows["features"][:, 0]

    def shortlist(self, budget: int) -> GrowingCap:
        return GrowingCap(0.5, budget)

    @property
    def diversity(self) -> Diversity:
        return Highest()

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return rows["features"][:, 1:2]


def test_the_candidates_with_the_highest_points_are_picked_from_any_shards(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = np.stack([rng.choice([0.25, 0.75, 2.0], size=200), rng.integers(20, size=200)], axis=1).astype(np.float16)
    ids = builders.ids(200)
    path = builders.parquet(tmp_path / "0.parquet", {"id": ids, "features": builders.vectors(matrix)})
    near = [(-point, i, cap) for (cap, point), i in zip(matrix.tolist(), ids, strict=True) if cap < 0.5]
    expected = {i: -cap for _, i, cap in sorted(near)[:15]}  # the fifteenth is one of several alike
    for rows_per_shard in (1000, 64, 3):
        found = select(SecondNumber(), Pool.open(path, rows_per_shard=rows_per_shard), budget=15)
        assert dict(zip(found.picks.ids, found.picks.scores, strict=True)) == expected
        assert found.report["diversity"] == "highest" and found.report["candidates"] == len(near)


def test_parts_merge_in_any_order() -> None:
    parts = [
        Pointed(np.array([1.0, 5.0], np.float32), as_ids(["e", "b"]), np.array([0.1, 0.2], np.float32)),
        Pointed(np.array([5.0], np.float32), as_ids(["a"]), np.array([0.3], np.float32)),
        Pointed(np.array([], np.float32), as_ids([]), np.array([], np.float32)),
    ]
    merge = MergePointed(2)
    for one, two, three in itertools.permutations(parts):
        found = merge([merge([one, two]), three])
        assert found.ids_n.tolist() == ["a", "b"] and found.scores_n.tolist() == [np.float32(0.3), np.float32(0.2)]
