"""A sweep on a real Ray whose driver is killed half-way: the same command finishes it, and nothing in it differs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import campaigns
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from driving import Driver
from sklearn.datasets import load_digits

from alray import campaign
from alray.sweeps.grid import expand
from alray.sweeps.settings import load

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc"),
]


class SweepDriver(Driver):
    """`alray sweep CONFIG` in a process of its own, whose log goes to a file."""

    def __init__(self, config: Path, log: Path) -> None:
        self.log, self.began = log, time.monotonic()
        with log.open("w") as out:
            words = [sys.executable, "-m", "alray", "sweep", str(config)]
            self.process = subprocess.Popen(words, stdout=out, stderr=out, env=os.environ.copy())
        self.pid = self.process.pid
        self.started = {}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a sweep of two strategies and two seeds on the digits' pixels, two rounds each."""
    digits = load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.target))
    pixels_NP = (digits.data / 16).astype(np.float16)

    def write(name: str, chosen: np.ndarray) -> str:
        features = pa.FixedSizeListArray.from_arrays(pa.array(pixels_NP[chosen].ravel()), 64)
        columns: dict[str, Any] = {"id": [f"digit-{n}" for n in chosen], "features": features}
        columns["label"] = [str(digits.target[n]) for n in chosen]
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        return str(tmp_path / f"{name}.parquet")

    pool, test = write("pool", rows[:1400]), write("test", rows[1400:])
    raw = {
        "sweep": {
            "folder": str(tmp_path / "sweep"),
            "grid": {"strategy.name": ["random", "margin"]},
            "seeds": 2,
            "concurrency": 2,
        },
        "campaign": {
            "pool": pool,
            "test": {"path": test, "labels": test},
            "strategy": "margin",
            "budget": {"initial": 40, "per_round": 20, "total": 60},
            "labeller": {"name": "oracle", "path": pool},
            "costs": {"label": 0.05},
            "runtime": {"name": "local"},
        },
    }
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def test_a_sweep_that_is_killed_half_way_ends_as_if_it_had_not_been(config: Path, tmp_path: Path) -> None:
    trials = expand(load(str(config)))
    runs = [Path(t.settings.run) for t in trials]

    def finished() -> list[Path]:
        return [run for run in runs if (run / "rounds/0001/round.json").exists()]

    first = SweepDriver(config, tmp_path / "log-1")
    try:
        first.until(lambda: bool(finished()))
    finally:
        first.process.kill()
        first.process.wait()
    over = {f: f.stat().st_mtime_ns for run in finished() for f in run.glob("rounds/*/*")}
    assert over and len(finished()) < len(runs), "nothing was left to go on with"
    assert not (tmp_path / "sweep/table.csv").exists()

    second = SweepDriver(config, tmp_path / "log-2")  # at once: what the first had started may still be there
    try:
        second.finish()
    finally:
        second.process.kill()
    assert {f: f.stat().st_mtime_ns for f in over} == over
    for one, run in zip(trials, runs, strict=True):
        alone = tmp_path / "alone" / one.name
        campaign.run(one.settings.model_copy(update={"run": str(alone)}))
        assert campaigns.ledger(run) == campaigns.ledger(alone), one.name
    assert (tmp_path / "sweep/table.csv").read_text().count(",done,") == 4
    said = (tmp_path / "log-2").read_text()
    assert "4 trials, " in said and "2 at a time" in said
