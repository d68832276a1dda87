"""`kill -9` of a driver on Ray in each stage of a round, and the same command again: one ledger, each label paid once.

The driver is a real process, and the moment of its death a real one: what it has written so far tells. All are slow:
`-m ray` has drivers killed at random moments (test_soak.py), and one in a training (tests/runtime/test_ray_train.py).
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import campaigns
import driving
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from driving import Driver

from alray.campaign import run
from alray.pool import digits

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")

RECORD = "rounds/0001/round.json"


@dataclass(frozen=True)
class Stage:
    """When to kill: `reached` says that the driver is there, `passed` that it is beyond; both look at its files."""

    reached: str  # a glob below the run's parent
    passed: str
    stops_in: str | None = None


STAGES = {
    "features": Stage("features/*/parts/*/chunk-*.arrow", "features/*/manifest*"),
    "scan": Stage("run/costs/*-0001-select.start.json", "run/rounds/0001/picks.parquet"),
    "picks": Stage("run/rounds/0001/picks.parquet", "run/rounds/0001/labels.parquet"),
    "training": Stage("run/rounds/0001/checkpoint/*/checkpoint_manager_snapshot.json", "run/rounds/0001/trained.json"),
    "round.json": Stage("no such file", f"run/{RECORD}", stops_in=RECORD),
}


@dataclass(frozen=True)
class Whole:
    """A run that nobody killed: its ledger, and its seconds."""

    ledger: dict[str, Any]
    seconds: float
    features: Path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the digits: 1,438 pictures in three shards, of two chunks each."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write(str(folder))
    return folder


@pytest.fixture(scope="module")
def whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Run the campaign once without disturbance."""
    folder = tmp_path_factory.mktemp("whole")
    with driving.driver(config(pictures, folder, folder / "features"), folder / "log") as one:
        seconds = one.finish()
    found = campaigns.ledger(folder / "run")
    print(f"\nundisturbed: {seconds:.1f} s, picks {digests(found)}")
    assert found["state"] == "done" and len(set(found["asks"])) == len(found["asks"]) == 30
    return Whole(found, seconds, folder / "features")


def config(pictures: Path, folder: Path, features: Path) -> Path:
    """Write the settings of two rounds on Ray, the second of which fine-tunes on two workers."""
    raw = {
        "run": str(folder / "run"),
        "pool": {"path": str(pictures / "pool.parquet"), "rows_per_shard": 512},
        "test": {"path": str(pictures / "test.parquet"), "labels": str(pictures / "test.parquet")},
        "features": {"backbone": "small_backbone:make", "image_size": 8, "path": str(features)},
        "strategy": "alfa_mix",
        "selection": {"regime": "coreset"},
        "budget": {"initial": 20, "per_round": 10, "total": 30},
        "labeller": {"name": "oracle", "path": str(pictures / "oracle.parquet")},
        "costs": {"label": 0.1, "cpu_hour": 1.0},
        "training": {"when": "last", "recipe": {"name": "fine_tune", "epochs": 3}},
        "runtime": {"name": "ray", "workers": 2},
    }
    path = folder / "campaign.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def digests(found: dict[str, Any]) -> str:
    return " ".join(one["picks_digest"][:12] for one in found["rounds"])


def whole_file(file: Path) -> bool:
    """Whether a file is written to its end, as far as can be seen: Ray writes its JSON in place."""
    try:
        return file.suffix != ".json" or bool(json.loads(file.read_text()))
    except json.JSONDecodeError:
        return False


def committed(folder: Path) -> list[dict[str, Any]]:
    """Return the metrics of the epochs that Ray's list of checkpoints knows: these are not trained again."""
    for index in folder.glob(STAGES["training"].reached):
        last = json.loads(index.read_text())["checkpoint_results"][-1]["checkpoint_dir_name"]
        found: list[dict[str, Any]] = json.loads((index.parent / last / "history.json").read_text())["history"]
        return found
    return []


def stage_seconds(folder: Path, stage: str) -> float:
    """Return the seconds that a stage took in all rounds of a run."""
    return sum(json.loads(file.read_text())["seconds"] for file in folder.glob(f"run/costs/*-{stage}.json"))


