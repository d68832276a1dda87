"""Log lines of Ray's workers: in the driver's format, and about the same run, round and stage, with Ray's own ids."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray

from alray import log
from alray.log import Format
from alray.runtime.base import shard_number


@dataclass(frozen=True)
class Told:
    """A function that takes along what the driver's lines are about, to wherever it is called."""

    function: Callable[..., Any]
    facts: dict[str, Any] = field(default_factory=log.about)
    format: Format = field(default_factory=log.written_as)

    def __call__(self, *args: Any, **named: Any) -> Any:
        log.setup(format=self.format)
        number = shard_number(args[0]) if args else None
        shard = {} if number is None else {"shard": number}
        with log.within(**self.facts, **_ids(), **shard):
            return self.function(*args, **named)


@functools.cache
def _ids() -> dict[str, str]:
    """Return Ray's names of this process, by which its own logs and dashboard know it."""
    found = ray.get_runtime_context()
    return {"job_id": found.get_job_id(), "node_id": found.get_node_id(), "worker_id": found.get_worker_id()}
