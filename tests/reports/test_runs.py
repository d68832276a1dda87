"""Runs are found by folder, glob and parent; a curve is over labels paid for, its hours until they were asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from campaigns import parse, picture_settings, settings, write_pictures, write_pool

from alray import campaign
from alray.errors import RunError
from alray.reports.groups import group
from alray.reports.report import report
from alray.reports.runs import choosing, find, halves, read


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a pool and run two small campaigns on it."""
    folder = tmp_path_factory.mktemp("runs-data")
    write_pool(folder)
    for strategy in ("margin", "random"):
        campaign.run(settings(folder, folder / f"runs/{strategy}", f"strategy={strategy}"))
    return folder


def stages(data: Path, run: str, number: int) -> dict[str, float]:
    """Return the seconds of each stage of a round, as the ledger has them."""
    return stages_of(data / "runs" / run, number)


def stages_of(run: Path, number: int) -> dict[str, float]:
    files = (run / "costs").glob("*.json")
    every = [json.loads(file.read_text()) for file in files if not file.name.endswith(".start.json")]
    ended = [record for record in every if record["round"] == number]
    return {name: sum(r["seconds"] for r in ended if r["stage"] == name) for name in {r["stage"] for r in ended}}


def test_runs_are_found_once_however_they_are_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = [str(data / "runs/margin"), str(data / "runs/random")]
    assert find([str(data / "runs")]) == find([str(data / "runs/*")]) == find([*both, str(data / "runs")]) == both
    monkeypatch.chdir(data)
    assert find(["runs/mar*", "runs/margin", "./runs/margin/"]) == both[:1]


