"""The price of an alignment: compute as measured, and labels that the budget has left."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from alray.campaign import outlook, pricing
from alray.campaign.prices import CostsConfig
from alray.campaign.pricing import Price
from alray.campaign.splits import Split
from alray.runtime import Resources

ROWS = Split(train={f"p{n:03d}": "a" for n in range(200)}, holdout={})


def place(total: int | None) -> Any:
    held, prices = Resources(cpus=2.0), CostsConfig(label=0.5, cpu_hour=3.6)
    settings = SimpleNamespace(budget=SimpleNamespace(total=total), costs=prices)
    return SimpleNamespace(settings=settings, runtime=SimpleNamespace(resources=held))


def round_of(asked: int) -> Any:
    """Return round 3 of a run that has asked for so many labels; the others were given."""
    balance = SimpleNamespace(committed=asked)
    return SimpleNamespace(number=3, ledger=SimpleNamespace(balance=lambda: balance))


@pytest.fixture(autouse=True)
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the estimates fall as 1 / √labels: half the errors take four times the labels."""
    found = [
        {"accuracy": 1 - 4 / n**0.5, "se": 0.002, "rows": 40_000, "fitted": n, "trained": n, "labels": n, "since": 0}
        for n in (50, 100, 200)
    ]
    monkeypatch.setattr(outlook, "estimates", lambda ledger, upto: found)
    monkeypatch.setattr(outlook, "since", lambda ledger, upto: 0)


def priced(gain: float) -> Price:
    return Price(10.0, 0.0, 0.0, 0.0, gain, False, None, None, False, None)


def test_saved_labels_are_those_of_the_curve() -> None:
    found = pricing._with_savings(priced(0.25), place(None), round_of(200), ROWS)
    assert found.labels == pytest.approx(200 * (1 / 0.75**2 - 1), rel=0.2)  # a floor is thought possible
    assert found.labels is not None and found.label_dollars == found.labels / 2 and not found.at_least


def test_no_more_is_saved_than_the_budget_has_left_and_given_labels_are_no_part_of_it() -> None:
    few = pricing._with_savings(priced(0.25), place(230), round_of(200), ROWS)
    assert (few.labels, few.at_least) == (30, True)
    given = pricing._with_savings(priced(0.25), place(130), round_of(100), ROWS)  # and 100 labels that were given
    assert (given.labels, given.at_least) == (30, True)


def test_features_that_were_there_before_are_embedded_again_at_their_estimated_price(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    zero = {"cpu_seconds": 0.0, "gpu_seconds": 0.0, "dollars": 0.0}
    bill = {"stages": {"align": {"seconds": 7.0, **zero}, "features": {"seconds": 0.0, **zero}}}
    monkeypatch.setattr(outlook, "bill", lambda ledger, prices, round: bill)
    told = Price(50.0, 0, 0, 0, 0.25, False, None, None, False, None, embedding=30.0)
    found = pricing.again(told.to_dict(), 0.5, place(None), round_of(200), ROWS)
    assert (found.seconds, found.embedding) == (37.0, 30.0)
    assert found.dollars == pytest.approx(37 * 2 * 3.6 / 3600)
    assert found.measured and found.gain == 0.5
