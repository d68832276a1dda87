"""The quickstart runs on a local Ray, from nothing to its table, and runs again without doing anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[1] / "configs" / "quickstart.yaml"

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


def alray(folder: Path, *words: str) -> str:
    """Run a command in `folder` as a user does, and return what it prints."""
    home = str(CONFIG.parents[1])
    path = os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, "-m", "alray", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_quickstart_ends_with_its_table_and_is_then_done(tmp_path: Path) -> None:
    first = alray(tmp_path, "run", str(CONFIG))
    assert first.split()[:6] == ["round", "new", "labels", "accuracy", "seconds", "dollars"]
    status = json.loads(alray(tmp_path, "status", "runs/quickstart", "--json"))
    assert (status["state"], status["rounds"], status["labels"]) == ("done", 4, 160)
    assert status["accuracy"][-1] > 0.9 > status["accuracy"][0]
    assert alray(tmp_path, "run", str(CONFIG)) == first
