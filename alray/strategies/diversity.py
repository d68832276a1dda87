"""Diversity: what keeps the picks of a shortlist apart, as a strategy asks for it; `alray/selection/` does it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from alray.ops.distances import MetricName

Rounds = Literal["exact", "two_round"]
"""Of a choice in sequence: the picks of the one-by-one algorithm, or blocks of shards first and then their picks."""


@dataclass(frozen=True)
class Diversity:
    """A way from a shortlist to picks: its name in reports, and its parameters as fields."""

    @property
    def name(self) -> str:
        """The class's name in lower case."""
        return type(self).__name__.lower()

    @property
    def exact(self) -> bool:
        """Whether any cut of the pool into shards gives the same picks."""
        return False


@dataclass(frozen=True)
class Nothing(Diversity):
    """The best of the shortlist by (score, id)."""

    @property
    def exact(self) -> bool:
        return True


@dataclass(frozen=True)
class KMeans(Diversity):
    """k-means with one cluster a pick over unit rows; the real row nearest to each centroid."""


@dataclass(frozen=True)
class Uniform(Diversity):
    """Rows of the shortlist drawn at random, without replacement."""


@dataclass(frozen=True)
class Highest(Diversity):
    """The rows of the shortlist for which `Strategy.points`, [N, 1], says the most; ties by id."""

    @property
    def exact(self) -> bool:
        return True


@dataclass(frozen=True)
class MostTypical(Diversity):
    """In turns, the most typical row of each k-means cluster; clusters without labels and large ones first."""

    clusters: int = 500
    neighbours: int = 20
    small: int = 5
    most: int = 4000


@dataclass(frozen=True)
class Finetuned(Diversity):
    """ActiveFT: the rows most similar to centroids that Adam moves over `most` random rows of the pool."""

    temperature: float = 0.07
    balance: float = 1.0
    learning_rate: float = 1e-3
    iterations: int = 100
    most: int = 20_000

    @property
    def exact(self) -> bool:
        return True


@dataclass(frozen=True)
class RoundRobin(Diversity):
    """In turns, a random row of each cluster of the pool, the cluster with the fewest candidates first.

    Average linkage into `clusters`, or up to a mean `distance`, of the pool's rows or of `micro` k-means clusters.
    """

    clusters: int = 500
    distance: float | None = None
    micro: int = 2000

    @property
    def exact(self) -> bool:
        return True


@dataclass(frozen=True)
class KCentre(Diversity):
    """Greedy k-centre: each pick is the row farthest from all picks before it, and from the labelled rows.

    Without centres at the start the first pick is drawn at random. A pick's score is its distance when it is picked.
    """

    metric: MetricName = "euclidean"
    from_labelled: bool = True
    rounds: Rounds = "exact"

    @property
    def exact(self) -> bool:
        return self.rounds == "exact"


@dataclass(frozen=True)
class DSquared(Diversity):
    """D² sampling (k-means++): each pick is drawn with a chance of its squared distance to the nearest centre.

    Without centres at the start the first pick is the row of the largest `norm`, or drawn at random (`uniform`). Scores
    count down the order of picking.
    """

    metric: MetricName = "euclidean"
    from_labelled: bool = True
    first: Literal["norm", "uniform"] = "uniform"
    rounds: Rounds = "exact"

    @property
    def exact(self) -> bool:
        return self.rounds == "exact"
