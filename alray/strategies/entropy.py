"""Entropy sampling: label where the classes are the most evenly likely."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from alray.ops import probability
from alray.strategies.base import ScoreStrategy
from alray.table import Table


class Entropy(ScoreStrategy):
    """Score = −Σ p ln p, in nats (Shannon, 1948; Dagan & Engelson, 1995)."""

    name: Literal["entropy"] = "entropy"
    needs: ClassVar[frozenset[str]] = frozenset({"probs"})
    paper: ClassVar[str] = "Dagan & Engelson, ICML 1995"
    cost: ClassVar[str] = "N·D·C"

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return probability.entropy(rows["probs"])
