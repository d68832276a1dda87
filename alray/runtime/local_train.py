"""Training in this process: a world of one, with the same commits and the same resume as on Ray.

A checkpoint is a numbered folder; it counts once `latest.json`, written last, names it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from alray import storage
from alray.runtime import history
from alray.runtime.base import TrainResult, Worker

log = logging.getLogger(__name__)

LATEST = "latest.json"
SCHEMA = 1


def train(
    loop: Callable[[dict[str, Any], Worker], None], config: dict[str, Any], *, name: str, folder: str
) -> TrainResult:
    """Run `loop(config, worker)` here; the same name and folder resume after the last committed checkpoint."""
    worker = LocalWorker(storage.join(folder, name))
    loop(config, worker)
    metrics = worker.history[-1] if worker.history else {}
    return TrainResult(metrics=metrics, history=worker.history, checkpoint=worker.latest())


class LocalWorker(Worker):
    """The only worker there is."""

    rank, world = 0, 1

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        latest = self.latest()
        self.history: list[dict[str, Any]] = history.read(latest) if latest else []

    def latest(self) -> str | None:
        """Return the URI of the last committed checkpoint, or None."""
        uri = storage.join(self.folder, LATEST)
        return storage.join(self.folder, storage.read_json(uri)["checkpoint"]) if storage.exists(uri) else None

    @contextmanager
    def resume(self) -> Iterator[Path | None]:
        latest = self.latest()
        if latest is None:
            yield None
            return
        with fetched(latest) as path:
            yield path

    def report(self, metrics: dict[str, Any], save: Callable[[Path], None] | None = None) -> None:
        self.history.append(dict(metrics))
        log.debug("epoch %d: %s", len(self.history), metrics)
        if save is None:
            return
        before, name = self.latest(), f"checkpoint-{len(self.history):05d}"
        with tempfile.TemporaryDirectory(prefix="alray-") as temporary:
            save(Path(temporary))
            history.write(Path(temporary), self.history)
            for file in sorted(Path(temporary).iterdir()):
                storage.write_bytes(storage.join(self.folder, name, file.name), file.read_bytes())
        storage.write_json(storage.join(self.folder, LATEST), {"schema": SCHEMA, "checkpoint": name})
        if before is not None and before != storage.join(self.folder, name):
            storage.delete_folder(before)

    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        return module.to(self.device)


@contextmanager
def fetched(uri: str) -> Iterator[Path]:
    """Yield a local folder with the files of `uri`: itself when it is local, else a copy that is removed again."""
    path = storage.local_path(uri)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="alray-") as temporary:
        for file in storage.list_files(uri):
            storage.write_bytes(storage.join(temporary, file.rsplit("/", 1)[-1]), storage.read_bytes(file))
        yield Path(temporary)
