"""A driver killed at any commit, and the same command again: the ledger is that of a run that was never killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "kills.py"


def check(kind: str, data: Path, folder: Path, which: str, *, kills: int) -> None:
    """Kill drivers before and after commits; all of them must end with the ledger of the one that nobody killed."""
    paths = os.pathsep.join([str(SCRIPT.parents[1]), str(SCRIPT.parents[2])])
    done = subprocess.run(
        [sys.executable, str(SCRIPT), kind, str(data), str(folder), which],
        env={**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, *killed = [json.loads(line) for line in done.stdout.splitlines()]
    print(f"{kind}: {len(killed)} kills at {' '.join(one['at'][0] for one in killed[::2])}")
    assert len(killed) >= kills
    assert whole["state"] == "done"
    assert len(whole["asks"]) == len(set(whole["asks"])) == 21
    assert sorted(whole["answers"]) == sorted(whole["asks"])
    for one in killed:
        commit, after = one.pop("at")
        assert one == whole, f"killed {'after' if after else 'before'} the commit of {commit}"


def test_each_kind_of_commit(data: Path, tmp_path: Path) -> None:
    check("features", data, tmp_path, "kinds", kills=28)


def test_each_decision_of_an_alignment(data: Path, tmp_path: Path) -> None:
    check("asvp", data, tmp_path, "decisions", kills=22)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_commit(data: Path, tmp_path: Path) -> None:
    check("features", data, tmp_path, "all", kills=120)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_commits_of_features_and_training(data: Path, tmp_path: Path) -> None:
    check("pictures", data, tmp_path, "all", kills=150)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("regime", ["asvp", "unguarded", "standard"])
def test_every_commit_of_a_regime(regime: str, data: Path, tmp_path: Path) -> None:
    check(regime, data, tmp_path, "all", kills=100)
