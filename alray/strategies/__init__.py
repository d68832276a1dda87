"""Which rows to label next: one file a strategy, found by its name."""

from alray.strategies.base import Given, ScoreStrategy, Strategy
from alray.strategies.diversity import Diversity
from alray.strategies.listing import Entry, listing
from alray.strategies.names import ALIASES
from alray.strategies.registry import STRATEGIES, find
from alray.strategies.shortlist import All, Best, GrowingCap, Shortlist

__all__ = [
    "ALIASES",
    "STRATEGIES",
    "All",
    "Best",
    "Diversity",
    "Entry",
    "Given",
    "GrowingCap",
    "ScoreStrategy",
    "Shortlist",
    "Strategy",
    "find",
    "listing",
]
