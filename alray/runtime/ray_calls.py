"""Calls to workers: few in flight, no wait without an end, and what a lost, slow or leaving worker had asked of others.

Every function may run twice, and twice at once: the first answer counts (see `runtime.base`).
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import (
    GetTimeoutError,
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from alray import gauges
from alray.errors import AlrayError, RuntimeFailure
from alray.log import progress
from alray.runtime import memory
from alray.runtime.base import RuntimeConfig
from alray.runtime.ray_flights import START_S, Flight, Flights

log = logging.getLogger(__name__)

WORKER_LOST = (RayActorError, WorkerCrashedError, NodeDiedError)
"""The worker went away: its calls are replayed. An exception of the function itself is not among them."""

PART_LOST = (ObjectLostError, GetTimeoutError)
"""A result went away with the node that stored it, or that node answers no more."""

IN_FLIGHT = 2
"""Calls queued per worker: one runs while the next waits, and a loss costs two replays at most."""

TICK_S = 0.5
"""The longest wait without a look around. Ray lets no signal through while it waits."""

FETCH_S = 60.0
"""Seconds in which a finished result, a few megabytes at most, has to arrive."""

LOOK_S = 5.0
"""Seconds between two looks for machines that are about to leave."""


class Workers:
    """What a drive may do with its workers: here each call has a process of its own, and a slot is but a number."""

    resident = False
    """Whether a slot is one process: what it has to do is lost with it."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.fresh: set[int] = set()
        """Slots whose process has not answered yet: it may still be starting."""
        self.asked: dict[int, float] = {}
        """Since when they were first asked, whatever process was to start there."""
        self.parts: dict[int, int] = {}
        """In how many parts shards had to be cut, those that did not fit whole."""
        self.pace = 0.0
        """The most seconds per row that was usual in any drive: a shard that was lost takes as long to build again."""

    def replace(self, slot: int, calls: Sequence[Any]) -> None:
        """Put another worker in a slot. The calls of the old one are of no use any more."""
        for call in calls:
            ray.cancel(call, force=True)

    def leaving(self) -> Sequence[int]:
        """Return the slots whose machines are about to go."""
        return ()


