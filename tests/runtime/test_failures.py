"""What a cluster does to a selection, and that nobody notices: `failures.py`, a row at a time, on four real raylets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SAID = {
    "actor killed": "scan: worker lost at shard ",
    "actor stopped": "",  # Ray misses its answers to pings, or another worker outruns it: whichever is first
    "all stopped": "",  # the same, or the deadline: that by itself is tested in test_ray_calls.py
    "straggler": "is late; another worker is asked for it too",
    "out of memory": "scan: out of memory at shard 4; again, in chunks of 1/4",
    "part lost": "reduce: a part was lost with its node; computing the parts again",
    "node removed": "scan: worker lost at shard",
    "node drained": "is about to leave",
}
"""A piece of a line of the log by which alray says what it met."""


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """Break the cluster in every way, and return what was printed."""
    with tempfile.TemporaryDirectory(prefix="alray-") as folder:  # short: Ray's sockets are below it
        command = [sys.executable, str(Path(__file__).with_name("failures.py")), folder]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")}
        ended = subprocess.run(command, capture_output=True, text=True, env=clean, timeout=800)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stderr[-4000:]
    found = [json.loads(line) for line in ended.stdout.splitlines()]  # Ray prints nothing in between
    return {line["row"]: line for line in found}


def test_undisturbed_a_cluster_picks_what_one_process_picks(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["undisturbed"]["digest"] == rows["undisturbed"]["whole"]


@pytest.mark.parametrize("row", SAID)
def test_nothing_changes(row: str, rows: dict[str, dict[str, Any]]) -> None:
    found = rows[row]
    assert found.get("digest") == found["whole"], found
    assert found["what"] and not found["left"]  # it happened, and whoever it happened to is gone
    assert SAID[row] in "\n".join(found["log"]), found["log"]


def test_what_never_fits_is_named_with_its_shard(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["never fits"]["error"].startswith(
        "RuntimeFailure: scan: shard 4 ran out of memory 4 times, at last in chunks of a quarter of their rows: 512 "
        "rows, of which 0 fit. Give each worker more memory: "
    )
