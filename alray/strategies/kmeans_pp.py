"""k-means++ seeding: rows spread over the features, drawn by the squared distance to those before; no labels."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from alray.ops.kmeans import unit_rows
from alray.strategies.diversity import Diversity, DSquared
from alray.strategies.kinds.in_sequence import InSequence
from alray.table import Table


class KMeansPlusPlus(InSequence):
    """D² sampling over L2-normalised features (Arthur & Vassilvitskii, SODA 2007, §2.2): a start without labels.

    The first pick is drawn at random; labelled rows, where there are any, are centres from the start. Scores count down
    the order of picking.
    """

    name: Literal["kmeans_pp"] = "kmeans_pp"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    paper: ClassVar[str] = "Arthur & Vassilvitskii, SODA 2007"
    cost: ClassVar[str] = "(M + B)·N·D"

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return unit_rows(rows["features"]).float()

    @property
    def diversity(self) -> Diversity:
        return DSquared(rounds=self.rounds)
