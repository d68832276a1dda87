"""`alray strategies`: which rules for the next labels there are, what they need and what they cost."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from alray.strategies.listing import LETTERS, Entry, listing


def strategies(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the strategies: what each does, needs and costs a round, whether it is exact, and its paper."""
    found = listing()
    if as_json:
        print(json.dumps([asdict(entry) for entry in found], indent=2, ensure_ascii=False))
        return
    width = max(len(entry.name) for entry in found)
    for entry in found:
        print(f"{entry.name:<{width}}  {entry.line}")
        for facts in _facts(entry):
            print(f"{'':<{width}}  {facts}")
    print(f"\nCosts of one round in multiplications: {LETTERS}.")
    print("Exact: any number of workers and any cut of the pool give the picks of one machine.")


def _facts(entry: Entry) -> list[str]:
    needs = f"needs {', '.join(entry.needs) or 'nothing'}; {'exact' if entry.exact else 'approximate'}"
    return [needs + (f"; {entry.paper}" if entry.paper else ""), f"costs {entry.cost}"]
