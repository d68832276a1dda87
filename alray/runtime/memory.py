"""Work that did not fit into memory: how it is told from other failures, and done again in smaller chunks.

A row's numbers do not depend on the rows beside it (`ops.affine`), so half a chunk gives the same bits as the whole: on
CPUs, where it was tried. A GPU's library may add in another order for another number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

TILE = 16
"""Chunks keep to a multiple of this, as the kernels do (`ops.affine`)."""

MOST_PARTS = 4
"""Chunks are halved twice; what does not fit then has another cause than the size of a chunk."""

_PARTS: ContextVar[int] = ContextVar("parts", default=1)


def chunk(rows: int) -> int:
    """Return how many rows to take together where `rows` are usual: fewer after these did not fit."""
    parts = _PARTS.get()
    return rows if parts == 1 else -(-rows // (parts * TILE)) * TILE


@contextmanager
def split(parts: int) -> Iterator[None]:
    """Let chunks inside have 1 / `parts` of their rows."""
    before = _PARTS.set(parts)
    try:
        yield
    finally:
        _PARTS.reset(before)


def ran_out(error: BaseException | None) -> bool:
    """Say whether an exception of numpy, Arrow or torch means that there was no memory left, on a CPU or a GPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def too_large(stage: str, number: int, times: int, error: object) -> str:
    """Return what to say when a shard does not fit even in the smallest chunks."""
    return (
        f"{stage}: shard {number} ran out of memory {times} times, at last in chunks of a quarter of their rows: "
        f"{error}. Give each worker more memory: larger machines, or fewer `runtime.workers` on each. The same command "
        "then goes on."
    )
