"""UncertainGCN: label the rows of which a graph network is least sure that they are unlabelled."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from alray.strategies.base import Given
from alray.strategies.kinds.graph import GraphStrategy
from alray.strategies.kinds.sampled import Scored


class UncertainGCN(GraphStrategy):
    """Caramalau, Bhattarai & Kim, CVPR 2021, eq. 6: score = −|s − `margin`|, s being how labelled a row looks."""

    name: Literal["uncertain_gcn"] = "uncertain_gcn"
    picks_alone: ClassVar[bool] = False
    cost: ClassVar[str] = "`epochs`·n²+n²·D with n = `subset` + M; `epochs`·n·D behind a ReLU"

    margin: float = Field(0.1, ge=0, le=1)

    def choose(self, given: Given) -> Scored:
        score_S = self.fitted(given)[0]
        return np.arange(len(score_S)), -(score_S - self.margin).abs().numpy()
