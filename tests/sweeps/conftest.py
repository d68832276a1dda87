"""The small pool of the campaign tests, and a sweep of four trials on it in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import campaigns
import pytest

from alray import storage
from alray.sweeps.settings import Sweep, read


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the pool, its oracle, its test set, and a few pictures once."""
    folder = tmp_path_factory.mktemp("sweep-data")
    campaigns.write_pool(folder)
    campaigns.write_pictures(folder)
    return folder


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let commits return before the disk has them: nothing here outlives its process."""
    monkeypatch.setattr(storage, "_sync", lambda path: None)


@pytest.fixture
def sweep(data: Path, tmp_path: Path) -> Callable[..., Sweep]:
    """Return a function from words, and other campaign settings, to a sweep of two strategies and two seeds."""

    def made(*words: str, **campaign: Any) -> Sweep:
        raw = {
            "sweep": {
                "folder": str(tmp_path / "sweep"),
                "grid": {"strategy.name": ["random", "margin"]},
                "seeds": 2,
                "runtime": "local",
            },
            "campaign": campaigns.raw_settings(data, "never used", **campaign),
        }
        return read(raw, words, source="sweep.yaml")

    return made
