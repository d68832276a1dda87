"""Numbers in settings: each has an upper bound, since 1e308 of anything overflows somewhere."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import builders
import pytest

from alray.config import Config
from alray.errors import StrategyError
from alray.selection import select
from alray.strategies import STRATEGIES, find
from alray.strategies.isal import Lissa


def numbers(model: type[Config]) -> dict[str, list[Any]]:
    """Return the marks of each field that takes a number."""
    kinds = {name: {f.annotation, *typing.get_args(f.annotation)} for name, f in model.model_fields.items()}
    return {name: model.model_fields[name].metadata for name, found in kinds.items() if found & {int, float}}


@pytest.mark.parametrize("model", [*STRATEGIES().values(), Lissa], ids=lambda model: model.__name__)
def test_every_number_has_an_upper_bound(model: type[Config]) -> None:
    open_ended = [
        name for name, marks in numbers(model).items() if not any(hasattr(m, "le") or hasattr(m, "lt") for m in marks)
    ]
    assert not open_ended


@pytest.mark.parametrize("name", ["drop_query", "cluster_margin", "diverse", "alfa_mix"])
def test_the_largest_multiple_of_a_budget_is_taken_and_more_is_refused(name: str, tmp_path: Path) -> None:
    path, _, names, labels = builders.features_pool(tmp_path)
    field = "shortlist_multiple" if name == "alfa_mix" else "multiple"
    with pytest.raises(StrategyError, match=rf"{field}: is 1e\+308 .*at most 10000"):
        find({"name": name, field: 1e308})
    known = dict(zip(names[:12], labels[:12], strict=True))
    assert len(select({"name": name, field: 10_000}, path, budget=4, labels=known).picks) == 4
