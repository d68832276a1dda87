"""Margin sampling: label where the two best classes are the closest."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from alray.ops import probability
from alray.strategies.base import ScoreStrategy
from alray.table import Table


class Margin(ScoreStrategy):
    """Score = −(p₁ − p₂) (Scheffer, Decomain & Wrobel, 2001)."""

    name: Literal["margin"] = "margin"
    needs: ClassVar[frozenset[str]] = frozenset({"probs"})
    paper: ClassVar[str] = "Scheffer, Decomain & Wrobel, IDA 2001"
    cost: ClassVar[str] = "N·D·C"

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return -probability.margin(rows["probs"])
