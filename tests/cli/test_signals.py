"""A campaign on a real Ray that is told to end gives back what it holds, says so, and goes on when run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.ray

ROUNDS = ["runtime.name=ray", "budget.initial=10", "budget.per_round=2", "budget.total=110"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_on_ray_cleanly_and_the_same_command_goes_on(campaign: str, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "alray", "run", campaign, *ROUNDS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stderr is not None
        seen = next((line for line in process.stderr if " round 2: " in line), "")
        process.send_signal(number)
        rest = process.stderr.read()
    assert seen
    assert process.returncode == 128 + number, rest
    assert rest.endswith(f"alray: Stopped by {number.name}. The same command goes on from the last finished stage.\n")
    ended = subprocess.run([*command, "budget.total=30"], capture_output=True, text=True, env=os.environ.copy())
    assert ended.returncode == 0, ended.stderr
    assert "done:" in ended.stdout
