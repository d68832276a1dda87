"""`alray status`: what a run has done, what it cost, and whether running it again would get further."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import typer

from alray.campaign.status import Status
from alray.campaign.status import ready as is_ready
from alray.campaign.status import status as read_status
from alray.cli import show

NOT_READY = 3
"""Exit code of `--ready` when running the campaign again would get no further (decision 15)."""

COLUMNS = ["round", "new", "labels", "accuracy", "sampling s", "seconds", "label $", "compute $", "dollars"]


def status(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder or URI of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    ready: Annotated[
        bool, typer.Option("--ready", help="Print nothing; exit 0 if running it again would get further, 3 if not.")
    ] = False,
) -> None:
    """Show the rounds of a run: labels, accuracy, seconds, dollars, decisions. Reads the run folder alone."""
    if ready:
        raise typer.Exit(0 if is_ready(run) else NOT_READY)
    found = read_status(run)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        print_rounds(found)


def print_rounds(status: Status) -> None:
    """Print the rounds of a run with their totals, what was decided and what is foreseen, and what state it is in."""
    rows = [_round(row) for row in status.per_round]
    if rows:
        seconds = sum(row["seconds"] for row in status.per_round)
        rows.append(["total", f"{status.labels:,}", "", "", *_bill(asdict(status), seconds)])
    show.table(COLUMNS, rows)
    for decision in status.switches:
        for line in _decided(decision):
            show.line(f"round {decision['round']}: {line}")
    for sentence in (status.forecast or {}).get("sentences", []):
        show.line(sentence)
    show.line(f"{status.state}: {status.message or status.driver or _meaning(status.state)}")


def _decided(decision: Mapping[str, Any]) -> list[str]:
    """Return what a round decided and what came of it; nothing where there was nothing to decide any more."""
    said = [] if decision.get("refusal") else [decision["sentence"]]
    return said + ([decision["came_of_it"]] if decision.get("came_of_it") else [])


def _round(row: Mapping[str, Any]) -> list[str]:
    accuracy = "–" if row["accuracy"] is None else f"{row['accuracy']:.4f}"
    counts = [str(row["round"]), f"{row['labels']:,}", f"{row['labels_so_far']:,}"]
    return [*counts, accuracy, *_bill(row, row["seconds"])]


def _bill(row: Mapping[str, Any], seconds: float) -> list[str]:
    times = [f"{value:,.1f}" for value in (row["sampling_seconds"], seconds)]
    return [*times, *(f"{row[name]:,.2f}" for name in ("label_dollars", "compute_dollars", "dollars"))]


def _meaning(state: str) -> str:
    return {
        "done": "the budget is spent, or a stopping rule was met.",
        "waiting": "labels are asked for and not yet there; run the same command when they are.",
        "running": "a driver is at work, or was cut short; the same command goes on.",
    }.get(state, "")
