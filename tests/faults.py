"""Strategies that kill their own worker, once, in the middle of a scan. Importable by name on workers."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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


class Paced(AlfaMix):
    """ALFA-Mix, each chunk of which takes `seconds` more and leaves a note: who is at it, where, and when it began.

    Of rows in `heavy`, at most `fits` fit into memory. The first worker that comes takes `delay` seconds more a chunk.
    """

    notes: str
    seconds: float = 0.0
    heavy: tuple[str, ...] = ()
    fits: int = 0
    delay: float = 0.0

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        leave_note(Path(self.notes))
        if not set(self.heavy).isdisjoint(rows.ids) and len(rows) > self.fits:
            raise MemoryError(f"{len(rows)} rows, of which {self.fits} fit")
        time.sleep(self.seconds + self.delay * self._first())
        return super().score(rows, prepared)

    def _first(self) -> bool:
        marker = Path(self.notes) / "first"
        if not marker.exists():
            with suppress(FileExistsError), marker.open("x") as out:
                out.write(str(os.getpid()))
        return marker.read_text() == str(os.getpid())


def leave_note(folder: Path) -> None:
    """Write who is at work, and on which node of a Ray cluster."""
    import ray

    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    note = folder / f"{time.monotonic_ns()}-{os.getpid()}.json"
    note.with_suffix(".part").write_text(json.dumps({"pid": os.getpid(), "node": node}))
    note.with_suffix(".part").rename(note)


def many(state: Sleepy, notes: str, seconds: float) -> npt.NDArray[np.int64]:
    """Return a part that is too large to travel with its answer; the last shard's takes `seconds`."""
    leave_note(Path(notes))
    time.sleep(seconds if state.spec == LAST else 0.0)
    return np.arange(200_000) * state.spec


LAST = 11


def add_all(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Merge parts."""
    return np.sum(parts, axis=0)


def wait_for_go(item: int, folder: str) -> int:
    """Say which process this is, wait until it may go on, and return the item."""
    import time

    (Path(folder) / f"at-{os.getpid()}").touch()
    while not (Path(folder) / "go").exists():
        time.sleep(0.05)
    return item
