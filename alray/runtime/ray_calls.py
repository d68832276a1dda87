"""Calls to workers: few in flight, every wait with a deadline, and what a lost worker had is replayed."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import (
    ObjectLostError,
    ObjectReconstructionFailedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    WorkerCrashedError,
)

from alray import gauges
from alray.errors import AlrayError, RuntimeFailure
from alray.log import progress
from alray.runtime.base import RuntimeConfig

log = logging.getLogger(__name__)

WORKER_LOST = (RayActorError, WorkerCrashedError, OutOfMemoryError)
"""The worker went away: its calls are replayed. An exception of the function itself is not among them."""

PART_LOST = (ObjectLostError, ObjectReconstructionFailedError)
"""A result went away with the node that stored it."""

IN_FLIGHT = 2
"""Calls queued per worker: one runs while the next waits, and a loss costs two replays at most."""


class Drive:
    """Submit numbered calls to slots, few in flight, wait with a deadline, and replay what was lost.

    Call i belongs to slot i modulo the width, and stays in its queue when that slot's worker is replaced.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        stage: str,
        *,
        width: int,
        replace: Callable[[int], None] | None = None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self._config, self._stage, self._width, self._replace = config, stage, width, replace
        self._done = done
        self._losses = 0

    def results(self, count: int, submit: Callable[[int, int], Any]) -> list[Any]:
        """Return the results of calls 0 … count − 1; `submit(call, slot)` returns one reference."""
        return self._run(count, submit, lambda ref, value: value)

    def parts(self, count: int, submit: Callable[[int, int], Any]) -> list[Any]:
        """Return references to the results, which stay where they are; `submit` returns (a sign, the result)."""
        kept: dict[Any, Any] = {}

        def signs(i: int, slot: int) -> Any:
            sign, part = submit(i, slot)
            kept[sign] = part
            return sign

        return self._run(count, signs, lambda ref, value: kept[ref])

    def _run(self, count: int, submit: Callable[[int, int], Any], keep: Callable[[Any, Any], Any]) -> list[Any]:
        queues = [deque(range(slot, count, self._width)) for slot in range(self._width)]
        flying: dict[Any, tuple[int, int]] = {}
        done: list[Any] = [None] * count
        for _ in progress(range(count), count, self._stage):
            finished = False
            while not finished:
                self._submit(queues, flying, submit)
                ref = self._wait(flying)
                number, slot = flying.pop(ref)
                try:
                    done[number] = keep(ref, ray.get(ref, timeout=self._config.deadline_s))
                    finished = True
                    if self._done is not None:
                        self._done(number)
                except RayTaskError as error:  # first: Ray derives it from its cause's class too
                    raise self._cause(error, number) from error
                except WORKER_LOST as error:
                    self._lost(number, error)
                    self._requeue(number, slot, queues, flying)
        return done

    def _submit(
        self, queues: list[deque[int]], flying: dict[Any, tuple[int, int]], submit: Callable[[int, int], Any]
    ) -> None:
        for slot, queue in enumerate(queues):
            busy = sum(s == slot for _, s in flying.values())
            for _ in range(min(len(queue), IN_FLIGHT - busy)):
                number = queue.popleft()
                flying[submit(number, slot)] = (number, slot)

    def _requeue(self, number: int, slot: int, queues: list[deque[int]], flying: dict[Any, tuple[int, int]]) -> None:
        """Put back the lost call and all that were queued behind it on the same worker, and replace that worker."""
        if self._replace is None:
            queues[slot].appendleft(number)
            return
        behind = [ref for ref, (_, s) in flying.items() if s == slot]
        queues[slot].extendleft(sorted([number, *(flying.pop(ref)[0] for ref in behind)], reverse=True))
        self._replace(slot)

    def _wait(self, flying: dict[Any, tuple[int, int]]) -> Any:
        ready, _ = ray.wait(list(flying), num_returns=1, timeout=self._config.deadline_s, fetch_local=False)
        if ready:
            return ready[0]
        raise RuntimeFailure(
            f"{self._stage}: no call finished within `runtime.deadline_s` = {self._config.deadline_s:g} s; still out: "
            f"{sorted(number for number, _ in flying.values())}. A worker hangs, or the cluster "
            f"({ray.cluster_resources().get('CPU', 0):g} CPUs) has no room for {self._width} workers. "
            "Run the same command again once it has."
        )

    def _lost(self, number: int, error: Exception) -> None:
        self._losses += 1
        gauges.count("alray_actor_restarts")
        about = {"facts": {"shard": number}}
        name = type(error).__name__
        log.warning("%s: worker lost at shard %d (%s); replaying", self._stage, number, name, extra=about)
        if self._losses > self._config.max_restarts:
            raise RuntimeFailure(
                f"{self._stage}: workers were lost {self._losses} times, the last at shard {number}: {error}. "
                "Give each worker more memory, or raise `runtime.max_restarts`."
            ) from error

    def _cause(self, error: RayTaskError, number: int) -> Exception:
        if isinstance(error.cause, (AlrayError, *PART_LOST)):
            return error.cause
        return RuntimeFailure(f"{self._stage}: shard {number} failed with {type(error.cause).__name__}: {error.cause}")
