"""CoreGCN: label rows far apart in what a graph network has learnt of labelled and unlabelled rows."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from alray.ops.farthest import farthest_first
from alray.strategies.base import Given
from alray.strategies.kinds.graph import GraphStrategy
from alray.strategies.kinds.sampled import Scored


class CoreGCN(GraphStrategy):
    """Caramalau, Bhattarai & Kim, CVPR 2021, eq. 7: greedy k-centre on the network's hidden activations.

    The labelled nodes are the first centres. A pick's score is its distance from all centres when it is picked.
    """

    name: Literal["core_gcn"] = "core_gcn"
    cost: ClassVar[str] = "as `uncertain_gcn`, and n·B·128"

    def choose(self, given: Given) -> Scored:
        _, hidden_SH, centres_LH = self.fitted(given)
        rows, distances = farthest_first(hidden_SH, centres_LH, min(given.budget, len(hidden_SH)))
        return rows, distances.astype(np.float32)
