"""A small pool in two files, its oracle and its test set; the settings of a campaign, and what its ledger holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alray import config
from alray.campaign import Settings, status
from alray.pool import digits

CLASSES, DIM, ROWS, TESTS = 3, 6, 40, 30


def write_pool(folder: Path) -> None:
    """Write pool-0.parquet, pool-1.parquet (40 rows each, the second sorted by class), oracle.parquet, test.parquet."""
    rng = np.random.default_rng(0)
    parts = [_rows(rng, f"p{part}-", ROWS, ordered=bool(part)) for part in range(2)]
    for number, part in enumerate(parts):
        pq.write_table(part.select(["id", "features"]), folder / f"pool-{number}.parquet")
    pq.write_table(pa.concat_tables(parts).select(["id", "label"]), folder / "oracle.parquet")
    pq.write_table(_rows(rng, "t-", TESTS, ordered=False), folder / "test.parquet")


def _rows(rng: np.random.Generator, prefix: str, count: int, *, ordered: bool) -> pa.Table:
    label_N = rng.integers(0, CLASSES, count)
    label_N = np.sort(label_N) if ordered else label_N
    x_ND = (np.eye(DIM)[label_N] + rng.normal(scale=0.8, size=(count, DIM))).astype(np.float16)
    features = pa.FixedSizeListArray.from_arrays(pa.array(x_ND.reshape(-1)), DIM)
    ids = [f"{prefix}{n:03d}" for n in range(count)]
    return pa.table({"id": ids, "features": features, "label": [f"class-{c}" for c in label_N]})


def write_pictures(folder: Path) -> None:
    """Write pictures/pool.parquet (60 digits), test.parquet (20) and oracle.parquet."""
    whole = folder / "digits"
    digits.write(str(whole))
    (folder / "pictures").mkdir()
    for name, rows in (("pool", 60), ("test", 20), ("oracle", 60)):
        pq.write_table(pq.read_table(whole / f"{name}.parquet").slice(0, rows), folder / f"pictures/{name}.parquet")


def picture_settings(data: Path, run: Path) -> Settings:
    """Return two rounds on pictures, the second of which fine-tunes for two epochs."""
    more = {
        "pool": f"{data}/pictures/pool.parquet",
        "test": {"path": f"{data}/pictures/test.parquet", "labels": f"{data}/pictures/test.parquet"},
        "labeller": {"name": "oracle", "path": f"{data}/pictures/oracle.parquet"},
        "features": {"backbone": "small_backbone:make", "image_size": 8, "path": f"{run}-features"},
        "training": {"when": "last", "recipe": {"name": "fine_tune", "epochs": 2}},
        "budget": {"initial": 15, "per_round": 6, "total": 21},
    }
    return settings(data, run, **more)


def regime_settings(data: Path, run: Path, **more: Any) -> Settings:
    """Return two rounds on pictures, whose backbone is pre-trained for one epoch, and a control arm."""
    raw = picture_settings(data, run).model_dump(mode="json")
    recipe = {"name": "auto", "fine_tune": {"epochs": 1}, "lp_ft": {"epochs": 1}}
    own = {
        "pretrain": {"epochs": 1, "batch": 32, "dim": 8, "hidden": 4},
        "budget": {**raw["budget"], "control": 0.34},
        "training": {"when": "last", "recipe": recipe},
    }
    return parse({**raw, **own, **more})


def raw_settings(data: Path, run: Path | str, **more: Any) -> dict[str, Any]:
    """Return the settings of three rounds: 12, 6 and 3 labels."""
    return {
        "run": str(run),
        "pool": f"{data}/pool-*.parquet",
        "test": {"path": f"{data}/test.parquet", "labels": f"{data}/test.parquet"},
        "strategy": "margin",
        "budget": {"initial": 12, "per_round": 6, "total": 21},
        "labeller": {"name": "oracle", "path": f"{data}/oracle.parquet"},
        "costs": {"label": 0.1, "cpu_hour": 1.0},
        "runtime": {"name": "local"},
        **more,
    }


def settings(data: Path, run: Path | str, *overrides: str, **more: Any) -> Settings:
    """Return `raw_settings` as settings, with `key=value` overrides."""
    return config.parse(raw_settings(data, run, **more), Settings, overrides=overrides)


def parse(raw: dict[str, Any]) -> Settings:
    """Return settings as they stand in a file."""
    return config.parse(raw, Settings)


def ledger(folder: Path) -> dict[str, object]:
    """Return what must be identical after a kill (decision 10), and every ask that was sent."""
    rounds = sorted((folder / "rounds").iterdir())
    records = [json.loads((r / "round.json").read_text()) for r in rounds]
    about = ["picks_digest", "label_dollars", "config", "accuracy", "labels", "features"]
    asks = [row for f in sorted((folder / "asks").glob("*.parquet")) for row in pq.read_table(f)["id"].to_pylist()]
    answers = [i for f in sorted((folder / "answers").glob("*.parquet")) for i in pq.read_table(f)["id"].to_pylist()]
    now = status(str(folder))
    return {
        "rounds": [{name: r[name] for name in about} for r in records],
        "heads": [r["sha256"]["head.safetensors"] for r in records],
        "picks": [pq.read_table(r / "picks.parquet").to_pylist() for r in rounds],
        "labels": [pq.read_table(r / "labels.parquet", columns=["id", "label"]).to_pylist() for r in rounds],
        "estimates": [r["estimate"] for r in records],
        "switches": [_decided(r / "switch.json", "fire", "labels", "evidence", "numbers", "refusal") for r in rounds],
        "trials": [_decided(r / "trial.json", "verdict", "gain", "accuracy") for r in rounds],
        "aligned": [_decided(r / "aligned.json", "accepted", "verdict", "gain", "recipe", "settings") for r in rounds],
        "asks": asks,
        "answers": answers,
        "state": now.state,
        "label_dollars": now.label_dollars,
    }


def _decided(file: Path, *fields: str) -> dict[str, Any] | None:
    """Return what a decision was and stood on; what it cost is a matter of the clock."""
    if not file.exists():
        return None
    found = json.loads(file.read_text())
    return {name: found.get(name) for name in fields}