@pytest.mark.parametrize("word", [".", "none", "none*", "runs/margin/rounds"])
def test_where_no_run_is_it_is_said(data: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.chdir(data)
    with pytest.raises(RunError, match=r"There is no run in .*, nor in a folder of it: none has a run.json"):
        find([word])
    with pytest.raises(RunError, match=r"There is no run in none: it has no settings"):
        read("none")


def test_a_run_as_its_folder_tells_it(data: Path) -> None:
    run, status = read(str(data / "runs/margin")), campaign.status(str(data / "runs/margin"))
    assert run.curve.labels_P.tolist() == [row["labels_so_far"] for row in status.per_round] == [12, 18, 21]
    assert run.curve.accuracy_P.tolist() == status.accuracy
    assert (run.labels, run.label_dollars, run.state) == (21, pytest.approx(2.1), "done")
    assert (run.seed, run.key[:2]) == (0, ("svpp", "margin"))
    assert (run.prices.label, run.prices.cpu_hour) == (0.1, 1.0)
    assert run.total.wall * 3600 == pytest.approx(sum(row["seconds"] for row in status.per_round), abs=0.01)


def test_the_hours_of_a_budget_end_where_its_labels_are_asked_for(data: Path) -> None:
    first, second, third = (stages(data, "margin", number) for number in range(3))
    spent = sum(first.get(name, 0) for name in ("features", "load", "select"))
    expected = [spent]
    for before, after in ((first, second), (second, third)):  # in this process nothing is loaded twice
        spent += sum(before.get(name, 0) for name in ("evidence", "align", "fit"))
        spent += sum(after.get(name, 0) for name in ("features", "load", "select"))
        expected.append(spent)
    found = read(str(data / "runs/margin")).curve.hours_P3[:, 0] * 3600
    assert found.tolist() == pytest.approx(expected, abs=1e-9)


def test_what_comes_before_the_labels_serves_this_choice_and_the_rest_the_next() -> None:
    def names(order: str) -> tuple[str, str]:
        parts = halves([{"stage": stage} for stage in order.split()])
        return " ".join(r["stage"] for r in parts[0]), " ".join(r["stage"] for r in parts[1])

    # standard embeds the pool before it selects; an alignment does after the labels that it was trained on
    assert names("features load select labels align") == ("features load select", "labels align")
    assert names("select labels evidence align features fit") == ("select", "labels evidence align features fit")
    assert names("select workers select labels workers labels fit") == (
        "select workers select",
        "labels workers labels fit",
    )
    assert names("fit test") == ("", "fit test")  # a round without labels of its own
    assert choosing("random") == ("select",) and "align" in choosing("margin") and "train" not in choosing("margin")


def test_sampling_is_what_the_status_says_but_for_the_last_rounds_fit(data: Path) -> None:
    rows = campaign.status(str(data / "runs/margin")).per_round
    if "sampling_seconds" not in rows[0]:
        pytest.skip("this status does not tell sampling apart")
    spent = sum(row["sampling_seconds"] for row in rows) - stages(data, "margin", 2).get("fit", 0)
    assert read(str(data / "runs/margin")).curve.hours_P3[-1, 0] * 3600 == pytest.approx(spent, abs=0.005)


def test_a_random_draw_is_charged_for_its_draw_alone(data: Path) -> None:
    drawn = [stages(data, "random", number)["select"] for number in range(3)]
    found = read(str(data / "runs/random")).curve.hours_P3[:, 0] * 3600
    assert found.tolist() == pytest.approx([sum(drawn[: n + 1]) for n in range(3)], abs=1e-9)


def test_dollars_are_those_of_the_labels_that_each_round_got(data: Path, tmp_path: Path) -> None:
    prices = {"label": 0.1, "classes": {"class-1": 2.0}, "cpu_hour": 1.0}
    campaign.run(settings(data, tmp_path / "run", costs=prices))
    parts = [pq.read_table(file) for file in sorted((tmp_path / "run/rounds").glob("*/labels.parquet"))]
    bills = [sum(2.0 if label == "class-1" else 0.1 for label in part["label"].to_pylist()) for part in parts]
    run = read(str(tmp_path / "run"))
    assert run.curve.paid_P.tolist() == pytest.approx(bills)  # of all labels up to that round
    assert run.label_dollars == pytest.approx(bills[-1]) and bills[-1] > 0.1 * run.labels
    found = report(group([run]), target=run.curve.best)
    labels = found.targets[0].labels.value
    assert labels is not None and found.prices.as_paid
    assert found.targets[0].label_dollars == pytest.approx(run.curve.paid_at(labels))
    assert [read(str(data / "runs/margin")).curve.paid_P.tolist()] == [pytest.approx([1.2, 1.8, 2.1])]


def test_the_first_features_are_hours_of_a_regime_that_selects_on_them(tmp_path: Path) -> None:
    write_pictures(tmp_path)
    for regime in ("svpp", "standard"):
        told = picture_settings(tmp_path, tmp_path / regime).model_dump(mode="json")
        recipe = {"name": "fine_tune", "epochs": 1}
        campaign.run(parse({**told, "regime": regime, "training": {"when": "every", "recipe": recipe}}))
    for regime, needed in (("svpp", ("features", "load", "select")), ("standard", ("select",))):
        took = stages_of(tmp_path / regime, 0)
        assert took["features"] > 0
        expected = sum(took.get(name, 0) for name in needed)
        assert read(str(tmp_path / regime)).curve.hours_P3[0, 0] * 3600 == pytest.approx(expected, abs=1e-9)


def test_a_run_without_test_rows_is_refused_with_the_reason(data: Path, tmp_path: Path) -> None:
    campaign.run(settings(data, tmp_path / "run", "budget.total=12", test=None))
    with pytest.raises(RunError, match="has no test rows, so its accuracy was not measured"):
        read(str(tmp_path / "run"))


def test_a_run_without_a_finished_round_is_refused(data: Path, tmp_path: Path) -> None:
    campaign.run(settings(data, tmp_path / "run", "budget.total=12"))
    (tmp_path / "run/rounds/0000/round.json").unlink()
    with pytest.raises(RunError, match=r"has no finished round yet. Run it on, or leave it out"):
        read(str(tmp_path / "run"))


def test_reading_writes_nothing(data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (data / "runs").rglob("*")}
    read(str(data / "runs/margin"))
    assert {path: path.stat().st_mtime_ns for path in (data / "runs").rglob("*")} == before
