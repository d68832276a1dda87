"""One thread, so that a row's score has the same bits wherever and beside whatever it is computed."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import ThreadpoolController


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one thread of torch and of the BLAS below NumPy, then restore the counts."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with _libraries(len(sys.modules)).limit(limits=1):
            yield
    finally:
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """Return the BLAS and OpenMP libraries of this process: looked for, in 10 ms, only after something was imported."""
    return ThreadpoolController()
