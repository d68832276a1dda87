"""How many labels the next round may ask for, and how many of them are drawn at random.

What is outstanding counts as spent (decision 14), and what is not answered yet at the dearest price that it can have.
"""

from __future__ import annotations

import math
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from alray.config import Config
from alray.mistakes import shown

SLACK = 1e-9  # 3 × 0.1 must buy three at 0.1


class BudgetConfig(Config):
    """Labels per round and in all. The last round is cut to what is left."""

    initial: int = Field(ge=0)  # labels of round 0, drawn at random
    per_round: int | list[int]  # labels of each round after round 0; a list: of rounds 1, 2, …, the last for all others
    total: int | None = Field(None, ge=1)  # labels, in the whole campaign
    dollars: float | None = Field(None, gt=0)  # label dollars, in the whole campaign; compute is not counted
    control: float = Field(0.0, ge=0, lt=1)  # share of each round after the first that is drawn at random

    @field_validator("per_round", mode="before")
    @classmethod
    def _whole_numbers(cls, value: Any) -> Any:
        counts = value if isinstance(value, list) else [value]
        if not counts or not all(type(count) is int and count >= 1 for count in counts):
            raise ValueError(f"is {shown(value)} (expected a whole number, 1 or more, or a list of such numbers)")
        return value

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.total is None and self.dollars is None:
            raise ValueError("needs an end: give `total` (labels) or `dollars` (label dollars), or both")
        return self

    def wanted(self, round: int) -> int:
        """Return the labels of a round before any limit; the last number of a list holds for all rounds after it."""
        if round == 0:
            return self.initial
        if isinstance(self.per_round, int):
            return self.per_round
        return self.per_round[min(round, len(self.per_round)) - 1]

    def of_strategy(self, round: int) -> int:
        """Return how many labels of a whole later round the strategy chooses."""
        return self.wanted(round) - self.controls(self.wanted(round))

    def controls(self, count: int) -> int:
        """Return how many of a later round's `count` labels are drawn at random: rounded up, but never all of them."""
        return max(0, min(count - 1, math.ceil(self.control * count - SLACK)))


def allowance(budget: BudgetConfig, *, round: int, label_price: float, sent: int, dollars: float) -> int:
    """Return how many labels round `round` may ask for; 0 when the budget is spent.

    `sent` labels are paid or asked for, at a price of `dollars` in all; `label_price` is the most that one more costs.
    """
    limits = [budget.wanted(round)]
    if budget.total is not None:
        limits.append(budget.total - sent)
    if budget.dollars is not None and label_price > 0:
        limits.append(int((budget.dollars - dollars) / label_price + SLACK))
    return max(0, min(limits))
