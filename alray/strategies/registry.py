"""Find strategies by name: the folder is scanned, so that adding a file adds a strategy."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from alray.config import family
from alray.errors import ConfigError, StrategyError
from alray.strategies import names
from alray.strategies.base import Strategy
from alray.strategies.names import ALIASES


@cache
def _found() -> dict[str, type[Strategy]]:
    members: dict[str, type[Strategy]] = {}
    for info in pkgutil.iter_modules([str(Path(__file__).parent)]):
        module = importlib.import_module(f"alray.strategies.{info.name}")
        for _, member in inspect.getmembers(module, inspect.isclass):
            if issubclass(member, Strategy) and not inspect.isabstract(member) and member.__module__ == module.__name__:
                members[member.model_fields["name"].default] = member
    return dict(sorted(members.items()))


STRATEGIES = _found
"""Return the strategies by their own names."""

StrategyFamily = family(
    Strategy,
    _found,
    aliases=ALIASES,
    hint=lambda name: names.hint(name, _found()),
    elsewhere=lambda name: names.unknown(name, _found()),
)


def find(strategy: str | Mapping[str, Any] | Strategy) -> Strategy:
    """Return a strategy from its name or alias, from `{name: …, field: …}`, or as it is.

    Raises:
        StrategyError: unknown name (the nearest is offered) or a field that it does not have.
    """
    try:
        return StrategyFamily.build(strategy, at="strategy")
    except ConfigError as error:
        raise StrategyError(str(error)) from None
