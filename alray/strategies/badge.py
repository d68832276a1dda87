"""BADGE: label rows whose gradients, at the class that the head predicts, are long and differ from each other."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from alray.ops.gradients import residuals
from alray.strategies.diversity import Diversity, DSquared
from alray.strategies.kinds.in_sequence import InSequence
from alray.table import Table


class Badge(InSequence):
    """k-means++ seeding over g = (p − e_y) ⊗ h (Ash et al., ICLR 2020, algorithm 1), h as the last layer takes it.

    Distances come from the two factors; the gradients, C × H numbers a row, are never made. The first pick is the row
    with the longest gradient, as in the official code, or drawn at random as others do. D² is measured to the picks of
    this round alone. Scores count down the order of picking, so the first picks are a smaller batch of their own.
    """

    name: Literal["badge"] = "badge"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden", "probs"})
    paper: ClassVar[str] = "Ash et al., ICLR 2020"
    cost: ClassVar[str] = "B·N·(C + D)"

    first: Literal["norm", "uniform"] = "norm"

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return torch.cat([residuals(rows["probs"]), rows["hidden"]], dim=1)

    @property
    def diversity(self) -> Diversity:
        return DSquared("gradient", from_labelled=False, first=self.first, rounds=self.rounds)
