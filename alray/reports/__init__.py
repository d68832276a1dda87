"""Many campaigns beside each other: what each saved, in labels and in dollars, and with what certainty."""

from alray.reports.break_even import BreakEvenMap, break_even_label_price, break_even_map
from alray.reports.curves import Curve, Hours, mean
from alray.reports.groups import Group, group
from alray.reports.repeats import Estimate, Outside, Repeats, estimate
from alray.reports.report import Report, report
from alray.reports.runs import Run, find, read
from alray.reports.savings import Need, Prices
from alray.reports.sheets import markdown, rows, sheets, to_csv
from alray.reports.significance import PairedT, beaten, paired_t, win_matrix

__all__ = [
    "BreakEvenMap", "Curve", "Estimate", "Group", "Hours", "Need", "Outside", "PairedT", "Prices", "Repeats", "Report",
    "Run", "beaten", "break_even_label_price", "break_even_map", "estimate", "find", "group", "markdown", "mean",
    "paired_t", "read", "report", "rows", "sheets", "to_csv", "win_matrix",
]  # fmt: skip
