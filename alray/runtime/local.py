"""The in-process runtime: shards in order, on one thread. A real way to run alray, with the same answers as Ray."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from alray import gauges
from alray.errors import RuntimeFailure
from alray.log import progress, within
from alray.runtime import memory
from alray.runtime.base import FAN_IN, Extraction, Held, Resources, Runtime, TrainResult, Worker, rows_of
from alray.runtime.threads import one_thread

log = logging.getLogger(__name__)


class LocalHeld(Held):
    """Shards resident in this process."""

    def __init__(self, load: Callable[[Any], Any], specs: Sequence[Any], stage: str) -> None:
        self._load, self._specs, self._stage = load, specs, stage
        self._states: dict[int, Any] = {}

    def map(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        with one_thread():
            return [self._run(i, fn, args) for i in self._each()]

    @property
    def count(self) -> int:
        return len(self._specs)

    def reduce_groups(
        self,
        fn: Callable[..., Any],
        merge: Callable[[list[Any]], Any],
        groups: Sequence[Sequence[int]],
        *args: Any,
        finish: Callable[[Any], Any] | None = None,
    ) -> list[Any]:
        parts = self.map(fn, *args)
        with one_thread():
            done = [merged([parts[i] for i in group], merge) for group in groups]
            return [finish(part) for part in done] if finish else done

    def close(self) -> None:
        self._states.clear()

    def _run(self, number: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with within(shard=number):
            found = self._fitting(number, fn, args)
        gauges.count("alray_rows_scanned", rows_of(self._specs[number]))
        return found

    def _fitting(self, number: int, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return `fn` of a shard, in smaller chunks where it does not fit into memory."""
        for times in itertools.count():
            try:
                with memory.split(2**times):
                    return fn(self._state(number), *args)
            except (MemoryError, RuntimeError) as error:
                if not memory.ran_out(error):
                    raise
                if 2 ** (times + 1) > memory.MOST_PARTS:
                    raise RuntimeFailure(memory.too_large(self._stage, number, times + 1, error)) from error
                log.warning("%s: out of memory at shard %d; again, in chunks half as large", self._stage, number)
        raise AssertionError

    def _each(self) -> Any:
        return progress(range(len(self._specs)), len(self._specs), self._stage)

    def _state(self, number: int) -> Any:
        if number not in self._states:
            self._states[number] = self._load(self._specs[number])
        return self._states[number]


def merged(parts: list[Any], merge: Callable[[list[Any]], Any]) -> Any:
    """Return the merge of `parts` in a tree of `FAN_IN`."""
    while len(parts) > 1:
        parts = [merge(parts[i : i + FAN_IN]) for i in range(0, len(parts), FAN_IN)]
    return parts[0]


class LocalRuntime(Runtime):
    """Run everything here and now."""

    name = "local"
    workers = 1

    def __init__(self) -> None:
        self.hardware = "cuda" if torch.cuda.is_available() else "cpu"
        self.resources = Resources(cpus=1.0, gpus=float(torch.cuda.is_available()))

    def call(self, fn: Callable[..., Any], *args: Any, stage: str) -> Any:
        with one_thread():
            return fn(*args)

    def map(self, fn: Callable[..., Any], items: Sequence[Any], *args: Any, stage: str) -> list[Any]:
        with one_thread():
            return [fn(item, *args) for item in progress(items, len(items), stage)]

    def hold(self, load: Callable[[Any], Any], specs: Sequence[Any], *, stage: str) -> LocalHeld:
        return LocalHeld(load, specs, stage)

    def extract(self, job: Extraction, *, stage: str) -> None:
        with one_thread():
            embed = job.embedder()
            for chunk in progress(job.chunks, len(job.chunks), stage):
                job.write(chunk, embed(job.decode(chunk)))

    def train(
        self,
        loop: Callable[[dict[str, Any], Worker], None],
        config: dict[str, Any],
        *,
        workers: int,
        name: str,
        folder: str,
        max_failures: int = 2,
    ) -> TrainResult:
        from alray.runtime.local_train import train

        with one_thread():
            return train(loop, config, name=name, folder=folder)

    def close(self) -> None:
        """Nothing is held."""
