"""The Ray runtime: shards resident on actors, calls bounded in flight, a lost worker's calls replayed elsewhere."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray

from alray import gauges, storage
from alray.errors import RuntimeFailure
from alray.log import within
from alray.runtime import ray_cluster
from alray.runtime.base import (
    FAN_IN,
    Extraction,
    Held,
    Resources,
    Runtime,
    RuntimeConfig,
    TrainResult,
    Worker,
    rows_of,
)
from alray.runtime.ray_calls import PART_LOST, Drive
from alray.runtime.ray_log import Told
from alray.runtime.ray_metrics import RayMetrics
from alray.runtime.threads import one_thread

log = logging.getLogger(__name__)


class Host:
    """An actor that keeps shards resident. It is built from nothing but a function's name, so that it can restart."""

    def __init__(self, load: Callable[[Any], Any] | None) -> None:
        self._load = load
        self._states: dict[int, Any] = {}

    def run(self, number: int, spec: Any, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        with one_thread(), within(shard=number):
            if number not in self._states:
                assert self._load is not None
                self._states[number] = self._load(spec)
            return fn(self._states[number], *args)

    def run_part(self, number: int, spec: Any, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[bool, Any]:
        """As `run`; the first result tells the driver that it worked, so that it need not fetch the second."""
        return True, self.run(number, spec, fn, args)

    def merge_parts(self, merge: Callable[[list[Any]], Any], *parts: Any) -> tuple[bool, Any]:
        with one_thread():
            return True, merge(list(parts))

    def finish(self, finish: Callable[[Any], Any] | None, part: Any) -> Any:
        with one_thread():
            return finish(part) if finish else part

    def call(self, fn: Callable[..., Any], args: tuple[Any, ...], *first: Any) -> Any:
        return _task(fn, args, *first)


def _task(fn: Callable[..., Any], args: tuple[Any, ...], *first: Any) -> Any:
    with one_thread():
        return fn(*first, *args)


class RayRuntime(Runtime):
    """Run on Ray: a cluster of its own on this machine, or the one at `runtime.address`."""

    name = "ray"

    def __init__(self, config: RuntimeConfig) -> None:
        self.config, self.workers = config, config.workers
        self._owned = ray_cluster.join(config)
        self._holding: list[RayHeld] = []
        gpus = float(ray.cluster_resources().get("GPU", 0.0))
        self.hardware = "cuda" if gpus else "cpu"
        if (cpus := ray.cluster_resources().get("CPU", 0.0)) < config.workers:
            log.warning("The cluster has %g CPUs for %d workers; waiting for it to grow", cpus, config.workers)
        self.gpus_per_worker = min(1.0, gpus / config.workers)
        self.resources = Resources(cpus=float(config.workers), gpus=min(gpus, float(config.workers)))
        self._metrics = RayMetrics()
        gauges.attach(self._metrics)

    def options(self) -> dict[str, Any]:
        """Return what every worker asks for: one CPU, its share of the GPUs, and the storage settings."""
        asked: dict[str, Any] = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        if self.gpus_per_worker:
            asked["num_gpus"] = self.gpus_per_worker
        if environment := storage.environment():
            asked["runtime_env"] = {"env_vars": environment}
        return asked

    def call(self, fn: Callable[..., Any], *args: Any, stage: str) -> Any:
        return self._tasks(fn, [()], args, stage)[0]

    def map(self, fn: Callable[..., Any], items: Sequence[Any], *args: Any, stage: str) -> list[Any]:
        return self._tasks(fn, [(item,) for item in items], args, stage)

    def _tasks(
        self, fn: Callable[..., Any], firsts: list[tuple[Any, ...]], args: tuple[Any, ...], stage: str
    ) -> list[Any]:
        if self._holding:  # they may have taken every CPU: another worker would wait for ever
            return self._holding[-1].tasks(fn, firsts, args, stage)
        task, told = ray.remote(_task).options(max_retries=0, **self.options()), Told(fn)
        shared = ray.put(args)
        drive = Drive(self.config, stage, width=self.workers)
        return drive.results(len(firsts), lambda i, _: task.remote(told, shared, *firsts[i]))

    def hold(self, load: Callable[[Any], Any], specs: Sequence[Any], *, stage: str) -> RayHeld:
        self._holding.append(RayHeld(self, load, specs, stage))
        return self._holding[-1]

    def let_go(self, held: RayHeld) -> None:
        """Forget shards that are no longer held."""
        if held in self._holding:
            self._holding.remove(held)

    def extract(self, job: Extraction, *, stage: str) -> None:
        from alray.runtime.ray_data import extract

        extract(job, self, stage=stage)

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
        from alray.runtime.ray_train import train

        return train(loop, config, workers=workers, name=name, folder=folder, max_failures=max_failures)

    def close(self) -> None:
        gauges.detach(self._metrics)
        self._metrics.close()
        if self._owned and ray.is_initialized():
            with ray_cluster.own_signals():
                ray.shutdown()


class RayHeld(Held):
    """Shards resident on actors: shard i lives on actor i modulo their number, until that actor is lost."""

    def __init__(self, runtime: RayRuntime, load: Callable[[Any], Any], specs: Sequence[Any], stage: str) -> None:
        self._runtime, self._load, self._specs, self._stage = runtime, load, specs, stage
        self._actors = [self._actor() for _ in range(min(runtime.workers, len(specs)))]

    def map(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        shared, told = ray.put(args), Told(fn)

        def submit(i: int, slot: int) -> Any:
            return self._actors[slot].run.remote(i, self._specs[i], told, shared)

        return self._drive(done=self._scanned).results(len(self._specs), submit)

    def tasks(
        self, fn: Callable[..., Any], firsts: list[tuple[Any, ...]], args: tuple[Any, ...], stage: str
    ) -> list[Any]:
        """Run calls that need no shard on the actors that hold the shards."""
        shared, told = ray.put(args), Told(fn)
        drive = Drive(self._runtime.config, stage, width=len(self._actors), replace=self._replace)
        return drive.results(len(firsts), lambda i, slot: self._actors[slot].call.remote(told, shared, *firsts[i]))

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
        told = (Told(fn), Told(merge), groups, args, Told(finish) if finish else None)
        for attempt in itertools.count():
            try:
                return self._grow(*told)
            except PART_LOST as error:
                if attempt >= self._runtime.config.max_restarts:
                    raise RuntimeFailure(f"{self._stage}: parts were lost {attempt + 1} times: {error}") from error
                log.warning("%s: a part was lost with its node; computing the parts again", self._stage)
        raise AssertionError

    def close(self) -> None:
        self._runtime.let_go(self)
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _grow(
        self,
        fn: Callable[..., Any],
        merge: Callable[[list[Any]], Any],
        groups: Sequence[Sequence[int]],
        args: tuple[Any, ...],
        finish: Callable[[Any], Any] | None,
    ) -> list[Any]:
        """Grow all groups' trees level by level, so that workers are busy across groups."""
        shared = ray.put(args)

        def leaf(i: int, slot: int) -> Any:
            return self._actors[slot].run_part.options(num_returns=2).remote(i, self._specs[i], fn, shared)

        leaves = self._drive(done=self._scanned).parts(self.count, leaf)
        trees = [[leaves[i] for i in group] for group in groups]
        while any(len(tree) > 1 for tree in trees):
            trees = self._level(trees, merge)
        return self._roots([tree[0] for tree in trees], finish)

    def _level(self, trees: list[list[Any]], merge: Callable[[list[Any]], Any]) -> list[list[Any]]:
        nodes = [(t, tree[i : i + FAN_IN]) for t, tree in enumerate(trees) for i in range(0, len(tree), FAN_IN)]

        def node(i: int, slot: int) -> Any:
            return self._actors[slot].merge_parts.options(num_returns=2).remote(merge, *nodes[i][1])

        above: list[list[Any]] = [[] for _ in trees]
        for (t, _), part in zip(nodes, self._drive().parts(len(nodes), node), strict=True):
            above[t].append(part)
        return above

    def _roots(self, roots: list[Any], finish: Callable[[Any], Any] | None) -> list[Any]:
        def end(i: int, slot: int) -> Any:
            return self._actors[slot].finish.remote(finish, roots[i])

        return self._drive().results(len(roots), end)

    def _drive(self, done: Callable[[int], None] | None = None) -> Drive:
        return Drive(self._runtime.config, self._stage, width=len(self._actors), replace=self._replace, done=done)

    def _scanned(self, number: int) -> None:
        gauges.count("alray_rows_scanned", rows_of(self._specs[number]))

    def _actor(self) -> Any:
        return ray.remote(Host).options(**self._runtime.options()).remote(Told(self._load))

    def _replace(self, slot: int) -> None:
        """Put a fresh actor in a lost one's place; it loads its shards when they are next asked for."""
        ray.kill(self._actors[slot])  # it may be alive behind a cut link: then it must not hold the memory
        self._actors[slot] = self._actor()
