"""Strategies are found by name: their own, another library's, or the nearest."""

from __future__ import annotations

import pytest

from alray.errors import StrategyError
from alray.strategies import ALIASES, STRATEGIES, find
from alray.strategies.alfa_mix import AlfaMix


def test_the_folder_is_the_list() -> None:
    assert set(STRATEGIES()) >= {"random", "least_confidence", "margin", "entropy", "alfa_mix"}
    assert list(STRATEGIES()) == sorted(STRATEGIES())


@pytest.mark.parametrize("name", [*STRATEGIES(), *ALIASES])
def test_names_and_aliases_build_their_strategy(name: str) -> None:
    assert find(name).name == ALIASES.get(name, name)
    assert not set(ALIASES) & set(STRATEGIES()) and set(ALIASES.values()) <= set(STRATEGIES())


def test_fields_are_parameters() -> None:
    built = find({"name": "alfa_mix", "cap_step": 0.1})
    assert isinstance(built, AlfaMix) and built.cap_step == 0.1 and find(built) is built


@pytest.mark.parametrize(("name", "near"), [("margn", "margin"), ("alfamx", "alfa"), ("Entropy", "entropy")])
def test_unknown_names_get_the_nearest(name: str, near: str) -> None:
    with pytest.raises(StrategyError, match=rf"`?{name}`?.*{near}"):
        find(name)


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(StrategyError, match="cap_step"):
        find({"name": "margin", "cap_step": 0.1})
