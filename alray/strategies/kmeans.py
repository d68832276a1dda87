"""k-means: label the real rows nearest to the centroids of the pool; it needs no labels."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from alray.strategies import diversity
from alray.strategies.base import Strategy
from alray.strategies.diversity import Diversity
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table


class KMeans(Strategy):
    """Xu, Yu, Tresp, Xu & Wang, *Representative sampling for text classification*, ECIR 2003, without its margin.

    Every row of the pool is a candidate: B clusters of the unit rows, and of each the row nearest to its centroid.
    """

    name: Literal["kmeans"] = "kmeans"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    exact: ClassVar[bool] = False  # k-means over shards is not what it is on one machine
    paper: ClassVar[str] = "Xu et al., ECIR 2003"
    cost: ClassVar[str] = "N·B·D·I"

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return torch.zeros(len(rows))

    def shortlist(self, budget: int) -> Shortlist:
        return All()

    @property
    def diversity(self) -> Diversity:
        return diversity.KMeans()
