"""Cluster-Margin: of the rows with the smallest margins, some of every cluster; made for large budgets."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from alray.ops import probability
from alray.strategies.base import Strategy
from alray.strategies.diversity import Diversity, RoundRobin
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table


class ClusterMargin(Strategy):
    """Citovsky et al., *Batch Active Learning at Scale*, NeurIPS 2021, algorithm 2.

    The `multiple`·B rows of the smallest margins are grouped by cluster; in turns, the smallest group first, each gives
    one of its rows at random. Clusters are of the whole pool's unit features, by average linkage, found once and used
    in every round: either `clusters` of them, or those farther than `distance` from each other on average.

    Linkage needs the distances of all pairs. So a pool of more than `micro` rows is first divided into as many
    micro-clusters, by three k-means steps from random rows, and these are linked by their means and sizes.
    """

    name: Literal["cluster_margin"] = "cluster_margin"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "probs"})
    exact: ClassVar[bool] = True
    paper: ClassVar[str] = "Citovsky et al., NeurIPS 2021"
    cost: ClassVar[str] = "N·D·C + `multiple`·B·`micro`·D; once, 4·N·`micro`·D + `micro`²·D"

    multiple: float = Field(10, ge=1, le=10_000)  # of the budget: rows of small margin
    clusters: int = Field(500, ge=1, le=20_000)
    distance: float | None = Field(None, gt=0, le=2)
    micro: int = Field(2000, ge=2, le=20_000)

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return -probability.margin(rows["probs"])

    def shortlist(self, budget: int) -> Shortlist:
        return All(most=int(self.multiple * budget))

    @property
    def diversity(self) -> Diversity:
        return RoundRobin(self.clusters, self.distance, self.micro)
