"""The map over prices, against trying every way; the break-even price, against both bills at it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alray.reports.break_even import break_even_label_price, break_even_map
from alray.reports.curves import Hours
from alray.reports.savings import Need, Prices

PAPER = {
    "standard": Need(214775, Hours(53.667, 0, 53.667)),
    "svpp": Need(227275, Hours(0.4333, 0, 0.4333)),
    "asvp": Need(216575, Hours(8.6667, 0, 8.6667)),
}
needs = st.builds(Need, st.floats(1, 1e6), st.builds(Hours, st.floats(0, 99), st.floats(0, 99), st.floats(0, 99)))
prices = st.builds(Prices, st.floats(0, 10), st.floats(0, 10), st.floats(0, 10))


def test_the_papers_three_ways() -> None:
    found = break_even_map(PAPER, Prices(), label_prices=[0.001, 0.04, 1.0], hour_prices=[3.0])
    assert [cell.cheapest for cell in found.cells] == ["svpp", "asvp", "standard"]
    assert found.resource == "gpu"
    assert found.cells[1].dollars == pytest.approx(8689, abs=0.01)
    assert found.cells[1].margin == pytest.approx(8752 - 8689, abs=0.02)


def test_the_papers_break_even_prices() -> None:
    at_three = Prices(gpu_hour=3.0)
    price = break_even_label_price(PAPER["asvp"], PAPER["standard"], at_three)
    assert price == pytest.approx(3 * (53.667 - 8.6667) / 1800) == pytest.approx(0.075, abs=1e-4)
    assert break_even_label_price(PAPER["standard"], PAPER["asvp"], at_three) == pytest.approx(price)


@given(needs, needs, prices)
def test_at_the_break_even_price_both_cost_the_same(one: Need, other: Need, given_prices: Prices) -> None:
    price = break_even_label_price(one, other, given_prices)
    if price is None:
        extra = one.compute_dollars(given_prices) - other.compute_dollars(given_prices)
        assert one.labels == other.labels or extra == 0 or (extra > 0) == (one.labels > other.labels)
    else:
        there = Prices(price, given_prices.cpu_hour, given_prices.gpu_hour)
        assert one.dollars(there) == pytest.approx(other.dollars(there), rel=1e-6)


@given(st.lists(needs, min_size=1, max_size=4), prices)
def test_the_cheapest_is_the_cheapest_of_all(several: list[Need], given_prices: Prices) -> None:
    named = {f"way-{n}": one for n, one in enumerate(several)}
    found = break_even_map(named, given_prices, label_prices=[0.01, 1.0], hour_prices=[0.5, 5.0], resource="cpu")
    for cell in found.cells:
        here = Prices(cell.label_price, cell.hour_price, given_prices.gpu_hour)
        bills = {name: one.dollars(here) for name, one in named.items()}
        assert cell.dollars == min(bills.values()) == bills[cell.cheapest]
        assert (cell.margin is None) == (len(named) == 1) and (cell.margin or 0) >= 0


def test_a_text_grid_and_rows() -> None:
    found = break_even_map(PAPER, Prices(), label_prices=[0.001, 1.0], hour_prices=[1.0, 3.0])
    assert found.letters() == {"asvp": "A", "standard": "B", "svpp": "C"}
    assert found.grid() == (["", "$1/h", "$3/h"], [["$0.001 a label", "A", "C"], ["$1 a label", "B", "B"]])
    row = found.to_rows()[0]
    assert set(row) == {"resource", "label_price", "hour_price", "cheapest", "dollars", "margin"}


def test_without_a_gpu_the_cores_are_priced() -> None:
    found = break_even_map({"a": Need(10, Hours(1, 2, 0))}, Prices())
    assert found.resource == "cpu" and len(found.cells) == 54


def test_at_equal_cost_fewer_labels_win() -> None:
    tie = {"a": Need(20, Hours()), "b": Need(10, Hours())}
    assert break_even_map(tie, Prices(), label_prices=[0.0], hour_prices=[1.0]).cells[0].cheapest == "b"
