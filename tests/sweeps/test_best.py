"""The front against a brute force, and the best configuration by its rule."""

from __future__ import annotations

import numpy as np
import pytest

from alray.sweeps.best import best, cost, front
from alray.sweeps.outcome import Configuration, Outcome, Point
from alray.sweeps.settings import BestConfig


def point(name: str, labels: float, accuracy: float, dollars: float | None = None) -> Point:
    return Point(name, labels, accuracy, None, labels / 10 if dollars is None else dollars)


def brute_force(points: list[Point], priced: bool) -> set[int]:
    """Return the points that no other one is as cheap and as accurate as, and better in one."""

    def beats(one: Point, other: Point) -> bool:
        cheaper, better = cost(one, priced) - cost(other, priced), one.accuracy - other.accuracy
        return cheaper <= 0 and better >= 0 and (cheaper < 0 or better > 0)

    return {id(p) for p in points if not any(beats(q, p) for q in points)}


@pytest.mark.parametrize("priced", [True, False])
def test_the_front_is_that_of_a_brute_force(priced: bool) -> None:
    rng = np.random.default_rng(0)
    for case in range(300):
        few = rng.integers(2, 6) if case % 2 else 1000  # few values: many ties
        drawn = rng.integers(0, few, size=(rng.integers(0, 25), 3))
        points = [point(str(n), *(float(x) for x in row)) for n, row in enumerate(drawn)]
        found = front(points, priced=priced)
        assert {id(p) for p in found} == brute_force(points, priced) and len(found) == len({id(p) for p in found})
        assert [cost(p, priced) for p in found] == sorted(cost(p, priced) for p in found)


class Curve(Configuration):
    """A configuration whose mean curve is given."""

    def __init__(self, name: str, points: list[Point], done: bool = True) -> None:
        super().__init__(name, ())
        self.__dict__ |= {"points": points, "_done": done}

    @property
    def done(self) -> bool:
        return bool(self.__dict__["_done"])


def outcome(*curves: Curve) -> Outcome:
    found = Outcome("home", [])
    found.__dict__["configurations"] = list(curves)
    return found


CURVES = (
    Curve("slow", [point("slow", 20, 0.5), point("slow", 40, 0.8), point("slow", 60, 0.95)]),
    Curve("quick", [point("quick", 20, 0.7), point("quick", 40, 0.9), point("quick", 60, 0.9)]),
    Curve("cut", [point("cut", 20, 0.99)], done=False),
)


def test_without_a_target_the_most_accurate_at_its_end() -> None:
    found = best(outcome(*CURVES), BestConfig())
    assert found is not None and (found.configuration.name, found.point.labels) == ("slow", 60)
    assert found.rule == "highest mean accuracy over seeds at the end"


def test_with_a_target_the_cheapest_to_it() -> None:
    found = best(outcome(*CURVES), BestConfig(target=0.8))
    assert found is not None and (found.configuration.name, found.point.labels) == (
        "quick",
        40,
    )  # as slow; then by name
    assert found.rule == "lowest mean cost to a mean accuracy of 0.8 over seeds"
    dear = Curve("quick", [point("quick", 40, 0.9, dollars=9.0)])
    found = best(outcome(CURVES[0], dear), BestConfig(target=0.8))
    assert found is not None and found.configuration.name == "slow"


def test_a_target_that_nobody_reaches_is_said() -> None:
    found = best(outcome(*CURVES), BestConfig(target=0.98))
    assert found is not None and found.configuration.name == "slow"
    assert found.rule == (
        "highest mean accuracy over seeds at the end (no configuration comes to a mean accuracy of 0.98)"
    )


def test_what_is_too_dear_is_left_out() -> None:
    cheap = Curve("cheap", [point("cheap", 20, 0.6)])
    found = best(outcome(*CURVES, cheap), BestConfig(dollars=5.0))
    assert found is not None and found.configuration.name == "cheap"
    assert found.rule.endswith(", for at most $5 on average")
    assert best(outcome(*CURVES), BestConfig(dollars=5.0)) is None


def test_ties_go_to_the_cheaper_then_to_fewer_labels_then_by_name() -> None:
    def one(name: str, labels: float, dollars: float) -> Curve:
        return Curve(name, [point(name, labels, 0.9, dollars)])

    for rule in (BestConfig(), BestConfig(target=0.9)):
        first = best(outcome(one("a", 10, 3), one("b", 20, 2)), rule)
        second = best(outcome(one("a", 20, 2), one("b", 10, 2)), rule)
        third = best(outcome(one("b", 10, 2), one("a", 10, 2)), rule)
        assert [f.configuration.name for f in (first, second, third) if f] == ["b", "b", "a"]


def test_where_nothing_has_a_price_labels_are_the_cost() -> None:
    free = [Curve(c.name, [point(p.configuration, p.labels, p.accuracy, 0.0) for p in c.points]) for c in CURVES[:2]]
    found = best(outcome(*free), BestConfig(target=0.9))
    assert found is not None and (found.configuration.name, found.point.labels) == ("quick", 40)
    assert found.rule.startswith("lowest mean labels to")


def test_nothing_finished_is_nothing_best() -> None:
    assert best(outcome(CURVES[2]), BestConfig()) is None
    assert front([]) == []
