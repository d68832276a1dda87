"""The plan of an epoch: which rows are in which step, and which of a step's rows each worker takes.

It is a function of (seed, epoch) and of nothing else but the sizes: the steps are the same for any number of workers.
Every row is used exactly once an epoch, and every worker takes the same number of steps, as averaging gradients needs.
"""

from __future__ import annotations

import numpy as np

from alray import seeds

Index = np.ndarray[tuple[int], np.dtype[np.int64]]


def steps(rows: int, batch: int) -> int:
    """Return the number of steps of an epoch: global batches of at most `batch` rows."""
    return -(-rows // batch)


def epoch_batches(rows: int, batch: int, *, seed: int, epoch: int) -> list[Index]:
    """Return the rows of each global batch. Sizes differ by one at most, so that no batch is a small leftover."""
    order = seeds.generator(seed, "epoch", epoch).permutation(rows)
    return list(np.array_split(order, steps(rows, batch)))


def share(batch: Index, rank: int, world: int) -> Index:
    """Return the part of a global batch that worker `rank` takes: disjoint parts that make up the whole."""
    return np.array_split(batch, world)[rank]


def windows(shares: list[Index], rows: int) -> list[list[Index]]:
    """Group consecutive steps until they hold `rows` rows: what is read from the pool in one pass."""
    groups: list[list[Index]] = [[]]
    for part in shares:
        if groups[-1] and sum(map(len, groups[-1])) + len(part) > rows:
            groups.append([])
        groups[-1].append(part)
    return groups
