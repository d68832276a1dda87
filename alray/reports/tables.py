"""Tables in Markdown, whatever names stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """Return a table, its first column to the left and the others to the right."""
    return "\n".join([_line(head), _line(["---", *["---:"] * (len(head) - 1)]), *map(_line, body)])


def escaped(text: str) -> str:
    """Return text that stays in its cell, and shows as it is where Markdown may hold HTML."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(escaped, cells))} |"
