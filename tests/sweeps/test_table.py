"""A sweep's results as text: the same numbers in each form, and nothing in them that a program would run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from alray.campaign import Status
from alray.sweeps import table
from alray.sweeps.grid import Trial, expand
from alray.sweeps.outcome import Outcome, Result, state_of
from alray.sweeps.settings import COLUMNS, Sweep

Made = Callable[..., Sweep]


def status(state: str, *rows: tuple[int, float, float]) -> Status:
    """Return how a run with these (labels so far, accuracy, dollars of the round) stands."""
    per_round = [
        {"round": n, "labels": 0, "labels_so_far": labels, "accuracy": accuracy, "dollars": dollars, "seconds": 2.0}
        for n, (labels, accuracy, dollars) in enumerate(rows)
    ]
    told: Any = {"run": "r", "state": state, "rounds": len(rows), "labels": 0, "dollars": 0.0, "label_dollars": 0.0}
    return Status(**told, accuracy=[], per_round=per_round)


def outcome(trials: list[Trial], found: Mapping[int, Status], error: str = "") -> Outcome:
    """Return the outcome of these trials; the last one failed with `error`, if there is one."""
    results = []
    for n, one in enumerate(trials):
        said = error if n == len(trials) - 1 else ""
        results.append(Result(one, state_of(found.get(n), False, said), found.get(n), said))
    return Outcome("home", results, {"pretrain": 12.34, "features": 5.0})


@pytest.fixture
def one(sweep: Made, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Return two configurations with two seeds: the second of the one was not begun, that of the other failed."""
    monkeypatch.setattr(Outcome, "wins", lambda outcome: None)  # there are no runs to read
    done = status("done", (12, 0.5, 1.2), (18, 0.7, 0.6))
    other = status("done", (12, 0.6, 1.2), (18, 0.6, 0.6))
    return outcome(expand(sweep()), {0: done, 1: other, 2: other}, "a|b\n=c")


def test_a_row_a_trial(one: Outcome) -> None:
    rows = list(csv.DictReader(io.StringIO(table.to_csv(one))))
    assert [row["state"] for row in rows] == ["done", "done", "done", "failed"]
    assert (rows[0]["labels"], rows[0]["accuracy"], rows[0]["dollars"], rows[0]["seconds"]) == (
        "18",
        "0.7",
        "1.8",
        "4.0",
    )
    assert (rows[3]["labels"], rows[3]["accuracy"], rows[3]["error"]) == ("0", "", "a|b\n=c")
    assert table.columns(one) == list(rows[0])


def test_no_key_of_a_grid_can_be_taken_for_a_column(one: Outcome) -> None:
    own = set(table.columns(one)) - set(one.results[0].trial.varied) - {"seed"}
    assert own == set(COLUMNS)


def test_means_over_seeds(one: Outcome) -> None:
    head, body = table.summary(one)
    assert head == ["configuration", "seeds", "done", "labels", "accuracy", "± std", "dollars"]
    assert body == [["random", "2", "2", "18", "0.6500", "0.0707", "1.80"], ["margin", "2", "1", "–", "–", "–", "–"]]


def test_markdown_holds_its_tables_together(one: Outcome) -> None:
    text = table.markdown(one, None)
    assert "a\\|b =c" in text
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines and lines[0].startswith("|"):
            bars = {line.replace("\\|", "").count("|") for line in lines}
            assert len(bars) == 1, block
    assert "pre-training 12.3 s, features 5.0 s" in text
    assert "No configuration can be called the best" in text


def test_json_has_what_the_others_show(one: Outcome) -> None:
    found = table.to_json(one, None)
    assert found["schema"] == 1 and [row["state"] for row in found["trials"]] == ["done", "done", "done", "failed"]
    assert [p["accuracy"] for p in found["configurations"][0]["curve"]] == pytest.approx([0.55, 0.65])
    assert [p["labels"] for p in found["front"]] == [12, 18] and found["best"] is None


@pytest.mark.parametrize("value", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1"])
def test_no_cell_is_a_formula(sweep: Made, value: str) -> None:
    trials = expand(sweep())
    hostile = [Trial(value, value, {value: value}, 0, one.settings) for one in trials]
    rows = list(csv.reader(io.StringIO(table.to_csv(outcome(hostile, {}, value)))))
    assert rows[0][1] == rows[1][0] == rows[1][1] == rows[-1][-1] == f"'{value}".replace("\r", " ")


@pytest.mark.parametrize(
    ("state", "stopped", "error", "said"),
    [
        ("done", True, "late", "done"),  # it had nothing left to do when it was stopped
        ("running", True, "", "stopped"),
        ("running", False, "lost", "failed"),
        ("failed", False, "why", "failed"),
        ("waiting", False, "", "waiting"),
        ("running", False, "", "cut"),
        (None, False, "", "not begun"),
        (None, False, "refused", "failed"),
    ],
)
def test_how_a_trial_stands(state: str | None, stopped: bool, error: str, said: str) -> None:
    assert state_of(None if state is None else status(state), stopped, error) == said
