"""Training on Ray Train: data-parallel workers, restarted together after a loss, from the last committed epoch.

Two things that Ray leaves to its user are done here. `ray.train.report` returns before its checkpoint is committed, so
`report` waits for the commit. And Ray remembers the metrics of the checkpoints that it keeps, so the whole history
travels inside each checkpoint. A driver that was killed and runs again with the same name and folder goes on.
"""

from __future__ import annotations

import contextvars
import json
import logging
import math
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train import ControllerError

from alray import storage
from alray.errors import AlrayError, RuntimeFailure, TrainingError
from alray.log import within
from alray.runtime import history
from alray.runtime.base import TrainResult, Worker
from alray.runtime.ray_log import Told
from alray.storage import clients

log = logging.getLogger(__name__)

KEEP = 2
"""Checkpoints kept: the last, and the one before it while the last is being written."""

INDEX = "checkpoint_manager_snapshot.json"
"""Ray's list of the checkpoints of a run. It is written in place, so a kill can leave half of it."""

START_VARIABLE, START_S = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", 60.0
"""How long Ray waits for machines at a time, and how it is told."""

STARTS = 4
"""Workers that die while they start are started so many times again, however long a start may take."""

LOOK_S = 0.5
"""The longest wait during a training without a look for signals."""

COLLECTIVE_TIMEOUT_S = 600
COMMIT_TIMEOUT_S = 600.0

Loop = Callable[[dict[str, Any], Worker], None]


def train(
    loop: Loop,
    config: dict[str, Any],
    *,
    workers: int,
    name: str,
    folder: str,
    max_failures: int = 2,
    deadline_s: float = 1800.0,
) -> TrainResult:
    """Run `loop(config, worker)` on this many processes: gloo on CPUs, NCCL and one GPU each where there are GPUs.

    For room on the cluster they wait `deadline_s`, in turns of `START_VARIABLE`; that is five turns at least.
    """
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    _forget_torn_index(storage.join(folder, name, INDEX))
    gpus = int(ray.cluster_resources().get("GPU", 0))
    workers = _width(workers, gpus)
    trainer = ray.train.torch.TorchTrainer(
        _entry,
        train_loop_config={"loop": Told(loop), "config": config},
        torch_config=ray.train.torch.TorchConfig(backend="nccl" if gpus else "gloo", timeout_s=COLLECTIVE_TIMEOUT_S),
        scaling_config=ray.train.ScalingConfig(num_workers=workers, use_gpu=gpus > 0),
        run_config=_run_config(name, folder, max_failures, deadline_s),
    )
    try:
        result = _beside(trainer.fit)
    except ControllerError as error:
        raise RuntimeFailure(
            f"The training run {name} found no room for {workers} workers within {deadline_s:g} s "
            f"(`runtime.deadline_s`): {error} Run the same command again once the cluster has it."
        ) from error
    except ray.train.TrainingFailedError as error:
        raise _cause(error, name, max_failures) from error
    return _result(result, folder)


def _beside(work: Callable[[], Any]) -> Any:
    """Return `work()`, done in another thread.

    Ray lets no signal through until training has ended; and in the main thread it takes SIGINT over for good, and then
    ends the process with 0, as if all were done.
    """
    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def do() -> None:
        try:
            future.set_result(context.run(work))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=do, name="alray-train", daemon=True).start()
    while not future.done():
        wait([future], timeout=LOOK_S)
    return future.result()


def _forget_torn_index(uri: str) -> None:
    """Delete a list of checkpoints that cannot be read: Ray would refuse to start, now and each time after."""
    if not storage.exists(uri):
        return
    text = storage.read_text(uri)
    try:
        json.loads(text)
    except json.JSONDecodeError:
        log.warning("%s was cut short by a kill: this training starts again from its first epoch", uri)
        storage.delete(uri)


def _width(workers: int, gpus: int) -> int:
    if 0 < gpus < workers:
        log.info("training on %d workers and not %d: one GPU each", gpus, workers)
        return gpus
    return workers


def _run_config(name: str, folder: str, max_failures: int, deadline_s: float) -> Any:
    path, filesystem = _ray_storage(folder)
    start_s = float(os.environ.get(START_VARIABLE, START_S))
    return ray.train.RunConfig(
        name=name,
        storage_path=path,
        storage_filesystem=filesystem,
        failure_config=ray.train.FailureConfig(
            max_failures=max_failures,
            controller_failure_limit=max(STARTS, math.ceil(deadline_s / start_s)),  # else it asks for ever
        ),
        checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEEP),
        worker_runtime_env={"env_vars": storage.environment()},
    )


def _ray_storage(folder: str) -> tuple[str, Any]:
    """Return the path and the pyarrow filesystem that Ray Train takes for `folder`."""
    local = storage.local_path(folder)
    if local is not None:
        local.mkdir(parents=True, exist_ok=True)
        return str(local), None
    scheme, _, path = folder.partition("://")
    return path, clients.filesystem(scheme)


def _result(result: Any, folder: str) -> TrainResult:
    if result.checkpoint is None:
        return TrainResult(metrics=dict(result.metrics or {}))
    # Said as the caller said it, and not as Ray found it: a relative folder stays relative.
    within = PurePosixPath(result.checkpoint.path).relative_to(_ray_storage(folder)[0].rstrip("/"))
    checkpoint = storage.join(folder, str(within))
    epochs = history.read(checkpoint)
    return TrainResult(metrics=epochs[-1], history=epochs, checkpoint=checkpoint)


def _cause(error: Exception, name: str, max_failures: int) -> Exception:
    """Return what the workers failed on: an error of ours as it is, any other inside a TrainingError."""
    failures = getattr(error, "worker_failures", {})
    for rank in sorted(failures):
        for known in (failures[rank], getattr(failures[rank], "cause", None), failures[rank].__cause__):
            if isinstance(known, AlrayError):
                return known
    return TrainingError(
        f"The training run {name} failed {max_failures + 1} times: {error} Run the same command again to go on from "
        "its last committed epoch, once the cause is gone."
    )


# On the workers


def _entry(payload: dict[str, Any]) -> None:
    worker = RayWorker()
    with within(rank=worker.rank):
        payload["loop"](payload["config"], worker)


class RayWorker(Worker):
    """One of the processes of a Ray Train run."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self._history: list[dict[str, Any]] = []
        with self.resume() as folder:
            if folder is not None:
                self._history = history.read(str(folder))

    @contextmanager
    def resume(self) -> Iterator[Path | None]:
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            yield None
            return
        with checkpoint.as_directory() as folder:
            yield Path(folder)

    def report(self, metrics: dict[str, Any], save: Callable[[Path], None] | None = None) -> None:
        self._history.append(dict(metrics))
        if save is None:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="alray-") as temporary:
            checkpoint = None
            if self.rank == 0:
                save(Path(temporary))
                history.write(Path(temporary), self._history)
                checkpoint = ray.train.Checkpoint.from_directory(temporary)
            ray.train.report(metrics, checkpoint=checkpoint)
        ray.train.get_all_reported_checkpoints(
            consistency_mode=ray.train.CheckpointConsistencyMode.COMMITTED, timeout_s=COMMIT_TIMEOUT_S
        )

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        wrapped: torch.nn.Module = ray.train.torch.prepare_model(module)
        return wrapped
