"""Passes over one shard, on scores written by hand."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from alray.selection import shortlisted
from alray.table import as_ids

SCAN = SimpleNamespace(token="t", round="t", gate=None)


class Shard:
    """Rows with given scores; NaN rows may not be picked."""

    def __init__(self, ids: list[str], scores: list[float]) -> None:
        self.ids, self._scores = as_ids(ids), np.array(scores, dtype=np.float32)

    def remember(self, token: str, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        return self._scores, np.zeros(0, dtype=np.int64)


def limited(shard: Shard, above: float, last: tuple[float, str] | None) -> list[str]:
    rows = shortlisted.Limit(above, last).rows(shard, SCAN)  # type: ignore[arg-type]
    return list(shard.ids[rows])


def test_a_limit_ends_with_its_last_row_ties_by_id() -> None:
    shard = Shard(["d", "b", "c", "a", "e"], [0.5, 0.5, 0.5, 0.9, np.nan])
    assert limited(shard, 0.0, (0.5, "c")) == ["b", "c", "a"]
    assert limited(shard, 0.0, None) == ["d", "b", "c", "a"]
    assert limited(shard, 0.5, None) == ["a"]


@pytest.mark.parametrize("cap", [0.1, 0.2, 0.3, 0.7])
def test_a_score_at_the_cut_is_inside_for_both_or_for_neither(cap: float) -> None:
    # float32(−cap) rounds to either side of −cap.
    shard = Shard(["x"], [-cap])
    _, ids = shortlisted.best(shard, SCAN, 1, -cap)  # type: ignore[arg-type]
    assert list(ids) == limited(shard, -cap, None)


def test_the_best_are_ranked_by_score_then_id_and_none_is_lost_to_a_tie() -> None:
    scores, ids = shortlisted.ranked(np.array([1, 2, 1, 2, 1], np.float32), as_ids(list("edcba")), 3)
    assert list(ids) == ["b", "d", "a"]
    assert list(scores) == [2, 2, 1]
