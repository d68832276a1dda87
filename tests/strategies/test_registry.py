"""Strategies are found by name: their own, or the nearest."""

from __future__ import annotations

import pytest

from alray.errors import StrategyError
from alray.strategies import STRATEGIES, find
from alray.strategies.alfa_mix import AlfaMix


def test_the_folder_is_the_list() -> None:
    assert set(STRATEGIES()) >= {"random", "least_confidence", "margin", "entropy", "alfa_mix"}
    assert list(STRATEGIES()) == sorted(STRATEGIES())


def test_fields_are_parameters() -> None:
    built = find({"name": "alfa_mix", "cap_step": 0.1})
    assert isinstance(built, AlfaMix) and built.cap_step == 0.1 and find(built) is built


@pytest.mark.parametrize(("name", "near"), [("margn", "margin"), ("alfamx", "alfa_mix"), ("entrpy", "entropy")])
def test_unknown_names_get_the_nearest(name: str, near: str) -> None:
    with pytest.raises(StrategyError, match=rf"`?{name}`?.*{near}"):
        find(name)


def test_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(StrategyError, match="cap_step"):
        find({"name": "margin", "cap_step": 0.1})
