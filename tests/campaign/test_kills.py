"""A driver killed at any commit, and the same command again: the ledger is that of a run that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent / "kills.py"


def kill_at(kind: str, data: Path, folder: Path, first: int, step: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    paths = os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parents[2])])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(data), str(folder), str(first), str(step)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *killed, end, whole = [json.loads(line) for line in done.stdout.splitlines()]
    assert end is None
    return killed, whole


def check(killed: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    assert whole["state"] == "done"
    assert len(whole["asks"]) == len(set(whole["asks"])) == 21
    assert sorted(whole["answers"]) == sorted(whole["asks"])
    for one in killed:
        where = (one.pop("k"), one.pop("after"))
        assert one == whole, f"killed {'after' if where[1] else 'before'} commit {where[0]}"


def test_some_commits(data: Path, tmp_path: Path) -> None:
    killed, whole = kill_at("features", data, tmp_path, 5, 17)
    assert len(killed) >= 6
    check(killed, whole)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_commit(data: Path, tmp_path: Path) -> None:
    killed, whole = kill_at("features", data, tmp_path, 1, 1)
    assert len(killed) >= 80
    check(killed, whole)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commits_of_features_and_training(data: Path, tmp_path: Path) -> None:
    killed, whole = kill_at("pictures", data, tmp_path, 2, 5)
    assert len(killed) >= 20
    check(killed, whole)
