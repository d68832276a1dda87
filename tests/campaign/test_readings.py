"""What a monitoring system is told of a campaign is what its ledger says, whoever drives it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaigns import ROWS, settings

from alray import gauges, log
from alray.campaign import Status, run
from alray.errors import LabelsError, QuarantineError


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin with numbers that nothing has told yet, as a new driver does."""
    monkeypatch.setattr(gauges, "_values", {})
    yield


def told(run: Path, name: str, **tags: str) -> float | None:
    with log.within(run=str(run)):
        return gauges.value(name, **tags)


def seconds(run: Path) -> dict[str, float]:
    """Return the seconds of each stage in the ledger's cost records."""
    found = Counter[str]()
    for file in (run / "costs").glob("*.json"):
        if not file.name.endswith(".start.json"):
            record = json.loads(file.read_text())
            found[record["stage"]] += record["seconds"]
    return dict(found)


def check(run: Path, now: Status) -> None:
    """Assert that the gauges are what the run's folder says."""
    assert told(run, "alray_labels_bought") == now.labels
    assert told(run, "alray_labels_outstanding") == now.outstanding
    assert told(run, "alray_cost_dollars", kind="labels") == pytest.approx(now.label_dollars)
    assert told(run, "alray_cost_dollars", kind="compute") == pytest.approx(now.compute_dollars)
    assert told(run, "alray_accuracy_ratio") == now.accuracy[-1]
    assert told(run, "alray_round") == now.rounds
    assert [told(run, "alray_state", state=s) for s in ("running", "waiting", "done", "failed")] == [0, 0, 1, 0]
    ledger = seconds(run)
    shown = {name: told(run, "alray_stage_seconds", stage=name) for name in ledger}
    assert {"select", "labels", "fit", "test"} <= ledger.keys() and min(ledger.values()) > 0
    assert shown == pytest.approx(ledger, abs=2e-3)  # a bill is rounded to milliseconds


def test_a_finished_campaign_shows_what_its_ledger_says(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    now = run(settings(data, home))
    assert (now.labels, now.compute_dollars > 0) == (21, True)
    check(home, now)
    assert told(home, "alray_quarantined_rows") == 0


def test_a_driver_that_takes_over_shows_the_same_totals(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "run"
    first = run(settings(data, home, "budget.total=18"))
    monkeypatch.setattr(gauges, "_values", {})
    assert told(home, "alray_labels_bought") is None
    again = run(settings(data, home, "budget.total=18"))
    assert again.labels == first.labels == 18
    check(home, again)
    monkeypatch.setattr(gauges, "_values", {})
    check(home, run(settings(data, home)))


def test_rows_are_counted_as_workers_go_over_them(data: Path, tmp_path: Path) -> None:
    home = tmp_path / "run"
    run(settings(data, home))
    pool = 2 * ROWS
    loaded, selected = (told(home, "alray_rows_scanned", stage=stage) for stage in ("load", "select"))
    assert loaded == pool  # every shard once, for what is unreadable
    assert selected is not None and selected >= 3 * pool and selected % pool == 0  # each round's scan, and its passes


def test_unreadable_rows_are_told_also_where_they_stop_the_run(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "pool-0.parquet")
    rows = table.to_pylist()
    rows[3]["features"][0] = float("nan")
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "pool-0.parquet")
    pq.write_table(pq.read_table(data / "pool-1.parquet"), tmp_path / "pool-1.parquet")
    home = tmp_path / "run"
    with pytest.raises(QuarantineError):
        run(settings(data, home, pool=f"{tmp_path}/pool-*.parquet"))
    assert told(home, "alray_quarantined_rows") == 1
    assert told(home, "alray_state", state="failed") == 1


def test_a_campaign_that_fails_says_so(data: Path, tmp_path: Path) -> None:
    (tmp_path / "short.csv").write_text("id,label\np0-000,class-0\n")
    home = tmp_path / "run"
    with pytest.raises(LabelsError):
        run(settings(data, home, f"labeller.path={tmp_path}/short.csv"))
    assert (told(home, "alray_state", state="failed"), told(home, "alray_state", state="running")) == (1, 0)
    assert told(home, "alray_labels_bought") == 0


def test_after_the_campaign_lines_are_about_nothing(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    assert log.about() == {}
