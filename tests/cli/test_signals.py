"""A campaign on a real Ray that is told to end gives back what it holds, says so, and goes on when run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import campaigns
import pytest

from alray import config

pytestmark = pytest.mark.ray

ROUNDS = ["runtime.name=ray", "budget.initial=10", "budget.per_round=2", "budget.total=110"]


def test_sigterm_ends_a_run_on_ray_cleanly_and_the_same_command_goes_on(campaign: str) -> None:
    command = [sys.executable, "-m", "alray", "run", campaign, *ROUNDS]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        assert process.stderr is not None
        seen = next((line for line in process.stderr if " round 2: " in line), "")
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert seen
    assert process.returncode == 128 + signal.SIGTERM, rest
    assert rest.endswith("alray: Stopped by SIGTERM. The same command goes on from the last finished stage.\n")
    ended = subprocess.run([*command, "budget.total=30"], capture_output=True, text=True, env=os.environ.copy())
    assert ended.returncode == 0, ended.stderr
    assert "done:" in ended.stdout


def test_sigint_in_the_middle_of_training_ends_it_and_is_told_as_such(tmp_path: Path) -> None:
    campaigns.write_pictures(tmp_path)
    raw = campaigns.picture_settings(tmp_path, tmp_path / "run").model_dump(mode="json")
    raw |= {"runtime": {"name": "ray"}, "training": {"when": "every", "recipe": {"name": "fine_tune", "epochs": 500}}}
    (tmp_path / "campaign.yaml").write_text(config.dump(campaigns.parse(raw)))
    command = [sys.executable, "-m", "alray", "run", str(tmp_path / "campaign.yaml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ.copy()) as process:
        give_up = time.monotonic() + 250
        while not list((tmp_path / "run/rounds").glob("0000/*/*/checkpoint_*")):
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # which Ray Train would answer with an end that looks like a good one
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 128 + signal.SIGINT, said
    assert not (tmp_path / "run/rounds/0000/trained.json").exists()  # it did not wait for the other epochs
    assert said.endswith("alray: Stopped by SIGINT. The same command goes on from the last finished stage.\n")
