"""DropQuery: rows whose predicted class changes when most of their features are left out, one of each kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from alray.ops.disagreement import mismatches
from alray.strategies.diversity import Diversity, KMeans
from alray.strategies.kinds.dropout import DropoutStrategy, Where
from alray.strategies.shortlist import Counts, Cut, Scores, Shortlist
from alray.table import Table


@dataclass(frozen=True)
class Mismatches(Shortlist):
    """Rows that more than half of `draws` passes disagree about; fewer passes while that are fewer than `least` rows.

    At least one pass must disagree. Scores are whole numbers 0 … draws, so a count of each decides all thresholds.
    """

    draws: int
    least: int

    def statistic(self, scores_N: Scores) -> Counts:
        return np.bincount(scores_N.astype(np.int64), minlength=self.draws + 1).astype(np.int64)

    def decide(self, total: Counts) -> Cut:
        at_least = np.cumsum(total[::-1])[::-1]
        threshold = self.draws // 2 + 1
        while threshold > 1 and at_least[threshold] < self.least:
            threshold -= 1
        return Cut(above=threshold - 1.0, count=int(at_least[threshold]))


class DropQuery(DropoutStrategy):
    """Gupte et al., *Revisiting Active Learning in the Era of Vision Foundation Models*, TMLR 2024, §4 (DropQuery).

    Score = the number of dropout passes that name another class than the pass without dropout; k-means over the
    candidates. The paper draws a mask for each row, here a pass has one mask for all rows: for one row alike.
    """

    name: Literal["drop_query"] = "drop_query"
    exact: ClassVar[bool] = False  # the candidates are exact, k-means over shards is not
    paper: ClassVar[str] = "Gupte et al., TMLR 2024"
    cost: ClassVar[str] = "S·N·D·C, and k-means over n candidates: n·B·D a step"

    dropout: float = Field(0.75, lt=1)  # share of inputs that a pass leaves out; above 0
    draws: int = Field(3, ge=1, le=1000)  # passes
    where: Where = (
        "features"  # of what: inputs of the last layer, of the head, or the backbone's layers, at their rates
    )
    multiple: float = Field(25.0, ge=1, le=10_000)  # × B: the threshold falls while there are fewer candidates

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return mismatches(self.whole(rows, prepared), self.passes(rows, prepared)).float()

    def shortlist(self, budget: int) -> Shortlist:
        return Mismatches(self.draws, int(np.ceil(self.multiple * budget)))

    @property
    def diversity(self) -> Diversity:
        return KMeans()
