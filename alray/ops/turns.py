"""Turns: groups give rows one after the other, round and round, until enough are taken."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.int64]


def take_turns(order_G: Numbers, size_G: Numbers, count: int) -> Numbers:
    """Return the group that gives each of `count` rows; fewer when the groups have fewer.

    Groups give one row a turn in `order_G` (their numbers), while they have any of their `size_G` rows left.
    """
    taken: list[Numbers] = []
    turn = have = 0
    while have < count:
        open_G = order_G[size_G[order_G] > turn]
        if not len(open_G):
            break
        taken.append(open_G[: count - have])
        turn, have = turn + 1, have + len(taken[-1])
    return np.concatenate([*taken, np.zeros(0, dtype=np.int64)])


def places(group_n: npt.NDArray[np.int64]) -> Numbers:
    """Return each row's place, 0, 1, 2, …, among the rows of its own group, in the order given, [n]."""
    if not len(group_n):
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(group_n, kind="stable")
    ordered = group_n[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]]
    place_n = np.empty(len(group_n), dtype=np.int64)
    place_n[order] = np.arange(len(group_n)) - np.maximum.accumulate(np.where(first, np.arange(len(group_n)), 0))
    return place_n
