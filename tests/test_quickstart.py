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


HEADER = ["round", "new", "labels", "accuracy", "sampling", "s", "seconds", "label", "$", "compute", "$", "dollars"]


def test_the_quickstart_shows_proxy_rounds_a_switch_and_a_fine_tune(tmp_path: Path) -> None:
    first = alray(tmp_path, "run", str(CONFIG))
    assert first.split()[: len(HEADER)] == HEADER
    status = json.loads(alray(tmp_path, "status", "runs/quickstart", "--json"))
    assert (status["state"], status["rounds"], status["labels"]) == ("done", 6, 260)
    fired = [one["round"] for one in status["switches"] if one["sentence"].startswith("Switch.")]
    assert len(fired) == 1 and 3 <= fired[0] <= 4
    assert next(one["came_of_it"] for one in status["switches"] if one["came_of_it"]).startswith("Features updated")
    assert [row["model"] for row in status["per_round"]] == ["head"] * 5 + ["fine_tune"]
    before, after = status["accuracy"][fired[0] - 1], status["accuracy"][-1]
    assert after > 0.93 and after > before
    assert alray(tmp_path, "run", str(CONFIG)) == first
