"""The small pool that every campaign test works on."""

from __future__ import annotations

from pathlib import Path

import campaigns
import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the pool, its oracle and its test set once."""
    folder = tmp_path_factory.mktemp("campaign-data")
    campaigns.write_pool(folder)
    campaigns.write_pictures(folder)
    return folder
