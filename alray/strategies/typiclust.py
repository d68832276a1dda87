"""TypiClust: label the most typical row of each cluster that has the fewest labels; made for the first few labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from alray.strategies import diversity
from alray.strategies.diversity import Diversity
from alray.strategies.kinds.unscored import Unscored


class TypiClust(Unscored):
    """Hacohen, Dekel & Weinshall, *Active Learning on a Budget*, ICML 2022, algorithm 1 and eq. 4.

    k-means of the pool's unit features into min(L + B, `clusters`) clusters; in turns, the clusters with the fewest
    labels and the most rows first, each gives its row with the highest typicality, 1/(mean distance to its
    min(`neighbours`, n/2) nearest rows + 10⁻⁵). Clusters of at most `small` rows come when the others have none left.
    A cluster of more than `most` rows is represented by that many, drawn at random. Picks are ranked by their turn.
    """

    name: Literal["typiclust"] = "typiclust"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    exact: ClassVar[bool] = False  # k-means over shards, and a sample of the largest clusters
    paper: ClassVar[str] = "Hacohen et al., ICML 2022"
    cost: ClassVar[str] = "N·min(M+B, 500)·D·I + N·`most`·D"

    clusters: int = Field(500, ge=1, le=1_000_000)  # at most
    neighbours: int = Field(20, ge=1, le=100_000)
    small: int = Field(5, ge=0, le=1_000_000)
    most: int = Field(4000, ge=2, le=1_000_000)  # rows of one cluster that typicality is measured among

    @property
    def diversity(self) -> Diversity:
        return diversity.MostTypical(self.clusters, self.neighbours, self.small, self.most)
