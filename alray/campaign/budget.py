"""How many labels the next round may ask for: what is outstanding counts as spent (decision 14)."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from alray.config import Config


class BudgetConfig(Config):
    """Labels per round and in all. The last round is cut to what is left."""

    initial: int = Field(ge=0)  # labels of round 0, drawn at random
    per_round: int = Field(ge=1)
    total: int | None = Field(None, ge=1)  # labels, in the whole campaign
    dollars: float | None = Field(None, gt=0)  # label dollars, in the whole campaign; compute is not counted

    @model_validator(mode="after")
    def _has_an_end(self) -> Self:
        if self.total is None and self.dollars is None:
            raise ValueError("needs an end: give `total` (labels) or `dollars` (label dollars), or both")
        return self


def allowance(budget: BudgetConfig, *, round: int, label_price: float, sent: int, dollars: float) -> int:
    """Return how many labels round `round` may ask for; 0 when the budget is spent.

    `sent` labels are paid or asked for, at a price of `dollars` in all.
    """
    wanted = budget.initial if round == 0 else budget.per_round
    limits = [wanted]
    if budget.total is not None:
        limits.append(budget.total - sent)
    if budget.dollars is not None and label_price > 0:
        limits.append(int((budget.dollars - dollars) / label_price + 1e-9))  # 3 × 0.1 must buy three at 0.1
    return max(0, min(limits))
