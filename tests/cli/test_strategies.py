"""`alray strategies`: one entry each, in words and as JSON, and the same from Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from alray.strategies import STRATEGIES, find, listing
from alray.strategies.base import HEAD_NEEDS

Alray = Callable[..., Any]


def test_every_strategy_is_listed_with_all_that_is_asked(alray: Alray) -> None:
    code, out, _ = alray("strategies", "--json")
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert code == 0 and list(found) == sorted(STRATEGIES())
    keys = {"name", "line", "paper", "needs", "exact", "cost", "aliases", "fields"}
    assert all(set(entry) == keys for entry in found.values())
    assert found["margin"]["needs"] == ["probabilities", "labels"] and found["margin"]["exact"]
    assert found["random"]["needs"] == [] and "BreakingTies" in found["margin"]["aliases"]
    assert (
        found["diverse"]["fields"] == {"base": {"name": "margin"}, "multiple": 10.0} and not found["diverse"]["exact"]
    )
    assert "dropout draws" in found["bald"]["needs"] and "labels" not in found["kmeans"]["needs"]


def test_the_list_can_be_read(alray: Alray) -> None:
    code, out, _ = alray("strategies")
    lines = out.splitlines()
    assert code == 0 and not [line for line in lines if len(line) > 140]
    at = next(n for n, line in enumerate(lines) if line.startswith("margin "))
    assert lines[at].endswith("Label where the two best classes are the closest.")
    assert lines[at + 1].strip() == "needs probabilities, labels; exact; Scheffer, Decomain & Wrobel, IDA 2001"
    assert lines[at + 2].strip() == "costs N·D·C" and "N rows" in lines[-2]


@pytest.mark.parametrize("name", sorted(STRATEGIES()))
def test_every_entry_is_complete(name: str) -> None:
    entry = next(entry for entry in listing() if entry.name == name)
    member = STRATEGIES()[name]
    assert entry.cost == member.cost and entry.cost, f"`{name}` does not say what a round costs"
    assert entry.line[0].isupper() and entry.line.endswith(".") and len(entry.line) <= 118
    assert entry.paper or name == "random"
    assert ("labels" in entry.needs) == bool(member.needs & HEAD_NEEDS)
    assert find({"name": name, **entry.fields}) == find(name)
    assert all(find(alias) == find(name) for alias in entry.aliases)
    json.dumps(asdict(entry))
