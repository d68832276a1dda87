"""What a stage costs, also when it crashes or its driver dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from alray.campaign.costs import CostsConfig, Meter, records, settle, summary
from alray.campaign.ledger import Ledger
from alray.runtime import Resources

PRICES = CostsConfig(label=0.5, gpu_hour=3.0, cpu_hour=0.1)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "run"), guard=lambda: None)


def closed(ledger: Ledger, stage: str, seconds: float, *, crashed: bool = False, attempt: int = 1) -> None:
    record = {"schema": 1, "stage": stage, "round": 0, "attempt": attempt, "started": 100.0, "cpus": 2.0, "gpus": 1.0}
    count = len(ledger.files("costs"))
    name = f"costs/a{attempt:04d}-{count:04d}-0000-{stage}.json"
    ledger.commit_json(name, {**record, "seconds": seconds, "crashed": crashed})


def test_seconds_times_what_is_held(ledger: Ledger) -> None:
    closed(ledger, "select", 1800.0)
    closed(ledger, "select", 1800.0, crashed=True)
    closed(ledger, "fit", 3600.0, attempt=2)
    cost = summary(records(ledger, 0), PRICES, labels=4)
    assert cost["stages"]["select"] == {"seconds": 3600, "cpu_seconds": 7200, "gpu_seconds": 3600, "dollars": 3.2}
    assert cost["compute"]["dollars"] == pytest.approx(6.4)
    assert cost["crashed"]["dollars"] == pytest.approx(1.6)
    assert (cost["label_dollars"], cost["dollars"]) == (2.0, pytest.approx(8.4))
    assert cost["attempts"] == 2
    assert len(cost["files"]) == 3


def test_a_stage_is_recorded_whether_it_ends_well_or_not(ledger: Ledger) -> None:
    meter = Meter(ledger, 1, lambda: Resources(cpus=3.0))
    with meter.stage("select", 0):
        pass
    with pytest.raises(KeyError), meter.stage("fit", 0):
        raise KeyError
    found = records(ledger, 0)
    assert [(r["stage"], r["crashed"], r["cpus"]) for r in found.values()] == [("select", False, 3), ("fit", True, 3)]
    assert records(ledger, 1) == {}


def test_a_dead_attempt_is_settled_up_to_its_last_heartbeat(ledger: Ledger) -> None:
    for attempt in (1, 2, 3):
        record = {"schema": 1, "stage": "fit", "round": 0, "attempt": attempt, "started": 100.0, "cpus": 1, "gpus": 0}
        ledger.commit_json(f"costs/a{attempt:04d}-0001-0000-fit.start.json", record)
    settle(ledger, 3, {"1": 107.5})
    settle(ledger, 3, {"1": 107.5})
    assert [(r["seconds"], r["crashed"]) for r in records(ledger, 0).values()] == [(7.5, True), (0.0, True)]
