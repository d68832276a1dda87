"""Strategies that kill their own worker, once, in the middle of a scan. Importable by name on workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from torch import Tensor

from alray.strategies.alfa_mix import AlfaMix
from alray.strategies.margin import Margin
from alray.table import Table


def die_once(marker: str, after: int) -> None:
    """SIGKILL this process on its `after`-th call, unless `marker` says that it has happened already."""
    calls = Path(f"{marker}.{os.getpid()}")
    calls.write_text(calls.read_text() + "x" if calls.exists() else "x")
    if len(calls.read_text()) < after:
        return
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class DyingMargin(Margin):
    """Margin, but the worker dies once."""

    marker: str

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        die_once(self.marker, after=3)
        return super().score(rows, prepared)


class DyingAlfaMix(AlfaMix):
    """ALFA-Mix, but the worker dies once."""

    marker: str

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        die_once(self.marker, after=3)
        return super().score(rows, prepared)


def pid_of(_: Any) -> int:
    """Return the process that holds a shard."""
    return os.getpid()


def add_to(item: int, more: int) -> int:
    """Add two numbers: the simplest work."""
    return item + more


def refuse(item: int) -> int:
    """Raise the user's mistake on a worker."""
    from alray.errors import PoolError

    raise PoolError(f"The row {item} is wrong.")


def stumble(item: int) -> int:
    """Raise an error that is not one of alray's."""
    raise ZeroDivisionError(f"at {item}")


class Sleepy:
    """A loader whose state sleeps."""

    def __init__(self, spec: int) -> None:
        self.spec = spec


def doze(state: Sleepy, seconds: float) -> int:
    """Sleep, then return the shard's number."""
    import time

    time.sleep(seconds)
    return state.spec


def numbers_of(state: Sleepy, exponent: int) -> list[int]:
    """Return a part of a reduce."""
    return [state.spec**exponent]


def concatenate(parts: list[list[int]]) -> list[int]:
    """Merge parts."""
    return [n for part in parts for n in part]


def largest(part: list[int]) -> int:
    """Finish a reduce."""
    return max(part)


def die_at(state: Sleepy, shard: int, marker: str) -> int:
    """Return the shard's number, but kill the worker at one shard, once."""
    if state.spec == shard:
        die_once(marker, after=1)
    return state.spec


def always_die(state: Sleepy) -> int:
    """Kill the worker at every call."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0
