"""What `status` says of a run at any moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from campaigns import settings

from alray.campaign import opening, ready, run, states, status
from alray.campaign.lease import Lease
from alray.campaign.ledger import Ledger
from alray.errors import LedgerError, RunError


def test_no_run_is_said(tmp_path: Path) -> None:
    for ask in (status, ready):
        with pytest.raises(RunError, match=r"There is no run in .*/none: it has no run\.json\. Give the folder"):
            ask(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_the_json_has_what_design_5_names(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    found = json.loads(json.dumps(status(str(tmp_path / "run")).to_dict()))
    assert found["schema"] == 1 and found["state"] == "done"
    assert {"rounds", "labels", "dollars", "accuracy", "per_round"} <= set(found)
    assert all({"round", "labels", "accuracy", "dollars", "seconds"} <= set(row) for row in found["per_round"])
    assert found["accuracy"] == [row["accuracy"] for row in found["per_round"]]
    assert found["labels"] == sum(row["labels"] for row in found["per_round"])


def test_a_live_driver_is_named_and_a_dead_one_is_not(data: Path, tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "run"), guard=lambda: None)
    with Lease(ledger.uri("lease.json")) as lease:
        opened = opening.begin(ledger, settings(data, tmp_path / "run"))
        states.write(ledger, "waiting", opened)
        found = status(ledger.run)
        assert (found.state, found.driver) == ("running", lease.holder.sentence())
        assert not ready(ledger.run)
    found = status(ledger.run)
    assert (found.state, found.driver) == ("waiting", None)


def test_reading_the_status_writes_nothing(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")}
    status(str(tmp_path / "run"))
    ready(str(tmp_path / "run"))
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*")} == before


def test_an_unreadable_state_is_named(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    (tmp_path / "run/state.json").write_text("{")
    with pytest.raises(LedgerError, match=r"state\.json is unreadable"):
        status(str(tmp_path / "run"))
