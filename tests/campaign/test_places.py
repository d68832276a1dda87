"""The same campaign on a disk and on S3, in this process and on Ray: the same ledger."""

from __future__ import annotations

import contextlib
import io
import uuid
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from campaigns import settings

from alray import storage
from alray.campaign import run, status, workplace
from alray.campaign.lease import Lease
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import Round
from alray.errors import RunError
from alray.runtime import Runtime


def essence(folder: str) -> list[dict[str, Any]]:
    """Return what must not depend on where or on what a campaign runs."""
    ledger = Ledger(folder)
    records = [Round(ledger, n).json("round.json") for n in range(status(folder).rounds)]
    about = ("picks_digest", "labels", "label_dollars", "accuracy", "config", "sha256")
    out = [{name: record[name] for name in about} for record in records]
    for one in out:  # a label names its request, and a request names its run; the others tell seconds, or places
        for piece in ("labels.parquet", "forecast.json", "cost.json", "metrics.json"):
            del one["sha256"][piece]
    return out


def test_s3_holds_the_same_ledger(data: Path, tmp_path: Path, s3: str) -> None:
    remote = f"{s3}/{uuid.uuid4().hex}/run"
    done = run(settings(data, remote))
    assert (done.state, done.labels) == ("done", 21)
    run(settings(data, tmp_path / "run"))
    assert essence(remote) == essence(str(tmp_path / "run"))
    picks = pq.read_table(io.BytesIO(storage.read_bytes(f"{remote}/rounds/0001/picks.parquet")))
    assert picks.num_rows == 6
    assert run(settings(data, remote)) == done
    with Lease(f"{remote}/lease.json"), pytest.raises(RunError, match="has a driver already"):
        run(settings(data, remote))


@pytest.mark.ray
def test_ray_makes_the_same_ledger(
    data: Path, tmp_path: Path, ray_runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(settings(data, tmp_path / "local", "strategy=alfa_mix"))
    monkeypatch.setattr(workplace, "open_runtime", lambda config: contextlib.nullcontext(ray_runtime))
    done = run(settings(data, tmp_path / "ray", "strategy=alfa_mix", "runtime.name=ray"))
    assert done.state == "done"
    assert essence(str(tmp_path / "ray")) == essence(str(tmp_path / "local"))
