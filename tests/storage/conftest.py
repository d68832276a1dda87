"""A fresh folder on a disk or on the S3 server, empty or with a few files."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from alray import storage


@pytest.fixture(params=["disk", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a fresh folder of either kind."""
    if request.param == "disk":
        return str(tmp_path / "root")
    return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex[:8]}"


@pytest.fixture
def tree(root: str) -> str:
    """Return a folder with files, hidden and unfinished ones, and two sub-folders."""
    for name in ("b.parquet", "a.parquet", "note.txt", ".hidden", ".tmp-123-a.parquet", "sub/c.parquet", "sub2/d.csv"):
        storage.write_bytes(storage.join(root, name), b"x")
    return root