class Drive:
    """Submit numbered calls to slots, few in flight, and return their results.

    Call i belongs to slot i modulo the width, and stays in its queue when that slot's worker is replaced.
    `submit(number, slot, parts)` returns one reference; `parts` says in how many parts its chunks are cut. `rows` is
    that of a shard. Calls `of_parts` take results of others: where one of these is lost, asking again is no use.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        stage: str,
        workers: Workers,
        *,
        rows: Callable[[int], int] | None = None,
        of_parts: bool = False,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self._config, self._stage, self._workers, self._done = config, stage, workers, done
        self._width, self._of_parts = workers.width, of_parts
        self._shards = rows is not None
        self._out = Flights(rows or (lambda number: 1), least=workers.pace if self._shards else 0.0)
        self._queues: list[deque[int]] = [deque() for _ in range(self._width)]
        self._hungry = set(range(self._width))  # slots that may be asked more
        self._answered: set[int] = set()
        self._losses, self._hung, self._looked, self._hedged = 0, 0, 0.0, 0.0
        self._full = Counter[int]()  # times that each call ran out of memory
        self._leaving: set[int] = set()
        self._alone: set[int] = set()  # calls that failed where another worker was at them too: no more copies

    def results(self, count: int, submit: Callable[[int, int, int], Any]) -> list[Any]:
        """Return the results of calls 0 … count − 1."""
        return self._run(count, submit, lambda ref, value: value)

    def parts(self, count: int, submit: Callable[[int, int, int], Any]) -> list[Any]:
        """Return references to the results, which stay where they are; `submit` returns (a sign, the result)."""
        kept: dict[Any, Any] = {}

        def signs(number: int, slot: int, parts: int) -> Any:
            sign, part = submit(number, slot, parts)
            kept[sign] = part
            return sign

        return self._run(count, signs, lambda ref, value: kept[ref])

    def _run(self, count: int, submit: Callable[[int, int, int], Any], keep: Callable[[Any, Any], Any]) -> list[Any]:
        for slot, queue in enumerate(self._queues):
            queue.extend(range(slot, count, self._width))
        self._submit = submit
        found: list[Any] = [None] * count
        for _ in progress(range(count), count, self._stage):
            number, ref, value = self._next()
            found[number] = keep(ref, value)
            if self._done is not None:
                self._done(number)
        self._leave_behind()
        if self._shards:
            self._workers.pace = max(self._workers.pace, self._out.pace)
        return found

    def _next(self) -> tuple[int, Any, Any]:
        """Return the next call that is answered for the first time: its number, reference and result."""
        while True:
            self._look_around()
            self._fill()
            self._hedge()
            ref = self._wait()
            if ref is None:
                continue
            flight = self._out.end(ref)
            self._hungry.add(flight.slot)
            if flight.number in self._answered:
                continue
            try:
                value = self._fetched(ref)
            except RayTaskError as error:  # first: Ray derives it from its cause's class too
                self._failed(flight, error)
            except OutOfMemoryError as error:
                self._too_large(flight, error)
            except WORKER_LOST as error:
                self._lost(flight, error)
            except PART_LOST as error:
                if self._of_parts:
                    raise
                self._lost(flight, error, alone=True)
            else:
                self._out.learn(flight)
                if self._shards and flight.parts > 1:
                    self._workers.parts[flight.number] = flight.parts
                self._workers.fresh.discard(flight.slot)
                self._workers.asked.pop(flight.slot, None)
                self._answered.add(flight.number)
                return flight.number, ref, value

    # What is asked of whom

    def _fill(self) -> None:
        for slot in sorted(self._hungry - self._leaving):
            queue = self._queues[slot]
            while queue and self._out.busy(slot) < IN_FLIGHT:
                self._ask(queue.popleft(), slot)
        self._hungry &= self._leaving

    def _ask(self, number: int, slot: int, *, copy: bool = False) -> None:
        if slot in self._workers.fresh:
            self._workers.asked.setdefault(slot, time.monotonic())
        full, before = self._full[number], self._workers.parts.get(number, 1) if self._shards else 1
        parts = max(before, _parts(full))
        self._out.start(self._submit(number, slot, parts), number, slot, copy=copy, full=full, parts=parts)

    def _hedge(self) -> None:
        """Let workers that have nothing to do answer for those that take far longer than the rest."""
        if time.monotonic() - self._hedged < TICK_S:
            return
        self._hedged = time.monotonic()
        idle = [s for s, q in enumerate(self._queues) if not q and not self._out.busy(s) and s not in self._leaving]
        if not idle:
            return
        late = [slot for slot in range(self._width) if self._late(slot)]
        for slot in idle:
            if (number := self._owed(late)) is None:
                return
            log.info("%s: shard %d is late; another worker is asked for it too", self._stage, number)
            self._ask(number, slot, copy=True)

    def _late(self, slot: int) -> bool:
        """Say whether a slot is late. Time to start is given once: where no process starts, the next may not either."""
        asked = self._workers.asked.get(slot)
        return self._out.late(slot, fresh=asked is not None and time.monotonic() - asked < START_S)

    def _owed(self, late: list[int]) -> int | None:
        """Take a call that waits for a late worker: one that it was not asked yet, else one that only it is at."""
        for slot in late:
            if self._queues[slot]:
                return self._queues[slot].popleft()
            for _, flight in self._out.of(slot):
                if self._out.copies(flight.number) == 1 and flight.number not in self._answered | self._alone:
                    return flight.number
        return None

    def _wait(self) -> Any:
        """Return the reference of a call that has ended, or None when none has for a while."""
        ready, _ = ray.wait(self._out.references, num_returns=1, timeout=TICK_S, fetch_local=False)
        if ready:
            return ready[0]
        if time.monotonic() - self._out.moved > self._config.deadline_s:
            self._hangs()
        return None

    def _fetched(self, ref: Any) -> Any:
        """Return the result of a call that has ended; it may still lie on the machine that made it."""
        give_up = time.monotonic() + FETCH_S
        while not ray.wait([ref], num_returns=1, timeout=TICK_S, fetch_local=True)[0]:
            if time.monotonic() > give_up:
                raise GetTimeoutError(f"A result did not arrive within {FETCH_S:g} s.")
        return ray.get(ref, timeout=FETCH_S)

    # What goes wrong

    def _failed(self, flight: Flight, error: RayTaskError) -> None:
        if memory.ran_out(error.cause):
            self._too_large(flight, error.cause)
            return
        if self._out.copies(flight.number):  # another worker may answer yet
            self._alone.add(flight.number)
            return
        if isinstance(error.cause, (AlrayError, *PART_LOST)):
            raise error.cause from error
        cause = f"{type(error.cause).__name__}: {error.cause}"
        raise RuntimeFailure(f"{self._stage}: shard {flight.number} failed with {cause}") from error

    def _too_large(self, flight: Flight, error: Exception) -> None:
        """Ask a fresh worker; then in chunks of half and a quarter of their rows; then give up."""
        times = self._full[flight.number] = max(self._full[flight.number], flight.full + 1)
        parts = _parts(times)
        if parts > memory.MOST_PARTS:
            raise RuntimeFailure(memory.too_large(self._stage, flight.number, times, error)) from error
        log.warning("%s: out of memory at shard %d; again, in chunks of 1/%d", self._stage, flight.number, parts)
        self._again(flight)

    def _lost(self, flight: Flight, error: Exception, *, alone: bool = False) -> None:
        about = {"facts": {"shard": flight.number}}
        what = "result" if alone else "worker"
        name = type(error).__name__
        log.warning("%s: %s lost at shard %d (%s); replaying", self._stage, what, flight.number, name, extra=about)
        self._losses += not getattr(error, "preempted", False)
        if self._losses > self._config.max_restarts:
            raise RuntimeFailure(
                f"{self._stage}: workers were lost {self._losses} times, the last at shard {flight.number}: {error}. "
                "Give each worker more memory, or raise `runtime.max_restarts`."
            ) from error
        self._again(flight, alone=alone)

    def _again(self, flight: Flight, *, alone: bool = False) -> None:
        """Put back a call, alone or with its worker replaced and all that were queued behind it."""
        if self._workers.resident and not alone:
            self._replace(flight.slot, [flight.number])
            return
        gauges.count("alray_actor_restarts", not alone)
        self._put_back(flight.slot, [flight.number])

    def _replace(self, slot: int, more: Sequence[int] = ()) -> None:
        gauges.count("alray_actor_restarts")
        calls = [ref for ref, _ in self._out.of(slot)]
        self._put_back(slot, [*more, *self._out.drop(slot)])
        self._workers.replace(slot, calls)
        self._leaving.discard(slot)

    def _put_back(self, slot: int, numbers: Sequence[int]) -> None:
        """Queue calls again, in order and first of all, except those that another worker is at or has answered."""
        owed = [n for n in set(numbers) - self._answered if not self._out.copies(n)]
        self._queues[slot].extendleft(sorted(owed, reverse=True))
        self._hungry.add(slot)

    def _hangs(self) -> None:
        """Once, take every worker that is at a call for hung, and ask others. The second time there is no room."""
        self._hung += 1
        if self._hung > 1:
            raise RuntimeFailure(
                f"{self._stage}: no call finished within `runtime.deadline_s` = {self._config.deadline_s:g} s, twice; "
                f"still out: {self._out.numbers}. Workers hang, or the cluster "
                f"({ray.cluster_resources().get('CPU', 0):g} CPUs) has no room for {self._width} of them. "
                "Run the same command again once it has."
            )
        log.warning("%s: no call finished for %g s; replacing workers", self._stage, self._config.deadline_s)
        for slot in range(self._width):
            if self._out.busy(slot):
                self._replace(slot)
        self._out.moved = time.monotonic()

    def _look_around(self) -> None:
        """Ask nothing more of workers whose machines are about to leave, and replace them when they are done."""
        if time.monotonic() - self._looked > LOOK_S:
            for slot in set(self._workers.leaving()) - self._leaving:
                log.info("%s: the machine of worker %d is about to leave", self._stage, slot)
                self._leaving.add(slot)
            self._looked = time.monotonic()
        for slot in [slot for slot in self._leaving if not self._out.busy(slot)]:
            self._replace(slot)

    def _leave_behind(self) -> None:
        """Replace workers that were outrun and are still at it: they may never answer."""
        for slot in range(self._width):
            calls = self._out.of(slot)
            if not self._workers.resident:
                self._workers.replace(slot, [ref for ref, _ in calls])
            elif any(not flight.copy for _, flight in calls) and self._late(slot):
                log.warning("%s: worker %d was outrun by another and is replaced", self._stage, slot)
                self._replace(slot)


def _parts(times: int) -> int:
    """Return in how many parts chunks are cut after a call ran out of memory so often: once may be another's fault."""
    return 1 << max(0, times - 1)
