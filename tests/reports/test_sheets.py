"""A report as text: sheets for a terminal, Markdown, and rows for CSV that no spreadsheet runs."""

from __future__ import annotations

import csv
import io

import pytest
from measured import made, three_ways

from alray.reports.groups import group
from alray.reports.report import Report, report
from alray.reports.sheets import TIDY, markdown, rows, sheets, to_csv


@pytest.fixture(scope="module")
def found() -> Report:
    return report(group(three_ways()), target=0.75)


def test_the_sheets_in_their_order(found: Report) -> None:
    assert [sheet.title for sheet in sheets(found)] == [
        "Hours",
        "Accuracy at each budget",
        "What an accuracy of 0.75 took",
        "What it saved at 0.75",
        "Cheapest way to 0.75, by label price and price of a GPU-hour",
        "Who beats whom",
    ]
    assert all(len(row) == len(sheet.columns) for sheet in sheets(found) for row in sheet.rows)


def test_a_number_stands_with_its_interval_and_none_with_its_reason(found: Report) -> None:
    budgets = sheets(found)[1]
    last = next(row for row in budgets.rows if row[:2] == ["standard/margin", "400"])
    assert last[2:4] == ["0.8010", "0.0010"] and last[-2:] == ["–", "–"]
    assert "– for standard/margin, asvp/margin: beyond the reference's curve." in budgets.notes or (
        "– for asvp/margin, standard/margin: beyond the reference's curve." in budgets.notes
    )
    saved = next(row for row in sheets(found)[3].rows if row[0] == "standard/margin")
    assert saved[1] == "50.2 %" and " … " in saved[2]


def test_fewer_draws_are_counted_in_the_cell() -> None:
    runs = [made("svpp", "margin", s, [0.5, 0.6 + 0.1 * s]) for s in range(4)]
    sheet = sheets(report(group(runs), target=0.65))[2]
    assert sheet.rows[0][2].endswith(")") and sheet.notes[-1].startswith("(n): only n of 1,000 draws")


def test_markdown_is_tables(found: Report) -> None:
    text = markdown(found)
    assert text.startswith("# What the campaigns saved\n\n## Hours\n\n| group | seeds | labels |")
    assert text.count("\n## ") == 6
    assert "| standard/margin | 400 | 0.8010 | 0.0010 |" in text


def test_names_do_not_break_a_table_or_run_in_a_spreadsheet() -> None:
    odd = report(group([made("=cmd|' /C calc'!A0", "margin", 0, [0.5, 0.6])]))
    assert "=cmd\\|' /C calc'!A0/margin" in markdown(odd)
    assert all(row["group"].startswith("'=cmd") for row in csv.DictReader(io.StringIO(to_csv(odd))))


def test_csv_has_one_number_a_row(found: Report) -> None:
    read = list(csv.DictReader(io.StringIO(to_csv(found))))
    assert tuple(read[0]) == TIDY and len(read) == len(rows(found))
    saving = [r for r in read if (r["table"], r["group"], r["quantity"]) == ("target", "standard/margin", "saving")]
    assert float(saving[0]["low"]) < float(saving[0]["value"]) < float(saving[0]["high"])
    assert saving[0]["defined"] == saving[0]["draws"] == "1000"
    beyond = [r for r in read if r["why"] == "beyond the reference's curve"]
    assert beyond and all(r["value"] == "" for r in beyond)
    assert {r["table"] for r in read} == {"group", "budget", "target", "map"}
