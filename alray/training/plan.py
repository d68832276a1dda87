"""The plan of an epoch: which rows are in which step, and which of a step's rows each worker takes.

It is a function of (seed, epoch) and of nothing else but the sizes: the steps are the same for any number of workers.
Every row is used exactly once an epoch, and every worker takes the same number of steps, as averaging gradients needs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

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


def note(trace: str | None, rank: int, epoch: int, step: int, ids: Sequence[str]) -> None:
    """Add to the local folder `trace`, if there is one, which rows a worker used in a step; epochs count from 0."""
    if trace is not None:
        line = {"epoch": epoch + 1, "step": step, "ids": list(ids)}
        with open(Path(trace) / f"rank-{rank}.jsonl", "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
