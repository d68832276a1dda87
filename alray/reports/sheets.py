"""A report as sheets of text: the same headings and cells for a terminal and for Markdown; and as rows for CSV.

An en dash stands where there is no number; why there is none is said below the sheet, once for each reason.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from alray.labelling.cells import shown
from alray.reports.break_even import BreakEvenMap
from alray.reports.curves import Hours
from alray.reports.repeats import Estimate
from alray.reports.report import BudgetRow, GroupRow, Report, TargetRow
from alray.reports.tables import escaped, markdown_table
from alray.reports.wins import Wins

NONE = "–"
TIDY = ("table", "group", "labels", "label_price", "hour_price", "quantity", "value", "low", "high", "defined", "draws",
        "why")  # fmt: skip
"""Columns of the CSV: one number a row."""


@dataclass(frozen=True)
class Sheet:
    """A titled table, and what is to be said below it."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)


def sheets(report: Report) -> list[Sheet]:
    """Return the report as sheets, in the order in which they are read."""
    found = [_groups(report), _budgets(report.budgets)]
    if report.target is not None:
        found += [_targets(report), _savings(report)]
    if report.map is not None:
        found.append(_map(report.map, report.target))
    if report.wins is not None:
        found.append(_wins(report.wins))
    return found


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    parts = ["# What the campaigns saved", *(_section(sheet) for sheet in sheets(report)), *report.notes]
    return "\n\n".join(parts) + "\n"


def rows(report: Report) -> list[dict[str, Any]]:
    """Return one flat row a number, with the columns `TIDY`."""
    found = [row for one in report.groups for row in _group_numbers(one)]
    found += [row for one in report.budgets for row in _budget_numbers(one)]
    found += [row for one in report.targets for row in _target_numbers(one)]
    for cell in report.map.to_rows() if report.map else []:
        at = {"label_price": cell["label_price"], "hour_price": cell["hour_price"]}
        found.append({"table": "map", "group": cell["cheapest"], **at, "quantity": "dollars", "value": cell["dollars"]})
    return found


def to_csv(report: Report) -> str:
    """Return the report as CSV, one number a row; a name that a spreadsheet would run as a formula is quoted."""
    out = io.StringIO()
    writer = csv.DictWriter(out, TIDY, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: shown(value) for name, value in row.items()} for row in rows(report))
    return out.getvalue()


# Sheets


def _groups(report: Report) -> Sheet:
    columns = ["group", "seeds", "labels", "sampling h", "core-h", "GPU-h", "quicker", "90 %", "start-up h", "all h"]
    body = [
        [
            g.group,
            str(len(g.seeds)),
            f"{g.labels:,}",
            *_hours(g.sampling),
            *_both(g.quicker, _times),
            _short(g.startup.wall),
            _short(g.total.wall),
        ]
        for g in report.groups
    ]
    about = (
        "Means over seeds. Sampling is what was done to choose the rows, until the last ones were asked for; a random "
        "draw needs no features and no head, so theirs are not counted, and no features for round 0 of `standard`, "
        "which embeds the pool anew before it selects. Quicker: the baseline's sampling hours over those of the group, "
        "up to the last budget that both have. Start-up of workers is apart."
    )
    return Sheet("Hours", columns, body, [about, *_reasons((g.group, g.quicker) for g in report.groups)])


def _budgets(budgets: Sequence[BudgetRow]) -> Sheet:
    columns = ["group", "labels", "accuracy", "± std", "sampling h", "core-h", "GPU-h", "saving", "90 %"]
    body = [
        [
            row.group,
            f"{row.labels:,}",
            f"{row.accuracy:.4f}",
            NONE if row.deviation is None else f"{row.deviation:.4f}",
            *_hours(row.hours),
            _percent(row.saving.value),
            _interval(row.saving, _percent),
        ]
        for row in budgets
    ]
    about = (
        "Saving: 1 − labels / labels that the reference needs for the same accuracy, of curves made monotone; where "
        "the reference is flat, those of its labels that are nearest. 90 %: over seeds; of three it holds the truth in "
        "76 %."
    )
    return Sheet("Accuracy at each budget", columns, body, [about, *_reasons((r.group, r.saving) for r in budgets)])


def _targets(report: Report) -> Sheet:
    columns = ["group", "labels", "90 %", "sampling h", "core-h", "GPU-h", "label $", "compute $", "overall $", "90 %"]
    body = [
        [
            row.group,
            _count(row.labels.value),
            _interval(row.labels, _count),
            *(_hours(row.hours) if row.hours else [NONE] * 3),
            _money(row.label_dollars),
            _money(row.compute_dollars),
            _money(row.dollars.value),
            _interval(row.dollars, _money),
        ]
        for row in report.targets
    ]
    prices = report.prices
    label = f"${prices.label:g} a label{' on average, as each run was charged' if _uneven(report) else ''}"
    about = f"At {label}, ${prices.cpu_hour:g} a core-hour, ${prices.gpu_hour:g} a GPU-hour."
    title = f"What an accuracy of {report.target:g} took"
    return Sheet(title, columns, body, [about, *_reasons((r.group, r.labels) for r in report.targets)])


def _uneven(report: Report) -> bool:
    """Say whether labels were charged at other sums than their number times their average price."""
    if not report.prices.as_paid:
        return False
    pairs = [(row.labels.value, row.label_dollars) for row in report.targets]
    even = [n is None or d is None or math.isclose(n * report.prices.label, d, rel_tol=1e-6) for n, d in pairs]
    return not all(even)


