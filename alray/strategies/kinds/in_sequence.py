"""Strategies whose picks follow one another: every row is a candidate, worth what the picks before leave it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from alray.strategies.diversity import Rounds
from alray.strategies.kinds.unscored import Unscored
from alray.table import Table


class InSequence(Unscored):
    """An unscored strategy whose rows have to have points that are numbers."""

    exact: ClassVar[bool] = True  # with `rounds: exact`

    rounds: Rounds = "exact"  # two_round: blocks of shards first, then their picks; approximate, and the report says so

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        """Return 0, or NaN for a row whose points are not numbers."""
        points_NP = self.points(rows, prepared)
        measured_NP = rows["features"] if points_NP is None else points_NP
        return torch.where(measured_NP.isfinite().all(dim=1), 0.0, torch.nan)
