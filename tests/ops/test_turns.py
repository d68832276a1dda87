"""Turns of groups: by hand, and against a loop that gives one row at a time."""

from __future__ import annotations

import numpy as np

from alray.ops import turns


def test_groups_give_in_turns_until_they_are_empty() -> None:
    # Order 2, 0, 1 with 1, 3, 2 rows: 2 0 1 | 0 1 | 0
    sizes = np.array([3, 2, 1])
    assert turns.take_turns(np.array([2, 0, 1]), sizes, 10).tolist() == [2, 0, 1, 0, 1, 0]
    assert turns.take_turns(np.array([2, 0, 1]), sizes, 4).tolist() == [2, 0, 1, 0]
    assert turns.take_turns(np.array([1]), np.array([0, 0]), 4).tolist() == []
    assert turns.take_turns(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), 4).tolist() == []


def test_turns_agree_with_one_row_at_a_time() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        sizes, count = rng.integers(0, 5, size=9), int(rng.integers(1, 25))
        order, left, slow = rng.permutation(9), sizes.copy(), []
        while len(slow) < count and left.any():
            for group in order:
                if left[group] and len(slow) < count:
                    slow.append(int(group))
                    left[group] -= 1
        assert turns.take_turns(order, sizes, count).tolist() == slow


def test_a_row_knows_its_place_in_its_group() -> None:
    assert turns.places(np.array([4, 1, 4, 4, 1])).tolist() == [0, 0, 1, 2, 1]
    assert turns.places(np.zeros(0, dtype=np.int64)).tolist() == []
