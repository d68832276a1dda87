"""Strategies that leave all to their diversity: every row of the pool is a candidate, and no score comes before."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from alray.strategies.base import Strategy
from alray.strategies.diversity import Diversity
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table


class Unscored(Strategy):
    """A strategy whose rows all score 0 until they are picked."""

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return torch.zeros(len(rows))

    def shortlist(self, budget: int) -> Shortlist:
        return All()

    @property
    @abstractmethod
    def diversity(self) -> Diversity:
        """Say how the picks are kept apart."""
