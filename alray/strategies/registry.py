"""Find strategies by name: the folder is scanned, so that adding a file adds a strategy."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from alray.config import family
from alray.errors import ConfigError, StrategyError, nearest
from alray.strategies.base import Strategy

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "RandomSampling": "random",
        "random_sampling": "random",
        "LeastConfidence": "least_confidence",
        "LeastConfidenceSampling": "least_confidence",
        "confidence": "least_confidence",
        "least_confident": "least_confidence",
        "uncertainty": "least_confidence",
        "uncertainty_least_confidence": "least_confidence",
        "uncertainty_sampling": "least_confidence",
        "BreakingTies": "margin",
        "MarginConfidence": "margin",
        "margin_sampling": "margin",
        "margins": "margin",
        "uncertainty_margin": "margin",
        "EntropySampling": "entropy",
        "PredictionEntropy": "entropy",
        "entropy_sampling": "entropy",
        "uncertainty_entropy": "entropy",
        "ALFA-Mix": "alfa_mix",
        "AlphaMix": "alfa_mix",
        "alfamix": "alfa_mix",
        "alpha_mix": "alfa_mix",
        "alpha_mix_sampling": "alfa_mix",
        "DiverseMiniBatch": "diverse",
        "dbal": "diverse",
    }
)
"""Names that other libraries use for a strategy of ours."""


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

StrategyFamily = family(Strategy, _found, hint=lambda name: nearest(name, [*_found(), *ALIASES]), aliases=ALIASES)


def find(strategy: str | Mapping[str, Any] | Strategy) -> Strategy:
    """Return a strategy from its name or alias, from `{name: …, field: …}`, or as it is.

    Raises:
        StrategyError: unknown name (the nearest is offered) or a field that it does not have.
    """
    try:
        return StrategyFamily.build(strategy, at="strategy")
    except ConfigError as error:
        raise StrategyError(str(error)) from None