def _savings(report: Report) -> Sheet:
    columns = ["group", "saving", "90 %", "cost reduction", "90 %", "labels saved, net", "90 %", "break-even $/label"]
    body = [
        [
            row.group,
            *_both(row.saving, _percent),
            *_both(row.reduction, _percent),
            *_both(row.equivalent, _count),
            NONE if row.break_even is None else f"{row.break_even:.4g}",
        ]
        for row in report.targets
    ]
    about = (
        "Saving: of labels, against the reference. Cost reduction: of labels and sampling, against the baseline. Net: "
        "labels saved, less those that the extra computing would have bought. Break-even: the label price at which the "
        "group and its baseline cost the same."
    )
    against = [f"{r.group}: reference {r.reference or NONE}, baseline {r.baseline or NONE}." for r in report.targets]
    every = [(r.group, e) for r in report.targets for e in (r.saving, r.reduction, r.equivalent)]
    return Sheet(f"What it saved at {report.target:g}", columns, body, [about, *against, *_reasons(every)])


def _map(found: BreakEvenMap, target: float | None) -> Sheet:
    columns, body = found.grid()
    what = "a GPU-hour" if found.resource == "gpu" else "a core-hour"
    legend = [f"{letter}: {name}." for name, letter in found.letters().items()]
    return Sheet(f"Cheapest way to {target:g}, by label price and price of {what}", columns, body, legend)


def _wins(found: Wins) -> Sheet:
    columns = ["group", *(f"beats {n + 1}" for n in range(len(found.groups))), "beaten", "lax"]
    body = [
        [f"{n + 1} {name}", *(f"{share:.2f}" for share in found.matrix[n]), f"{found.beaten[n]:.2f}",
         f"{found.lax_beaten[n]:.2f}"]
        for n, name in enumerate(found.groups)
    ]  # fmt: skip
    about = (
        f"Share of {len(found.budgets)} budgets (not the first) at which a paired t over {len(found.seeds)} seeds is "
        "significant at 5 %, two-sided; beaten: the mean over the others, lower is better; lax: with the population's "
        "deviation, as published win matrices have it."
    )
    return Sheet("Who beats whom", columns, body, [about])


def _section(sheet: Sheet) -> str:
    notes = "\n".join(f"- {escaped(note)}" for note in sheet.notes)
    return "\n".join([f"## {sheet.title}", "", markdown_table(sheet.columns, sheet.rows), "", notes])


# Rows


def _group_numbers(row: GroupRow) -> list[dict[str, Any]]:
    at = {"table": "group", "group": row.group, "labels": row.labels}
    of = {"sampling": row.sampling, "startup": row.startup, "total": row.total}
    hours = {f"{what}_{name}": value for what, one in of.items() for name, value in _named_hours(one).items()}
    return [*({**at, "quantity": n, "value": v} for n, v in hours.items()), _estimated(at, "quicker", row.quicker)]


def _budget_numbers(row: BudgetRow) -> list[dict[str, Any]]:
    at = {"table": "budget", "group": row.group, "labels": row.labels}
    single = {"accuracy": row.accuracy, "deviation": row.deviation, **_named_hours(row.hours)}
    return [*({**at, "quantity": n, "value": v} for n, v in single.items()), _estimated(at, "saving", row.saving)]


def _target_numbers(row: TargetRow) -> list[dict[str, Any]]:
    at = {"table": "target", "group": row.group}
    single = {"label_dollars": row.label_dollars, "compute_dollars": row.compute_dollars, "break_even": row.break_even}
    named = {**single, **(_named_hours(row.hours) if row.hours else {})}
    estimates = ("labels", "dollars", "reduction", "saving", "equivalent")
    estimated = [_estimated(at, name, getattr(row, name)) for name in estimates]
    return [*({**at, "quantity": n, "value": v} for n, v in named.items()), *estimated]


def _estimated(at: dict[str, Any], name: str, found: Estimate) -> dict[str, Any]:
    return {**at, "quantity": name, **found.to_dict()}


def _named_hours(hours: Hours) -> dict[str, float]:
    return {"hours_wall": hours.wall, "hours_cpu": hours.cpu, "hours_gpu": hours.gpu}


# Cells


def _hours(hours: Hours) -> list[str]:
    return [_short(hours.wall), _short(hours.cpu), _short(hours.gpu)]


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _times(value: float | None) -> str:
    return NONE if value is None else f"{value:.3g}×"


def _count(value: float | None) -> str:
    return NONE if value is None else f"{value:,.0f}"


def _money(value: float | None) -> str:
    return NONE if value is None else f"{value:,.2f}"


def _both(found: Estimate, show: Any) -> list[str]:
    return [show(found.value), _interval(found, show)]


def _interval(found: Estimate, show: Any) -> str:
    """Return the interval, and how many draws define it if not all do."""
    both = NONE if found.low is None or found.high is None else f"{show(found.low)} … {show(found.high)}"
    return both if found.defined == found.draws or found.value is None else f"{both} ({found.defined})"


def _reasons(found: Iterable[tuple[str, Estimate]]) -> list[str]:
    """Return a sentence for each reason why numbers are missing, and one if some stand on fewer draws."""
    pairs = list(found)
    said: dict[str, dict[str, None]] = {}
    for name, one in pairs:
        if one.value is None and one.why != "itself":
            said.setdefault(one.why, {})[name] = None
    few = [one for _, one in pairs if one.value is not None and one.defined < one.draws]
    about = f"(n): only n of {few[0].draws:,} draws of seeds define it; no interval below 90 % of them." if few else ""
    return [*(f"{NONE} for {', '.join(names)}: {reason}." for reason, names in said.items()), *filter(None, [about])]
