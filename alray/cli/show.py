"""What the commands print on standard output: plain tables that fit a terminal, and that a pipe can carry."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alray.log import printable


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their headings; numbers stand right, the first column left."""
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        # What is too long goes on below, the widest first: half a number says nothing.
        side: Any = "left" if number == 0 else "right"
        drawn.add_column(Text(printable(name)), justify=side, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))  # not as rich's markup: `[/]` in a name is a name
    _console().print(drawn)


def pairs(facts: Mapping[str, object]) -> None:
    """Print named facts, one a line, their values under each other."""
    width = max(map(len, facts), default=0)
    for name, value in facts.items():
        line(f"{name:<{width}}  {value}")


def line(text: str) -> None:
    """Print a sentence, whatever names stand in it."""
    print(printable(text))


def _console() -> Console:
    # A pipe has no width: rich would cut at 80 columns what a file can hold.
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)
