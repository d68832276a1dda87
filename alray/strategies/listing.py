"""What strategies there are: each with its line, its paper, what it needs, whether it is exact, and what it costs."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from typing import Any

from alray.strategies.base import HEAD_NEEDS, Strategy
from alray.strategies.names import ALIASES
from alray.strategies.registry import STRATEGIES, find

LETTERS = "N rows, M labelled, D features, C classes, B picks, S dropout draws"
"""What the letters of a cost mean; others are fields of the strategy, or said in its docstring."""

WORDS = {
    "features": "features",
    "hidden": "features",
    "logits": "probabilities",
    "probs": "probabilities",
    "draws": "dropout draws",
    "loss": "losses",
    "reference": "a reference set",
    "graph": "a graph",
    "backbone+images": "pictures",
}


@dataclass(frozen=True)
class Entry:
    """One strategy as it is listed. `needs` is in words; `fields` are its settings and what they are unless set."""

    name: str
    line: str
    paper: str
    needs: tuple[str, ...]
    exact: bool
    cost: str
    aliases: tuple[str, ...]
    fields: dict[str, Any]


def listing() -> list[Entry]:
    """Return all strategies, sorted by name."""
    return [_entry(name, member) for name, member in STRATEGIES().items()]


def _entry(name: str, member: type[Strategy]) -> Entry:
    needs = [word for need, word in WORDS.items() if need in member.needs]
    needs += ["labels"] if member.needs & HEAD_NEEDS else []
    aliases = tuple(alias for alias, ours in ALIASES.items() if ours == name)
    fields = find(name).model_dump(mode="json", exclude={"name"})
    return Entry(
        name=name,
        line=line_of(member),
        paper=member.paper,
        needs=tuple(dict.fromkeys(needs)),
        exact=member.exact,
        cost=member.cost,
        aliases=aliases,
        fields=fields,
    )


def line_of(member: type[Strategy]) -> str:
    """Return what a strategy does, in one line: the first of its file's docstring, without the name before a colon."""
    first = (inspect.getdoc(inspect.getmodule(member)) or "").partition("\n")[0]
    said = re.sub(r"^[^:]{1,30}: ", "", first)
    return said[:1].upper() + said[1:]
