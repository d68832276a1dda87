"""What `status` says of a run at any moment."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from campaigns import settings

from alray.campaign import opening, ready, run, states, status
from alray.campaign.lease import Lease
from alray.campaign.ledger import Ledger
from alray.campaign.status import SUMS
from alray.errors import LabelsError, LedgerError, RunError


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


def test_machines_have_their_bill_beside_the_labels(data: Path, tmp_path: Path) -> None:
    found = run(settings(data, tmp_path / "run"))
    bill = json.loads((tmp_path / "run/rounds/0001/cost.json").read_text())
    row = found.per_round[1]
    assert row["compute_dollars"] == bill["compute_dollars"] and row["sampling_dollars"] == bill["sampling_dollars"]
    assert row["sampling_seconds"] == pytest.approx(bill["sampling"]["seconds"], abs=2e-3)
    assert 0 < row["sampling_cpu_seconds"] <= bill["compute"]["cpu_seconds"] and row["sampling_gpu_seconds"] == 0
    for name in SUMS:
        assert getattr(found, name) == pytest.approx(sum(row[name] for row in found.per_round), abs=1e-5)
    assert found.dollars == pytest.approx(found.label_dollars + found.compute_dollars, abs=1e-5)
    assert found.per_round[0]["startup_seconds"] >= 0 and found.switches == []


def test_a_run_of_an_older_alray_is_read(data: Path, tmp_path: Path) -> None:
    new = run(settings(data, tmp_path / "run"))
    for path in (tmp_path / "run").glob("rounds/*/*.json"):
        record = json.loads(path.read_text())
        for cost in (record, record.get("cost", {})):
            for name in ("sampling", "startup", "compute_dollars", "sampling_dollars"):
                cost.pop(name, None)
        path.write_text(json.dumps(record))
    old = status(str(tmp_path / "run"))
    for a, b in zip(old.per_round, new.per_round, strict=True):
        assert a == pytest.approx(b, abs=5e-3)


def test_decisions_and_the_last_forecast_are_shown(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    rounds = tmp_path / "run/rounds"
    (rounds / "0001/switch.json").write_text(json.dumps({"schema": 1, "switch": True, "sentence": "Fine-tune now."}))
    for round in (1, 2):
        forecast = {"schema": 1, "sentences": [f"Round {round} says more."]}
        (rounds / f"000{round}/forecast.json").write_text(json.dumps(forecast))
    found = status(str(tmp_path / "run"))
    assert [(one["round"], one["sentence"]) for one in found.switches] == [(1, "Fine-tune now.")]
    assert found.forecast is not None and found.forecast["sentences"] == ["Round 2 says more."]


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


def test_a_labellers_mistake_that_was_put_right_gets_further(data: Path, tmp_path: Path) -> None:
    whole = pq.read_table(settings(data, tmp_path / "run").labeller.path)
    path, uri = tmp_path / "oracle.parquet", str(tmp_path / "run")
    shutil.copy(settings(data, uri).labeller.path, path)
    config = settings(data, uri, labeller={"name": "oracle", "path": str(path)})
    run(config, after_round=lambda number: False)
    pq.write_table(whole.slice(0, 1), path)
    with pytest.raises(LabelsError, match="has no label for"):
        run(config)
    assert status(uri).state == "failed" and not ready(uri)
    pq.write_table(whole, path)
    assert ready(uri)
    assert run(config).state == "done" and not ready(uri)


def test_another_drivers_state_is_not_replaced(data: Path, tmp_path: Path) -> None:
    """The guard of a driver that slept passes; then its successor writes; then it wakes up and writes."""
    run(settings(data, tmp_path / "run"))
    file, theirs = tmp_path / "run/state.json", json.dumps({"schema": 1, "state": "done", "message": "theirs"})
    opened = opening.Opened("", "config.yaml")
    calls = []

    def guard() -> None:
        calls.append(1)
        if len(calls) > 1:
            raise RunError("lost")
        file.write_text(theirs)

    with pytest.raises(RunError, match="lost"):
        states.write(Ledger(str(tmp_path / "run"), guard=guard), "running", opened)
    assert file.read_text() == theirs


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


@pytest.mark.parametrize("wrong", [{"state": "banana"}, {"schema": 2}], ids=str)
def test_a_state_that_is_none_is_refused(data: Path, tmp_path: Path, wrong: dict[str, object]) -> None:
    run(settings(data, tmp_path / "run"))
    file = tmp_path / "run/state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | wrong))
    with pytest.raises(LedgerError, match=r"state\.json is unreadable \(schema \d, state '\w+'\)"):
        ready(str(tmp_path / "run"))  # or a scheduler would run what is done
