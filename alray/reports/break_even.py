"""Which way of labelling is cheapest, at which prices: a map, and the label price at which two ways cost the same.

What was measured are labels and hours; prices are put on them afresh, so that a reader with other prices can find
their own answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from alray.reports.savings import Need, Prices

Resource = Literal["gpu", "cpu"]

LABEL_PRICES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
HOUR_PRICES: Mapping[Resource, tuple[float, ...]] = {
    "gpu": (0.5, 1.0, 2.0, 3.0, 5.0, 10.0),
    "cpu": (0.01, 0.02, 0.04, 0.08, 0.16, 0.32),
}
"""Dollars: of labels from a machine's guess to an expert's; of hours from a spare one to the dearest on offer."""


@dataclass(frozen=True)
class Cell:
    """The cheapest way at one pair of prices, and what it costs. `margin` is how much dearer the next one is."""

    label_price: float
    hour_price: float
    cheapest: str
    dollars: float
    margin: float | None


@dataclass(frozen=True)
class BreakEvenMap:
    """The cheapest way at every pair of prices, row by row of label prices."""

    resource: Resource
    cells: tuple[Cell, ...]

    def to_rows(self) -> list[dict[str, Any]]:
        """Return one flat row a cell."""
        return [{"resource": self.resource, **asdict(cell)} for cell in self.cells]

    def letters(self) -> dict[str, str]:
        """Return a letter for each way that is cheapest somewhere, in the order of names."""
        names = sorted({cell.cheapest for cell in self.cells})
        return {name: chr(ord("A") + n) if n < 26 else str(n) for n, name in enumerate(names)}

    def grid(self) -> tuple[list[str], list[list[str]]]:
        """Return the headings and rows of a text table: label prices down, hour prices across, a letter a cell."""
        letters = self.letters()
        rows: dict[float, list[str]] = {}
        for cell in self.cells:
            rows.setdefault(cell.label_price, [f"${cell.label_price:g} a label"]).append(letters[cell.cheapest])
        across = dict.fromkeys(cell.hour_price for cell in self.cells)
        return ["", *(f"${price:g}/h" for price in across)], list(rows.values())


def break_even_map(
    needs: Mapping[str, Need],
    prices: Prices,
    *,
    label_prices: Sequence[float] = LABEL_PRICES,
    hour_prices: Sequence[float] | None = None,
    resource: Resource | None = None,
) -> BreakEvenMap:
    """Return which of `needs` costs least at each pair of prices; at equal cost the one with fewer labels.

    The hour that is priced across is that of a GPU where any was held, else that of a core; the other keeps its price
    in `prices`.
    """
    held: Resource = resource or ("gpu" if any(one.hours.gpu for one in needs.values()) else "cpu")
    hours = HOUR_PRICES[held] if hour_prices is None else hour_prices
    cells = (_cell(needs, _at(prices, held, label, hour), label, hour) for label in label_prices for hour in hours)
    return BreakEvenMap(held, tuple(cells))


def break_even_label_price(one: Need, other: Need, prices: Prices) -> float | None:
    """Return the label price at which both cost the same.

    It is (compute dollars of one − those of the other) / (labels of the other − those of one). None where that is not
    above 0: one of them is cheaper at every price, or they need equally many labels.
    """
    saved = other.labels - one.labels
    if not saved:
        return None
    price = (one.compute_dollars(prices) - other.compute_dollars(prices)) / saved
    return price if price > 0 else None


def _at(prices: Prices, resource: Resource, label: float, hour: float) -> Prices:
    return Prices(label, hour, prices.gpu_hour) if resource == "cpu" else Prices(label, prices.cpu_hour, hour)


def _cell(needs: Mapping[str, Need], prices: Prices, label: float, hour: float) -> Cell:
    ranked = sorted((need.dollars(prices), need.labels, name) for name, need in needs.items())
    margin = ranked[1][0] - ranked[0][0] if len(ranked) > 1 else None
    return Cell(label, hour, ranked[0][2], ranked[0][0], margin)
