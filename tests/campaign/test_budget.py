"""How much a round may ask for."""

from __future__ import annotations

import pytest

from alray.campaign.budget import BudgetConfig, allowance
from alray.config import parse
from alray.errors import ConfigError


@pytest.mark.parametrize(
    ("round", "sent", "expected"), [(0, 0, 20), (1, 20, 10), (3, 40, 10), (4, 47, 3), (5, 50, 0), (6, 60, 0)]
)
def test_the_last_round_is_cut_to_what_is_left(round: int, sent: int, expected: int) -> None:
    budget = BudgetConfig(initial=20, per_round=10, total=50)
    assert allowance(budget, round=round, label_price=0.1, sent=sent, dollars=sent * 0.1) == expected


def test_dollars_buy_whole_labels() -> None:
    budget = BudgetConfig(initial=20, per_round=10, dollars=0.3)
    assert allowance(budget, round=0, label_price=0.1, sent=0, dollars=0.0) == 3
    assert allowance(budget, round=1, label_price=0.1, sent=2, dollars=0.2) == 1
    assert allowance(budget, round=1, label_price=0.11, sent=2, dollars=0.2) == 0


def test_a_budget_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an end: give `total`"):
        parse({"initial": 1, "per_round": 1}, BudgetConfig)
