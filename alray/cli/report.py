"""`alray report`: many campaigns beside each other, and what each of them saved."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Annotated

import typer

from alray import storage
from alray.cli import show
from alray.errors import StoragePathError
from alray.reports.groups import Group, group
from alray.reports.report import Report, charged
from alray.reports.report import report as compare
from alray.reports.runs import find, read
from alray.reports.savings import Prices
from alray.reports.sheets import markdown, sheets, to_csv

SUFFIXES = (".json", ".csv", ".md")


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN…", help="Run folders, globs, or folders of runs.")],
    reference: Annotated[
        str | None,
        typer.Option(metavar="S|R/S", help="Strategy that labels are saved from (random), or regime/strategy."),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="R|R/S", help="Regime that cost is compared with (standard), or regime/strategy."),
    ] = None,
    target: Annotated[float | None, typer.Option(metavar="ACC", help="Accuracy that is to be paid for.")] = None,
    label_price: Annotated[
        float | None, typer.Option(min=0, max=1e9, help="Dollars; else what the runs were told.")
    ] = None,
    cpu_hour: Annotated[
        float | None, typer.Option(min=0, max=1e9, help="Dollars of one core; else what they were told.")
    ] = None,
    gpu_hour: Annotated[
        float | None, typer.Option(min=0, max=1e9, help="Dollars; else what the runs were told.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="File to write too: .json, .csv or .md.")] = None,
) -> None:
    """Compare campaigns: accuracy per budget, hours of sampling, labels and dollars to a target, what was saved.

    Runs that differ in their seed alone make a group, named regime/strategy. Reads the run folders alone.
    """
    if out is not None and not out.endswith(SUFFIXES):
        raise StoragePathError(f"`--out` {out}: the format follows the suffix; expected {', '.join(SUFFIXES)}.")
    groups = group([read(folder) for folder in find(runs)])
    prices = _prices(groups, label_price, cpu_hour, gpu_hour)
    found = compare(groups, reference=reference, baseline=baseline, target=target, prices=prices)
    if out is not None:
        storage.write_bytes(out, _written(found, out).encode())
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        _print(found, out)


def _prices(groups: list[Group], label: float | None, cpu_hour: float | None, gpu_hour: float | None) -> Prices:
    """Return the prices as given, and for the others what the runs were told."""
    if label is not None and cpu_hour is not None and gpu_hour is not None:
        return Prices(label, cpu_hour, gpu_hour)
    told = charged(groups)
    given = {"label": label, "cpu_hour": cpu_hour, "gpu_hour": gpu_hour}
    ours = {name: price for name, price in given.items() if price is not None}
    return replace(told, **ours, as_paid=label is None)


def _written(found: Report, out: str) -> str:
    if out.endswith(".json"):
        return json.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
    return to_csv(found) if out.endswith(".csv") else markdown(found)


def _print(found: Report, out: str | None) -> None:
    for sheet in sheets(found):
        show.line(sheet.title)
        show.table(sheet.columns, sheet.rows)
        for note in sheet.notes:
            show.line(note)
        print()
    for note in found.notes:
        show.line(note)
    if out is not None:
        show.line(f"Written to {out}.")
