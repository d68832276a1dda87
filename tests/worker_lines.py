"""What a worker would log, returned as the line that it would write. Importable by name on workers."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from alray import log


@dataclass(frozen=True)
class Shard:
    """Where a shard is."""

    number: int
    rows: int


def load(shard: Shard) -> str:
    """Make a shard resident."""
    return f"rows of {shard.number}"


def say(_: Any, message: str) -> str:
    """Return the line for `message` as JSON, and the format that this worker's log has."""
    record = logging.LogRecord("alray.worker", logging.INFO, __file__, 1, message, None, None)
    record.facts = {"format": str(log.written_as())}
    return log.JsonLines().format(record)


def last(parts: list[str]) -> str:
    """Merge lines: the last one is kept."""
    return parts[-1]
