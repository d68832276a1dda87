"""Text in a CSV file that people open in a spreadsheet, which runs what begins like a formula.

Such text gets an apostrophe before it. An id must come back as it was, so that text which already looks guarded gets
one more, and whoever reads takes one away.
"""

from __future__ import annotations

import re
from typing import Any

_FORMULA = re.compile(r"'*[=+\-@\t\r]")


def guarded(text: str) -> str:
    """Return the text as a cell that no spreadsheet runs."""
    return f"'{text}" if _FORMULA.match(text) else text


def shown(value: Any) -> Any:
    """Return a value as a cell that is looked at and never read back: text is guarded, and stays on its line."""
    return guarded(value).replace("\r", " ") if isinstance(value, str) else value  # unquoted by the writer


def unguarded(cell: str) -> str:
    """Return the text that `guarded` made the cell of."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
