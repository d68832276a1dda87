"""What `alray status` prints: a table that fits a terminal, decisions, and what more labels would buy."""

from __future__ import annotations

from typing import Any

import pytest

from alray.campaign import Status
from alray.cli.status import print_rounds


def row(number: int, **more: Any) -> dict[str, Any]:
    """Return a round as large as its numbers get."""
    return {
        "round": number,
        "labels": 160_000,
        "labels_so_far": 160_000 * (number + 1),
        "accuracy": 0.7512,
        "sampling_seconds": 193_212.34,
        "seconds": 1_193_212.34,
        "label_dollars": 8_591.0,
        "compute_dollars": 161.014,
        "dollars": 8_752.014,
        **more,
    }


def status(rounds: int, **more: Any) -> Status:
    totals = {"label_dollars": 17_182.0, "compute_dollars": 322.028, "sampling_seconds": 386_424.68}
    rows = [row(number) for number in range(rounds)]
    return Status("r", "done", rounds, 160_000 * rounds, 17_504.028, accuracy=[], per_round=rows, **totals, **more)


def test_the_bill_stands_beside_the_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    print_rounds(status(2))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert max(map(len, lines)) <= 120
    heads = lines[0].split("  ")
    assert [head.strip() for head in heads if head.strip()] == (
        ["round", "new", "labels", "accuracy", "sampling s", "seconds", "label $", "compute $", "dollars"]
    )
    paid = ["193,212.3", "1,193,212.3", "8,591.00", "161.01", "8,752.01"]
    assert lines[3].split() == ["1", "160,000", "320,000", "0.7512", *paid]
    assert lines[4].split() == ["total", "320,000", "386,424.7", "2,386,424.7", "17,182.00", "322.03", "17,504.03"]
    assert lines[5] == "done: the budget is spent, or a stopping rule was met."


def test_decisions_and_forecast_stand_below(capsys: pytest.CaptureFixture[str]) -> None:
    switches: list[dict[str, Any]] = [
        {"round": 2, "sentence": "Not yet."},
        {"round": 3, "sentence": "Fine-tune and re-embed now.", "came_of_it": "Features updated."},
        {"round": 4, "sentence": "The features stay: done once.", "refusal": "done once"},
    ]
    print_rounds(status(1, switches=switches, forecast={"sentences": ["40 more buy 1 %.", "The target is far."]}))
    said = capsys.readouterr().out.splitlines()[-6:]
    assert said[:5] == [
        "round 2: Not yet.",
        "round 3: Fine-tune and re-embed now.",
        "round 3: Features updated.",
        "40 more buy 1 %.",
        "The target is far.",
    ]


def test_a_round_without_a_test_set_and_no_round_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    print_rounds(Status("r", "running", 1, 10, 1.0, 1.0, [None], [row(0, accuracy=None)]))
    assert " – " in capsys.readouterr().out
    print_rounds(Status("r", "waiting", 0, 0, 0.0, 0.0, [], []))
    assert "total" not in capsys.readouterr().out
