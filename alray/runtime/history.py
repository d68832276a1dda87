"""The metrics of every epoch so far, kept inside each checkpoint, so that a resumed run still knows its beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alray import storage

FILE = "history.json"
SCHEMA = 1


def write(folder: Path, history: list[dict[str, Any]]) -> None:
    """Write the history beside the weights in a local checkpoint folder."""
    storage.write_json(str(folder / FILE), {"schema": SCHEMA, "history": history})


def read(folder: str) -> list[dict[str, Any]]:
    """Return the history that a checkpoint holds, local or remote."""
    found: list[dict[str, Any]] = storage.read_json(storage.join(folder, FILE))["history"]
    return found
