"""k-means: label the real rows nearest to the centroids of the pool; it needs no labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from alray.strategies import diversity
from alray.strategies.diversity import Diversity
from alray.strategies.kinds.unscored import Unscored


class KMeans(Unscored):
    """Xu, Yu, Tresp, Xu & Wang, *Representative sampling for text classification*, ECIR 2003, without its margin.

    Every row of the pool is a candidate: B clusters of the unit rows, and of each the row nearest to its centroid.
    """

    name: Literal["kmeans"] = "kmeans"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    exact: ClassVar[bool] = False  # k-means over shards is not what it is on one machine
    paper: ClassVar[str] = "Xu et al., ECIR 2003"
    cost: ClassVar[str] = "N·B·D·I"

    @property
    def diversity(self) -> Diversity:
        return diversity.KMeans()
