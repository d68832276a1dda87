"""The calls that are out: on which worker, since when, and which workers take far longer than the rest.

A call's time begins when the one before it on the same worker has ended. How long it may take is told by those that
have ended: by their seconds per row, since shards differ in size.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

SLOW = 2.0
"""A call that takes this many times the median is asked of another worker too; the first answer counts."""

SLOW_S = 10.0
"""A call that has not taken this many seconds is never called slow: a second worker would have to load its shard."""

START_S = 60.0
"""A worker may take so much longer before its first answer: its process starts, perhaps its machine too."""

ENOUGH = 3
"""Calls that must have ended before their median says anything."""


@dataclass
class Flight:
    """One call: its number, and the slot of the worker that was asked."""

    number: int
    slot: int
    since: float
    seconds: float = 0.0
    copy: bool = False  # of a call that another slot was asked first
    full: int = 0  # times that the call had run out of memory before
    parts: int = 1  # that its chunks were cut in


class Flights:
    """Every call that was submitted and has not ended, by its reference."""

    def __init__(
        self, rows: Callable[[int], int], clock: Callable[[], float] = time.monotonic, *, least: float = 0.0
    ) -> None:
        self._rows, self._clock, self._least = rows, clock, least
        self._slot: dict[Any, int] = {}
        self._of = defaultdict[int, dict[Any, Flight]](dict)
        self._copies = Counter[int]()
        self._paces: list[float] = []
        self._pace: float | None = None  # their median, where it is known
        self.moved = clock()  # when a call last ended, or all was begun anew

    @property
    def references(self) -> list[Any]:
        return list(self._slot)

    @property
    def numbers(self) -> list[int]:
        return sorted(+self._copies)

    def of(self, slot: int) -> list[tuple[Any, Flight]]:
        """Return a slot's calls and their references, the running one first."""
        return list(self._of[slot].items())

    def busy(self, slot: int) -> int:
        """Return how many calls a slot has."""
        return len(self._of[slot])

    def copies(self, number: int) -> int:
        """Return how many workers are at a call."""
        return self._copies[number]

    def start(self, ref: Any, number: int, slot: int, *, copy: bool = False, full: int = 0, parts: int = 1) -> None:
        """Note that a call was submitted."""
        self._slot[ref] = slot
        self._of[slot][ref] = Flight(number, slot, self._clock(), copy=copy, full=full, parts=parts)
        self._copies[number] += 1

    def end(self, ref: Any) -> Flight:
        """Note that a call has ended, and return it; the next on its worker begins now."""
        flight = self._forget(ref)
        self.moved = self._clock()
        flight.seconds = self.moved - flight.since
        for behind in self._of[flight.slot].values():
            behind.since = self.moved
        return flight

    def learn(self, flight: Flight) -> None:
        """Take the time that a call took for a usual one: it was answered."""
        self._paces.append(flight.seconds / max(1, self._rows(flight.number)))
        self._pace = None

    @property
    def pace(self) -> float:
        """The usual seconds per row."""
        if self._pace is None:
            self._pace = statistics.median(self._paces) if self._paces else 0.0
        return self._pace

    def drop(self, slot: int) -> list[int]:
        """Forget a slot's calls, whose worker is gone, and return their numbers."""
        return [self._forget(ref).number for ref in list(self._of[slot])]

    def late(self, slot: int, *, fresh: bool = False) -> bool:
        """Say whether the running call of a slot takes far longer than those that have ended took, for its rows."""
        running = next(iter(self._of[slot].values()), None)
        if running is None or len(self._paces) < ENOUGH:
            return False
        usual = max(self.pace, self._least) * max(1, self._rows(running.number))
        return self._clock() - running.since > max(SLOW_S, SLOW * usual) + START_S * fresh

    def _forget(self, ref: Any) -> Flight:
        flight = self._of[self._slot.pop(ref)].pop(ref)
        self._copies[flight.number] -= 1
        return flight
