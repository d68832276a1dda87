"""The results of a sweep as a table: CSV for a spreadsheet, Markdown for a reader, JSON for a program."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from alray.labelling.cells import shown
from alray.reports.tables import markdown_table
from alray.sweeps.best import Best, front
from alray.sweeps.outcome import Configuration, Outcome

NONE = "–"

SHARED = (
    "Made once for all trials, and in no trial's seconds or dollars: pre-training {pretrain:.1f} s, features "
    "{features:.1f} s."
)
CAVEAT = (
    "Means are over seeds. A configuration with a trial that was stopped early, failed or was cut has means up to the "
    "labels that all its seeds came to, and is not among those of which the best is chosen."
)


def columns(outcome: Outcome) -> list[str]:
    """Return the columns of a row a trial."""
    return list(outcome.results[0].row())


def rows(outcome: Outcome) -> list[list[str]]:
    """Return the cells of each trial, as text."""
    return [[_cell(name, value) for name, value in one.row().items()] for one in outcome.results]


def summary(outcome: Outcome) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of a row a configuration: its seeds, and where its mean curve ends."""
    head = ["configuration", "seeds", "done", "labels", "accuracy", "± std", "dollars"]
    return head, [_summed(one) for one in outcome.configurations]


def to_csv(outcome: Outcome) -> str:
    """Return a row a trial; a cell that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(shown, columns(outcome)))
    writer.writerows([shown(value) for value in one.row().values()] for one in outcome.results)
    return out.getvalue()


def to_json(outcome: Outcome, chosen: Best | None) -> dict[str, Any]:
    """Return everything that the other forms show, as JSON values."""
    beats = outcome.wins()
    return {
        "schema": 1,
        "sweep": outcome.home,
        "trials": [one.row() for one in outcome.results],
        "configurations": [
            {"name": one.name, "done": one.done, "curve": [_numbers(point) for point in one.points]}
            for one in outcome.configurations
        ],
        "front": [_numbers(point) for point in front(outcome.points, priced=outcome.priced)],
        "wins": None
        if beats is None
        else {"configurations": beats.groups, "matrix": beats.matrix, "seeds": beats.seeds},
        "best": None if chosen is None else {"rule": chosen.rule, **_numbers(chosen.point)},
        "shared_seconds": dict(outcome.shared),
    }


def markdown(outcome: Outcome, chosen: Best | None) -> str:
    """Return the sweep as Markdown."""
    beats = outcome.wins()
    parts = ["# Sweep", markdown_table(*summary(outcome)), "## Trials", markdown_table(columns(outcome), rows(outcome))]
    if points := front(outcome.points, priced=outcome.priced):
        what = "dollars" if outcome.priced else "labels"
        parts += [f"## Not beaten in accuracy and {what}", markdown_table(*_front(points))]
    if beats is not None:
        head = ["configuration", *(f"beats {n + 1}" for n in range(len(beats.groups)))]
        body = [
            [f"{n + 1} {name}", *(f"{share:.2f}" for share in beats.matrix[n])] for n, name in enumerate(beats.groups)
        ]
        about = (
            f"Share of the budgets ({len(beats.budgets)}) at which a paired t over {len(beats.seeds)} seeds is "
            "significant at 5 %."
        )
        parts += ["## Who beats whom", markdown_table(head, body), about]
    return "\n\n".join([*parts, *notes(outcome, chosen)]) + "\n"


def notes(outcome: Outcome, chosen: Best | None) -> list[str]:
    """Return what is to be said below the tables."""
    said = [CAVEAT, SHARED.format(**outcome.shared)] if any(outcome.shared.values()) else [CAVEAT]
    if chosen is None:
        return [
            *said,
            "No configuration can be called the best: none that is cheap enough ran to its end with all its seeds.",
        ]
    point = chosen.point
    at = f"accuracy {point.accuracy:.4f} at {point.labels:g} labels, ${point.dollars:.2f}"
    return [*said, f"Best: {chosen.configuration.name}, {at}; {chosen.rule}."]


def _summed(one: Configuration) -> list[str]:
    done = sum(result.state == "done" for result in one.results)
    counts = [one.name, str(len(one.results)), str(done)]
    if not one.points:
        return [*counts, NONE, NONE, NONE, NONE]
    last = one.points[-1]
    spread = NONE if last.deviation is None else f"{last.deviation:.4f}"
    return [*counts, f"{last.labels:,.0f}", f"{last.accuracy:.4f}", spread, f"{last.dollars:,.2f}"]


def _front(points: Sequence[Any]) -> tuple[list[str], list[list[str]]]:
    head = ["configuration", "labels", "accuracy", "dollars"]
    return head, [[p.configuration, f"{p.labels:,.0f}", f"{p.accuracy:.4f}", f"{p.dollars:,.2f}"] for p in points]


def _numbers(point: Any) -> dict[str, Any]:
    return {name: getattr(point, name) for name in ("configuration", "labels", "accuracy", "deviation", "dollars")}


def _cell(name: str, value: Any) -> str:
    if value is None or value == "":
        return NONE
    form = {"accuracy": ".4f", "dollars": ",.2f", "seconds": ",.1f"}.get(name)
    return format(value, form) if form else str(value)
