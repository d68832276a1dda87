"""Which rows to label next: one file a strategy, found by its name."""

from alray.strategies.base import Given, ScoreStrategy, Strategy
from alray.strategies.registry import ALIASES, STRATEGIES, find
from alray.strategies.shortlist import Best, GrowingCap, Shortlist

__all__ = ["ALIASES", "STRATEGIES", "Best", "Given", "GrowingCap", "ScoreStrategy", "Shortlist", "Strategy", "find"]
