"""Numbers of a run reach every sink, with few tags; outside of a run nothing is told."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from alray import gauges, log
from alray.gauges import METRICS, Metric


class Notes:
    """A sink that keeps what it was told."""

    def __init__(self) -> None:
        self.shown: dict[tuple[str, ...], float] = {}
        self.counted: list[tuple[str, float, dict[str, str]]] = []

    def show(self, metric: Metric, value: float, tags: dict[str, str]) -> None:
        assert tuple(tags) == metric.keys
        self.shown[metric.name, *tags.values()] = value

    def count(self, metric: Metric, amount: float, tags: dict[str, str]) -> None:
        self.counted.append((metric.name, amount, tags))


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    """Attach a sink to numbers that nothing has told yet."""
    monkeypatch.setattr(gauges, "_values", {})
    monkeypatch.setattr(gauges, "_sinks", [])
    sink = Notes()
    gauges.attach(sink)
    yield sink


def test_names_follow_prometheus() -> None:
    for metric in METRICS.values():
        assert re.fullmatch(r"alray_[a-z]+(_[a-z]+)*", metric.name)
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))  # Prometheus' own endings
        assert metric.keys[0] == "run" and set(metric.tags) <= {"stage", "state", "kind"}
        assert metric.about.endswith(".") and len(metric.about) < 90


def test_tags_are_those_of_the_work_at_hand(notes: Notes) -> None:
    with log.within(run="runs/a", round=3, stage="select", shard=9):
        gauges.show("alray_labels_bought", 60)
        gauges.count("alray_rows_scanned", 100)
        gauges.show("alray_stage_seconds", 1.5, stage="fit")
    assert notes.shown == {("alray_labels_bought", "runs/a"): 60, ("alray_stage_seconds", "runs/a", "fit"): 1.5}
    assert notes.counted == [("alray_rows_scanned", 100.0, {"run": "runs/a", "stage": "select"})]


def test_outside_of_a_run_nothing_is_told(notes: Notes) -> None:
    gauges.show("alray_labels_bought", 60)
    gauges.count("alray_rows_scanned", 100)
    assert not notes.shown and not notes.counted
    assert gauges.value("alray_labels_bought") is None


def test_a_gauge_grows_and_a_counter_adds_up(notes: Notes) -> None:
    with log.within(run="runs/a", stage="fit"):
        gauges.add("alray_stage_seconds", 1.5)
        gauges.add("alray_stage_seconds", 2.0)
        gauges.count("alray_actor_restarts")
        gauges.count("alray_actor_restarts")
        gauges.count("alray_rows_scanned", 0)
        assert gauges.value("alray_stage_seconds") == 3.5 and gauges.value("alray_actor_restarts") == 2
    assert notes.shown["alray_stage_seconds", "runs/a", "fit"] == 3.5
    assert [amount for _, amount, _ in notes.counted] == [1.0, 1.0]  # and nothing that has not grown


def test_one_state_holds(notes: Notes) -> None:
    with log.within(run="runs/a"):
        gauges.show_one_of("alray_state", "state", ("running", "done"), "running")
        gauges.show_one_of("alray_state", "state", ("running", "done"), "done")
    assert notes.shown == {("alray_state", "runs/a", "running"): 0, ("alray_state", "runs/a", "done"): 1}


def test_a_sink_that_comes_late_hears_where_gauges_stand_and_no_counter_twice(notes: Notes) -> None:
    with log.within(run="runs/a", stage="select"):
        gauges.show("alray_labels_bought", 60)
        gauges.count("alray_rows_scanned", 100)
        late = Notes()
        gauges.attach(late)
        assert late.shown == {("alray_labels_bought", "runs/a"): 60} and not late.counted
        gauges.detach(late)
        gauges.show("alray_labels_bought", 70)
    assert late.shown == {("alray_labels_bought", "runs/a"): 60}
    assert notes.shown == {("alray_labels_bought", "runs/a"): 70}


def test_a_name_that_is_none_of_them_is_refused(notes: Notes) -> None:
    with pytest.raises(KeyError, match="alray_labels"), log.within(run="runs/a"):
        gauges.show("alray_labels", 1)
