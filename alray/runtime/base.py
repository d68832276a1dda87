"""What a runtime can do: run functions on workers, keep shards resident on them, extract features, train.

Ray is one runtime and this process is another; nothing outside this room asks which one it has. Every function handed
to a runtime is a module-level function that is pure, or commits idempotently, because it may run twice.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, field_validator

from alray.config import Config

FAN_IN = 16
"""Parts merged by one step of a tree. On Ray the cost of a call dominates: wide trees win (8 to 16 measured best)."""

_ADDRESS = re.compile(r"auto|local|(ray://)?([\w-][\w.-]*|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})", re.ASCII)


class RuntimeConfig(Config):
    """How work is run."""

    name: Literal["ray", "local"] = "ray"
    address: str | None = None  # of a running Ray cluster; none starts one on this machine
    workers: int = Field(2, ge=1, le=4096)  # shard actors, and workers of a training run
    deadline_s: float = Field(1800.0, gt=0)  # seconds without any call finishing before a stage is given up
    max_restarts: int = Field(8, ge=0)  # times that a lost worker is replaced within one stage
    object_store_bytes: int = Field(2**30, ge=80 * 2**20)  # of a cluster that alray starts itself
    insecure: bool = False  # join a cluster beyond loopback without a token

    @field_validator("address")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        found = None if address is None else _ADDRESS.fullmatch(address)
        if address is not None and (found is None or not 0 < int(found["port"] or 1) < 2**16):
            raise ValueError(f"is {address!r} (expected auto, local, host:port or ray://host:port)")
        return address


@dataclass(frozen=True)
class Resources:
    """What a stage holds while it runs: the multiplier of its wall seconds."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Extraction:
    """Turn chunks of pictures into part files: decode on CPU workers, embed on an actor pool, write.

    `decode(chunk)` returns named arrays; `embedder()` is called once per actor and returns a function from those
    arrays to named arrays; `write(chunk, arrays)` commits one chunk idempotently.
    """

    chunks: Sequence[Any]
    decode: Callable[[Any], dict[str, np.ndarray]]
    embedder: Callable[[], Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]]
    write: Callable[[Any, dict[str, np.ndarray]], None]


@dataclass(frozen=True)
class TrainResult:
    """The end of a training run: last metrics, the metrics of every epoch, and the committed checkpoint's folder."""

    metrics: dict[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    checkpoint: str | None = None


def shard_number(work: Any) -> int | None:
    """Return the number of the shard that a piece of work is of, or None where it does not say: for the log alone."""
    number = getattr(getattr(work, "shard", work), "number", None)
    return number if isinstance(number, int) else None


def rows_of(spec: Any) -> int:
    """Return how many rows a shard has, 0 where it does not say."""
    rows = getattr(spec, "rows", 0)
    return rows if isinstance(rows, int) else 0


class Worker(ABC):
    """What a training loop sees of the runtime: its rank, its device, and the way to commit an epoch."""

    rank: int
    world: int
    device: torch.device

    @abstractmethod
    def resume(self) -> AbstractContextManager[Path | None]:
        """Yield a local folder that holds the last committed checkpoint, or None at the start."""

    @abstractmethod
    def report(self, metrics: dict[str, Any], save: Callable[[Path], None] | None = None) -> None:
        """Commit an epoch: when this returns, the checkpoint that `save(folder)` wrote on rank 0 is durable."""

    @abstractmethod
    def wrap(self, module: torch.nn.Module) -> torch.nn.Module:
        """Return the module on this worker's device, its gradients averaged over all workers."""


class Held(ABC):
    """Shards resident on workers. Results come in shard order, whatever ran where."""

    @abstractmethod
    def map(self, fn: Callable[..., Any], *args: Any) -> list[Any]:
        """Return `fn(state, *args)` of every shard."""

    @abstractmethod
    def reduce_groups(
        self,
        fn: Callable[..., Any],
        merge: Callable[[list[Any]], Any],
        groups: Sequence[Sequence[int]],
        *args: Any,
        finish: Callable[[Any], Any] | None = None,
    ) -> list[Any]:
        """Return one result per group of shard positions: `finish(merge of fn(state, *args) over its shards)`.

        The trees' shapes only the groups decide. Parts stay on the workers; only what `finish` returns comes back.
        """

    @property
    @abstractmethod
    def count(self) -> int:
        """How many shards are held."""

    def reduce(
        self,
        fn: Callable[..., Any],
        merge: Callable[[list[Any]], Any],
        *args: Any,
        finish: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return `finish` of the `merge` of `fn(state, *args)` over all shards."""
        return self.reduce_groups(fn, merge, [range(self.count)], *args, finish=finish)[0]

    @abstractmethod
    def close(self) -> None:
        """Let the shards go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Runtime(ABC):
    """Where work is run. Use it as a context manager; `close` gives back what it holds."""

    name: str
    workers: int
    hardware: str
    resources: Resources

    @abstractmethod
    def call(self, fn: Callable[..., Any], *args: Any, stage: str) -> Any:
        """Return `fn(*args)`, run once on one worker and thread; beside held shards, on one that holds them."""

    @abstractmethod
    def map(self, fn: Callable[..., Any], items: Sequence[Any], *args: Any, stage: str) -> list[Any]:
        """Return `fn(item, *args)` of every item, in order, bounded in flight."""

    @abstractmethod
    def hold(self, load: Callable[[Any], Any], specs: Sequence[Any], *, stage: str) -> Held:
        """Make shards resident: `load(spec)` builds one's state on its worker, and again on another after a loss."""

    @abstractmethod
    def extract(self, job: Extraction, *, stage: str) -> None:
        """Run an extraction to its end."""

    @abstractmethod
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
        """Run `loop(config, worker)` on `workers` processes; the same name and folder resume a run that was cut."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the runtime holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
