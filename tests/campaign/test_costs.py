"""What a stage costs, also when it crashes or its driver dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from alray.campaign.costs import (
    SAMPLING,
    STARTUP,
    CostsConfig,
    Meter,
    committed_dollars,
    part,
    records,
    settle,
    summary,
)
from alray.campaign.ledger import Ledger
from alray.labelling import Ask, Labels
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


def test_sampling_and_start_up_are_added_up_apart(ledger: Ledger) -> None:
    every = ("workers", "pretrain", "features", "load", "select", "labels", "evidence", "align", "fit", "train", "test")
    for place, stage in enumerate(every):
        closed(ledger, stage, 3600.0 * 2**place)
    cost = summary(records(ledger, 0), PRICES, labels=0)
    chooses = sum(2 ** every.index(stage) for stage in ("features", "load", "select", "evidence", "align", "fit"))
    hours = {"cpu_seconds": 2 * 3600.0 * chooses, "gpu_seconds": 3600.0 * chooses}
    assert cost["sampling"] == {"seconds": 3600.0 * chooses, **hours, "dollars": pytest.approx(3.2 * chooses)}
    assert cost["sampling_dollars"] == cost["sampling"]["dollars"]
    assert cost["startup"]["seconds"] == 3600.0
    assert cost["compute_dollars"] == cost["dollars"] == cost["compute"]["dollars"] == pytest.approx(3.2 * 2047)
    assert part(cost, SAMPLING).to_dict() == cost["sampling"] and part(cost, STARTUP).to_dict() == cost["startup"]


def test_the_price_of_answers_replaces_the_price_of_a_label(ledger: Ledger) -> None:
    closed(ledger, "select", 3600.0)
    cost = summary(records(ledger, 0), PRICES, labels=4, label_dollars=17.0)
    assert (cost["labels"], cost["label_dollars"], cost["dollars"]) == (4, 17.0, pytest.approx(20.2))


def test_what_is_asked_for_is_set_aside_at_the_dearest_price(ledger: Ledger) -> None:
    ledger.commit_json("run.json", {"schema": 1, "name": "r"})
    prices = CostsConfig(label=1.0, classes={"a": 5.0, "b": 0.25})
    bills = [{"labels": 2, "label_dollars": 0.75}]  # at what was charged then
    asks = [Ask("r", 0, i) for i in "xy"], [Ask("r", 1, i) for i in "klmn"]
    for some in asks:
        ledger.commit_asks(some)
    said = {"x": "a", "y": "a", "k": "b", "l": "c"}
    for round, some in enumerate(asks):
        rows = [{"id": a.id, "request_id": a.request_id, "label": said[a.id]} for a in some if a.id in said]
        ledger.commit_answers(round, Labels.of(rows))
    assert committed_dollars(ledger, bills, prices) == pytest.approx(0.75 + 0.25 + 1.0 + 2 * 5.0)
    assert committed_dollars(ledger, [], prices) == pytest.approx(2 * 5.0 + 4 * 5.0)


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
