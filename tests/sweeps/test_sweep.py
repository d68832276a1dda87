"""A sweep in this process, from end to end: its results, what is run again and what is not, and what it refuses."""

from __future__ import annotations

import csv
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import campaigns
import pyarrow.parquet as pq
import pytest

import alray
from alray import campaign, sweeps
from alray.errors import ConfigError, LedgerError, RunError
from alray.sweeps import folder, trial
from alray.sweeps.grid import expand
from alray.sweeps.settings import Sweep

Made = Callable[..., Sweep]

pytestmark = pytest.mark.usefixtures("quick_disk")


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that gets the name of each trial that is driven."""
    driven: list[str] = []
    drive = trial.drive

    def watched(given: trial.Payload, report: Callable[[trial.Report], bool]) -> None:
        driven.append(given.settings["run"].rsplit("/", 1)[1])
        drive(given, report)

    monkeypatch.setattr(trial, "drive", watched)
    return driven


def test_a_sweep_from_end_to_end(sweep: Made, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, driven = sweep("sweep.best.target=0.5"), watch(monkeypatch)
    found = sweeps.run(told)
    assert driven == [t.name for t in expand(told)] and len(driven) == 4
    home = Path(told.home)
    names = {"table.csv", "table.md", "table.json", "curves.svg", "pareto.svg", "wins.svg", "best.yaml"}
    assert {Path(file).name for file in found.files} == names
    for name in names:
        assert (home / name).exists()
        if name.endswith(".svg"):
            ElementTree.fromstring((home / name).read_text())

    rows = list(csv.DictReader((home / "table.csv").open()))
    for row, one in zip(rows, expand(told), strict=True):
        status = campaign.status(one.settings.run)
        assert (row["trial"], row["strategy.name"], row["seed"]) == (
            one.name,
            one.varied["strategy.name"],
            str(one.seed),
        )
        assert (row["state"], row["rounds"], row["labels"], row["error"]) == ("done", "3", "21", "")
        assert float(row["accuracy"]) == status.accuracy[-1] and float(row["dollars"]) == pytest.approx(status.dollars)

    stored = json.loads((home / "table.json").read_text())
    for one in stored["configurations"]:
        runs = [campaign.status(t.settings.run).per_round for t in expand(told) if t.configuration == one["name"]]
        assert [p["labels"] for p in one["curve"]] == [12, 18, 21]
        for n, at in enumerate(one["curve"]):
            assert at["accuracy"] == pytest.approx(sum(run[n]["accuracy"] for run in runs) / 2)
    assert stored["wins"]["configurations"] == ["margin", "random"] and stored["best"]["rule"].startswith(
        "lowest mean cost"
    )

    ready = alray.load(str(home / "best.yaml"))
    best = next(t for t in expand(told) if t.configuration == stored["best"]["configuration"])
    assert ready.run == f"{told.config.folder}/best" and not Path(ready.run).exists()
    assert (ready.strategy, ready.seed, ready.budget.total) == (best.settings.strategy, 0, stored["best"]["labels"])
    assert "flattering" in (home / "best.yaml").read_text().split("run:")[0]
    assert alray.run(ready).state == "done"


def test_a_trial_is_the_campaign_that_it_would_be_alone(sweep: Made, data: Path, tmp_path: Path) -> None:
    told = sweep("sweep.seeds=[3]", "sweep.grid={strategy.name: [margin]}")
    sweeps.run(told)
    [one] = expand(told)
    campaign.run(one.settings.model_copy(update={"run": str(tmp_path / "alone")}))
    assert campaigns.ledger(Path(one.settings.run)) == campaigns.ledger(tmp_path / "alone")


def test_the_same_command_runs_what_is_not_finished(
    sweep: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = sweep()
    finished, fresh, cut, behind = expand(told)
    assert [t.configuration for t in (finished, fresh, cut, behind)] == ["random", "margin", "random", "margin"]
    campaign.run(cut.settings.model_copy(update={"run": str(tmp_path / "alone")}))
    campaign.run(finished.settings)
    campaign.run(cut.settings, after_round=lambda number: number < 1)
    campaign.run(behind.settings, after_round=lambda number: False)
    assert [campaign.status(t.settings.run).rounds for t in (finished, cut, behind)] == [3, 2, 1]
    folder.stop(told.home, behind.name, {"labels_used": 12, "accuracy": 0.1})
    driven = watch(monkeypatch)
    found = sweeps.run(told)
    assert driven == [fresh.name, cut.name]
    assert [r.state for r in found.outcome.results] == ["done", "done", "done", "stopped"]
    assert campaigns.ledger(Path(cut.settings.run)) == campaigns.ledger(tmp_path / "alone")

    # A seed that was stopped is no part of a mean after that, and its configuration is never the best.
    random, margin = found.outcome.configurations
    assert not margin.done and [p.labels for p in margin.points] == [12]
    assert random.done and [p.labels for p in random.points] == [12, 18, 21]
    assert found.best is not None and found.best.configuration.name == "random"
    assert found.outcome.wins() is None  # one configuration alone has nobody to beat

    driven.clear()
    sweeps.run(told)
    assert not driven


def test_a_trial_that_fails_stops_no_other(sweep: Made, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = (
        "sweep.grid={strategy: {margin: {strategy.name: margin}, isal: {strategy: {name: isal, params: all_weights}}}}"
    )
    found = sweeps.run(sweep(grid, "sweep.seeds=1"))
    assert [r.state for r in found.outcome.results] == ["done", "failed"]
    [failed] = found.outcome.failed
    assert "isal" in failed.error and "pictures" in failed.error
    assert found.best is not None and found.best.configuration.name == "margin"
    again = sweeps.run(sweep(grid, "sweep.seeds=1"))  # it is tried again: its cause may be gone
    assert again.outcome.failed == [failed]

    def broken(given: trial.Payload, report: object) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(trial, "drive", broken)
    other = sweeps.run(sweep(f"sweep.folder={sweep().home}-2"))
    assert {r.error for r in other.outcome.failed} == {"ZeroDivisionError: a fault of ours"}
    assert {r.state for r in other.outcome.results} == {"failed"} and other.best is None


def test_what_a_folder_keeps_and_nobody_can_read_is_named(sweep: Made) -> None:
    folder.keep(sweep())
    kept = Path(sweep().home) / "sweep.yaml"
    for garbled in (b"\xff\xfe", b"schema: [", b"1", b""):
        kept.write_bytes(garbled)
        with pytest.raises(LedgerError, match=rf"^{kept} is not readable as what alray wrote [\s\S]*Restore it"):
            folder.keep(sweep())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep.seeds=3"], "`sweep.seeds`: was [0, 1], is now [0, 1, 2]"),
        (
            ["sweep.grid={strategy.name: [random]}"],
            "`sweep.grid.strategy.name`: was ['random', 'margin'], is now ['random']",
        ),
        (["campaign.head.l2=2.0"], "`campaign.head`: was None, is now {'l2': 2.0}"),
        (["campaign.budget.total=30"], "`campaign.budget.total`: was 21, is now 30"),
    ],
)
def test_a_folder_keeps_its_sweep(sweep: Made, words: list[str], said: str) -> None:
    folder.keep(sweep())
    folder.keep(sweep("sweep.concurrency=2", "sweep.best.target=0.9", "campaign.runtime.workers=5", "campaign.seed=4"))
    with pytest.raises(RunError) as refused:
        folder.keep(sweep(*words))
    lines = str(refused.value).splitlines()
    assert lines[0].startswith(f"The sweep {sweep().home} was begun with other settings") and lines[1:-1] == [
        f"  {said}"
    ]
    assert lines[-1].startswith("Set them back, or name a new folder in `sweep.folder`.")


def test_the_order_of_a_grid_is_part_of_it(sweep: Made) -> None:
    grids = ["{strategy.name: [margin], head.l2: [1]}", "{head.l2: [1], strategy.name: [margin]}"]
    folder.keep(sweep(f"sweep.grid={grids[0]}"))
    with pytest.raises(RunError, match=r"`sweep\.grid`: was"):
        folder.keep(sweep(f"sweep.grid={grids[1]}"))


def test_two_drivers_on_one_sweep_are_refused(sweep: Made) -> None:
    told = sweep()
    with (
        campaign.lease.Lease(f"{told.home}/lease.json"),
        pytest.raises(RunError, match=r"has a driver already: pid \d+"),
    ):
        sweeps.run(told)


def test_a_trial_waits_for_the_driver_of_a_killed_sweep(sweep: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    [one, *_] = expand(sweep())
    lease = campaign.lease.Lease(f"{one.settings.run}/lease.json")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            lease.__exit__(None, None, None)

    lease.__enter__()
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", sleep)
        trial.drive(trial.payload(one.settings), lambda report: False)
    assert len(waited) == 3 and campaign.status(one.settings.run).rounds == 1


def test_a_trial_reports_every_round_and_ends_when_it_is_told_to(sweep: Made) -> None:
    one, two, *_ = expand(sweep())
    seen: list[trial.Report] = []
    here = os.getcwd()
    trial.drive(trial.payload(one.settings), lambda report: seen.append(report) or True)
    assert [(r["round"], r["labels_used"]) for r in seen] == [(0, 12), (1, 18), (2, 21)]
    assert seen == trial.reports(campaign.status(one.settings.run)) and os.getcwd() == here
    assert [r["accuracy"] for r in seen] == campaign.status(one.settings.run).accuracy
    trial.drive(trial.payload(two.settings), lambda report: report["round"] < 1)
    status = campaign.status(two.settings.run)
    assert (status.state, status.rounds) == ("running", 2) and "told to stop after round 1" in status.message
    assert campaign.ready(two.settings.run)
    trial.drive(trial.payload(two.settings), lambda report: False)  # the last round: nothing would follow
    assert campaign.status(two.settings.run).state == "done"


def test_features_are_made_once_and_by_no_trial(data: Path, tmp_path: Path) -> None:
    settings = campaigns.regime_settings(data, tmp_path / "never").model_dump(mode="json")
    settings |= {
        "features": {**settings["features"], "path": None},
        "regime": "svpp",
        "training": {},
        "strategy": "margin",
    }
    grid = {"strategy.name": ["random", "margin"]}
    raw = {"sweep": {"folder": str(tmp_path / "s"), "grid": grid, "seeds": 2, "runtime": "local"}, "campaign": settings}
    told = sweeps.settings.read(raw, source="pictures.yaml")
    found = sweeps.run(told)
    assert {r.state for r in found.outcome.results} == {"done"}
    made = list((tmp_path / "s/features").rglob("*.arrow"))
    assert len([f for f in made if f.parent.name != "parts"]) == 2  # one shard of the pool, one of the test rows
    versions = set()
    for one in expand(told):
        run = Path(one.settings.run)
        versions.add(json.loads((run / "rounds/0000/round.json").read_text())["features"])
        stages = {json.loads(f.read_text())["stage"] for f in (run / "costs").glob("*.json")}
        assert "pretrain" not in stages and not (run / "pretrained.json").exists()
    assert len(versions) == 1
    shared = json.loads((tmp_path / "s/shared.json").read_text())
    assert shared["pretrain"] > 0 and shared["features"] > 0
    stamps = {f: f.stat().st_mtime_ns for f in (tmp_path / "s/features").rglob("*") if f.is_file()}
    ready = alray.load(str(tmp_path / "s/best.yaml"))
    alray.run(ready)  # it finds what the sweep has made
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps
    assert pq.read_table(tmp_path / "s/best/rounds/0001/picks.parquet").num_rows == 6


def test_a_pool_of_pictures_is_embedded_once_for_each_backbone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    build = sweeps.prepare.build
    monkeypatch.setattr(sweeps.prepare, "build", lambda pool, *a, **k: built.append(pool.rows) or build(pool, *a, **k))
    settings = campaigns.picture_settings(data, tmp_path / "never").model_dump(mode="json") | {"training": {}}
    raw = {"sweep": {"folder": str(tmp_path / "s"), "seeds": 2, "runtime": "local"}, "campaign": settings}
    told = sweeps.settings.read(raw, source="pictures.yaml")
    prepared = sweeps.prepare.Shared(0, expand(told)[0].settings.runtime).trials(expand(told))
    assert built == [60, 20, 60, 20]  # without weights each seed draws a network of its own
    assert [t.settings.features for t in prepared] == [t.settings.features for t in expand(told)]


def test_a_sweep_that_was_replaced_runs_and_writes_nothing_more(
    sweep: Made, quick_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = sweep("sweep.seeds=1")
    uri, drive = Path(told.home) / "lease.json", trial.drive

    def evicted(given: trial.Payload, report: object) -> None:
        drive(given, report)  # type: ignore[arg-type]
        held = json.loads(uri.read_text())
        uri.write_text(json.dumps({**held, "fence": held["fence"] + 1, "place": "elsewhere"}))

    monkeypatch.setattr(trial, "drive", evicted)
    with pytest.raises(RunError, match="has lost the run"):
        sweeps.run(told)
    assert len(list(Path(told.home).glob("runs/*/run.json"))) == 1 and not (Path(told.home) / "table.csv").exists()


def test_the_folder_of_a_run_is_no_sweeps(sweep: Made) -> None:
    told = sweep()
    Path(told.home).mkdir()
    (Path(told.home) / "run.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"`sweep\.folder` '.*' is a run's own folder\. Give the sweep another"):
        sweeps.run(told)
    assert [file.name for file in Path(told.home).iterdir()] == ["run.json"]
