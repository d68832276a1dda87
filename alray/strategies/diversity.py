"""Diversity: what keeps the picks of a shortlist apart, as a strategy asks for it; `alray/selection/` does it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Diversity:
    """A way from a shortlist to picks: its name in reports, and its parameters as fields."""

    @property
    def name(self) -> str:
        """The class's name in lower case."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Nothing(Diversity):
    """The best of the shortlist by (score, id)."""


@dataclass(frozen=True)
class KMeans(Diversity):
    """k-means with one cluster a pick over unit rows; the real row nearest to each centroid."""


@dataclass(frozen=True)
class Uniform(Diversity):
    """Rows of the shortlist drawn at random, without replacement."""


@dataclass(frozen=True)
class Highest(Diversity):
    """The rows of the shortlist for which `Strategy.points`, [N, 1], says the most; ties by id."""


@dataclass(frozen=True)
class MostTypical(Diversity):
    """In turns, the most typical row of each k-means cluster; clusters without labels and large ones first."""

    clusters: int = 500
    neighbours: int = 20
    small: int = 5
    most: int = 4000
