"""Run a command the way a shell does, without starting a process for each; and a small campaign to run it on."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from alray import storage
from alray.cli import app

DIM, CLASSES = 8, 3

SETTINGS = """
run: {folder}/run
pool: {{path: {folder}/pool.parquet}}
test: {{path: {folder}/test.parquet, labels: {folder}/test.parquet}}
strategy: margin
budget: {{initial: 10, per_round: 10, total: 30}}
labeller: {{name: oracle, path: {folder}/pool.parquet}}
costs: {{label: 0.5}}
runtime: {{name: local}}
"""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def alray() -> Iterator[Callable[..., Ended]]:
    """Return a function that runs `alray` with the given words."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*words: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            app.main([*words])
        return Ended(ended.value.code, out.getvalue(), err.getvalue())  # type: ignore[arg-type]

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


def write_clouds(path: Path, name: str, rows: int, seed: int) -> None:
    """Write `rows` of each class as `id, features, label`."""
    label_N = np.repeat(np.arange(CLASSES), rows)
    centres_CD = np.random.default_rng(0).normal(size=(CLASSES, DIM)) * 2
    features_ND = centres_CD[label_N] + np.random.default_rng(seed).normal(size=(len(label_N), DIM))
    column = pa.FixedSizeListArray.from_arrays(pa.array(features_ND.astype(np.float16).ravel()), DIM)
    ids = [f"{name}-{i:03d}" for i in range(len(label_N))]
    labels = [f"class-{c}" for c in label_N]
    storage.write_parquet(str(path / f"{name}.parquet"), pa.table({"id": ids, "features": column, "label": labels}))


@pytest.fixture
def campaign(tmp_path: Path) -> str:
    """Return a settings file of three rounds on a features pool, in this process."""
    write_clouds(tmp_path, "pool", 60, 1)
    write_clouds(tmp_path, "test", 20, 2)
    (tmp_path / "campaign.yaml").write_text(SETTINGS.format(folder=tmp_path))
    return str(tmp_path / "campaign.yaml")
