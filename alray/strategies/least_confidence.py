"""Least confidence: label where the best class is the least likely."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from alray.ops import probability
from alray.strategies.base import ScoreStrategy
from alray.table import Table


class LeastConfidence(ScoreStrategy):
    """Score = 1 − max p (Lewis & Gale, 1994)."""

    name: Literal["least_confidence"] = "least_confidence"
    needs: ClassVar[frozenset[str]] = frozenset({"probs"})
    paper: ClassVar[str] = "Lewis & Gale, SIGIR 1994"
    cost: ClassVar[str] = "N·D·C"

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return probability.least_confidence(rows["probs"])