def refused(run: Path, live: Driver, lease: Path) -> None:
    """Start another driver beside a live one, which must be told so."""
    while not lease.exists() or json.loads(lease.read_text())["pid"] != live.pid:
        assert live.process.poll() is None
        time.sleep(0.05)
    command = [sys.executable, "-m", "alray", "run", str(run)]
    other = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ.copy())
    assert other.returncode == 2, other.stderr
    assert f"has a driver already: pid {live.pid} on " in other.stderr


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", STAGES)
def test_a_driver_killed_in_any_stage(name: str, pictures: Path, tmp_path: Path, whole: Whole) -> None:
    stage, own = STAGES[name], name == "features"
    command = config(pictures, tmp_path, tmp_path / "features" if own else whole.features)
    with driving.driver(command, tmp_path / "log-1", stops_in=stage.stops_in) as first:
        first.freeze(lambda: any(whole_file(file) for file in tmp_path.glob(stage.reached)))
        assert not any(tmp_path.glob(stage.passed)), f"the driver was beyond {name} already"
        epochs = committed(tmp_path)
        lived = first.kill()
    with driving.driver(command, tmp_path / "log-2") as second:
        if name == "training":
            refused(command, second, tmp_path / "run/lease.json")
        again = second.finish()
    first.outlive()
    found = campaigns.ledger(tmp_path / "run")
    lost = lived + again - whole.seconds + (0 if own else stage_seconds(whole.features.parent, "features"))
    print(f"\n{name}: killed after {lived:.1f} s, again {again:.1f} s, lost {lost:.1f} s, picks {digests(found)}")
    assert found == whole.ledger
    if name == "training":  # what was committed is not trained again: even its seconds are the first driver's
        trained = json.loads((tmp_path / "run/rounds/0001/trained.json").read_text())["history"]
        assert len(trained) == 3 and trained[: len(epochs)] == epochs != []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_driver_stopped_in_pretraining_and_killed_in_the_fine_tune_of_an_alignment(
    pictures: Path, tmp_path: Path
) -> None:
    """One campaign, three commands: the ledger of one that nobody disturbed."""
    (tmp_path / "whole").mkdir()
    with driving.driver(asvp(pictures, tmp_path / "whole"), tmp_path / "log-whole") as one:
        one.finish()
    found = campaigns.ledger(tmp_path / "whole/run")
    folder = tmp_path / "cut"
    folder.mkdir()
    command = asvp(pictures, folder)
    with driving.driver(command, tmp_path / "log-1") as first:
        first.until(lambda: any(folder.glob("features/pretrained/*/epochs/*/history.json")))
        first.process.terminate()
        assert first.process.wait(120) == 128 + signal.SIGTERM, first.log.read_text()
    assert not (folder / "run/pretrained.json").exists(), "pre-training was over already"
    with driving.driver(command, tmp_path / "log-2") as second:
        second.freeze(lambda: any(folder.glob("run/rounds/0000/aligned/*/checkpoint_*/history.json")))
        assert not (folder / "run/rounds/0000/aligned.json").exists(), "the alignment was over already"
        second.kill()
    with driving.driver(command, tmp_path / "log-3") as third:
        third.finish()
    second.outlive()
    assert campaigns.ledger(folder / "run") == found
    assert found["switches"][0]["fire"] and found["aligned"][0]["accepted"]
    assert found["rounds"][0]["features"] == found["rounds"][1]["features"] is not None


def asvp(pictures: Path, folder: Path) -> Path:
    """Write the settings of two rounds, the first of which aligns the features of a pre-trained backbone."""
    path = config(pictures, folder, folder / "features")
    raw = yaml.safe_load(path.read_text())
    recipe = {"name": "auto", "fine_tune": {"epochs": 4}, "lp_ft": {"epochs": 1}}
    raw |= {
        "regime": "asvp",
        "switch": {"at": 20, "guard": "none"},
        "pretrain": {"epochs": 3, "batch": 64, "dim": 16, "hidden": 8, "checkpoint_every": 1},
        "training": {"when": "last", "recipe": recipe},
    }
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_shard_actor_killed_in_mid_scan(tmp_path: Path) -> None:
    clouds(tmp_path, rows=200_000, dim=64)
    settings = {
        "run": str(tmp_path / "ray"),
        "pool": {"path": str(tmp_path / "pool.parquet"), "rows_per_shard": 8192},
        "strategy": "alfa_mix",
        "selection": {"regime": "coreset"},
        "budget": {"initial": 30, "per_round": 20, "total": 70},
        "labeller": {"name": "oracle", "path": str(tmp_path / "oracle.parquet")},
        "runtime": {"name": "ray", "workers": 2},
    }
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(settings))
    with driving.driver(tmp_path / "campaign.yaml", tmp_path / "log") as one:
        one.until(lambda: (tmp_path / "ray/rounds/0000/round.json").exists())
        actors = driving.workers(one.pid, "Host")
        one.until(lambda: any(tmp_path.glob("ray/costs/*-0001-select.start.json")))
        one.until(lambda: driving.command(actors[0]).startswith("ray::Host."))  # it is at a call
        os.kill(actors[0], signal.SIGKILL)
        assert not (tmp_path / "ray/rounds/0001/picks.parquet").exists()
        one.finish()
    log = one.log.read_text()
    assert re.search(r"(?s)worker lost at shard \d+ .*replaying.* candidates for 20 picks", log), log
    local = {"run": str(tmp_path / "local"), "runtime": {"name": "local"}}
    run(campaigns.parse({**settings, **local}))
    found = campaigns.ledger(tmp_path / "ray")
    print(f"\nshard actor {actors[0]} killed in the scan of round 1, picks {digests(found)}")
    assert found == campaigns.ledger(tmp_path / "local")


def clouds(folder: Path, *, rows: int, dim: int) -> None:
    """Write pool.parquet and oracle.parquet: a Gaussian mixture of ten classes."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, 10, rows)
    x_ND = (rng.normal(size=(10, dim))[label_N] + rng.normal(size=(rows, dim))).astype(np.float16)
    features = pa.FixedSizeListArray.from_arrays(pa.array(x_ND.ravel()), dim)
    ids = [f"row-{n:06d}" for n in range(rows)]
    pq.write_table(pa.table({"id": ids, "features": features}), folder / "pool.parquet", row_group_size=8192)
    pq.write_table(pa.table({"id": ids, "label": [f"class-{c}" for c in label_N]}), folder / "oracle.parquet")
