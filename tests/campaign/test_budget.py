"""How much a round may ask for."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from alray.campaign.budget import BudgetConfig, allowance
from alray.campaign.costs import CostsConfig, committed_dollars, label_dollars, summary
from alray.campaign.ledger import Ledger
from alray.config import parse
from alray.errors import ConfigError
from alray.labelling import Ask, Labels


@pytest.mark.parametrize(
    ("round", "sent", "expected"), [(0, 0, 20), (1, 20, 10), (3, 40, 10), (4, 47, 3), (5, 50, 0), (6, 60, 0)]
)
def test_the_last_round_is_cut_to_what_is_left(round: int, sent: int, expected: int) -> None:
    budget = BudgetConfig(initial=20, per_round=10, total=50)
    assert allowance(budget, round=round, label_price=0.1, sent=sent, dollars=sent * 0.1) == expected


def test_rounds_may_grow() -> None:
    budget = BudgetConfig(initial=20, per_round=[10, 10, 50], total=155)
    assert [budget.wanted(round) for round in range(6)] == [20, 10, 10, 50, 50, 50]
    assert allowance(budget, round=5, label_price=0.0, sent=140, dollars=0.0) == 15


def test_dollars_buy_whole_labels() -> None:
    budget = BudgetConfig(initial=20, per_round=10, dollars=0.3)
    assert allowance(budget, round=0, label_price=0.1, sent=0, dollars=0.0) == 3
    assert allowance(budget, round=1, label_price=0.1, sent=2, dollars=0.2) == 1
    assert allowance(budget, round=1, label_price=0.11, sent=2, dollars=0.2) == 0


@pytest.mark.parametrize(
    ("share", "count", "expected"),
    [(0.0, 100, 0), (0.1, 100, 10), (0.1, 101, 11), (0.1, 5, 1), (0.5, 1, 0), (0.9, 2, 1), (0.3, 10, 3), (0.5, 0, 0)],
)
def test_a_share_of_a_round_is_drawn_at_random(share: float, count: int, expected: int) -> None:
    assert BudgetConfig(initial=1, per_round=1, total=9, control=share).controls(count) == expected


def test_a_budget_without_an_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs an end: give `total`"):
        parse({"initial": 1, "per_round": 1}, BudgetConfig)


@pytest.mark.parametrize(
    ("per_round", "shown"), [(0, "0"), ([], "[]"), ([5, 0], "[5, 0]"), (True, "true"), (2.5, "2.5")]
)
def test_what_is_no_number_of_labels_is_named(per_round: Any, shown: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse({"initial": 1, "per_round": per_round, "total": 5}, BudgetConfig)
    said = f"per_round: is {shown} (expected a whole number, 1 or more, or a list of such numbers)"
    assert said in str(raised.value)


# A budget in dollars, with labels of many prices


def price() -> st.SearchStrategy[float]:
    return st.integers(1, 500).map(lambda cents: cents / 100)


def answer(ask: Ask, label: str, source: str) -> dict[str, Any]:
    status = label if label in ("skipped", "cancelled") else "labelled"
    more = {"status": status, "label": label if status == "labelled" else None}
    return {"id": ask.id, "request_id": ask.request_id, "round": ask.round, "origin": source, **more}


@examples(max_examples=25, deadline=None)
@given(data=st.data(), label=price(), tumour=price(), crowd=price(), dollars=st.floats(0.5, 60))
def test_dollars_are_never_overspent(data: Any, label: float, tumour: float, crowd: float, dollars: float) -> None:
    prices = CostsConfig(label=label, classes={"tumour": tumour}, sources={"crowd": crowd})
    budget = BudgetConfig(initial=6, per_round=[3, 9], dollars=dollars)
    answers = st.sampled_from([(a, b) for a in ("tumour", "x", "skipped", "cancelled") for b in ("crowd", "doctor")])
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(str(Path(folder) / "run"), guard=lambda: None)
        ledger.commit_json("run.json", {"schema": 1, "name": "r"})
        bills: list[dict[str, Any]] = []
        for round in range(4):
            promised = committed_dollars(ledger, bills, prices)
            sent = ledger.balance().committed
            count = allowance(budget, round=round, label_price=prices.dearest, sent=sent, dollars=promised)
            if not count:
                break
            ledger.commit_asks([Ask("r", round, f"{round}-{n}") for n in range(count)])
            promised += count * prices.dearest
            while left := ledger.outstanding(round):
                now = committed_dollars(ledger, bills, prices)
                assert now <= promised + 1e-6 and now <= dollars + 1e-6  # an answer never costs more than was set aside
                promised = now
                some = left[: data.draw(st.integers(1, len(left)))]
                ledger.commit_answers(round, Labels.of([answer(ask, *data.draw(answers)) for ask in some]))
            assert committed_dollars(ledger, bills, prices) <= promised + 1e-6
            paid = label_dollars(ledger.answers(round), prices)
            bills.append(summary({}, prices, labels=ledger.balance(round).paid, label_dollars=paid))
        spent = label_dollars(ledger.answers(), prices)
        assert spent == pytest.approx(committed_dollars(ledger, bills, prices)) and spent <= dollars + 1e-6
