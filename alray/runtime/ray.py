"""The Ray runtime: shards resident on actors, calls bounded in flight, a lost worker's calls replayed elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import ray

from alray import gauges, storage
from alray.runtime import ray_cluster
from alray.runtime.base import Extraction, Resources, Runtime, RuntimeConfig, TrainResult, Worker
from alray.runtime.ray_calls import Drive, Workers
from alray.runtime.ray_held import Hosts, RayHeld, call
from alray.runtime.ray_log import Told
from alray.runtime.ray_metrics import RayMetrics

log = logging.getLogger(__name__)


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
        task, told = ray.remote(call).options(max_retries=0, **self.options()), Told(fn)
        shared = ray.put(args)

        def submit(i: int, slot: int, parts: int) -> Any:
            return task.remote(parts, told, shared, *firsts[i])

        return Drive(self.config, stage, Workers(self.workers)).results(len(firsts), submit)

    def hold(self, load: Callable[[Any], Any], specs: Sequence[Any], *, stage: str) -> RayHeld:
        hosts = Hosts(load, min(self.workers, len(specs)), self.options)
        self._holding.append(RayHeld(self.config, hosts, specs, stage, self._let_go))
        return self._holding[-1]

    def _let_go(self, held: RayHeld) -> None:
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

        return train(
            loop,
            config,
            workers=workers,
            name=name,
            folder=folder,
            max_failures=max_failures,
            deadline_s=self.config.deadline_s,
        )

    def close(self) -> None:
        gauges.detach(self._metrics)
        self._metrics.close()
        if self._owned and ray.is_initialized():
            with ray_cluster.own_signals():
                ray.shutdown()
