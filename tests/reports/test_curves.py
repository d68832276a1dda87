"""Curves: monotone, read by straight lines between budgets, and never beyond them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alray.reports.curves import Curve, Hours, mean

accuracies = st.lists(st.floats(0, 1, allow_subnormal=False), min_size=1, max_size=8)


def curve(accuracy: list[float]) -> Curve:
    return Curve.of([10.0 * (n + 1) for n in range(len(accuracy))], accuracy)


def brute_isotonic(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the isotonic fit by its min-max formula, which looks at every interval."""
    n = len(values)

    def average(i: int, j: int) -> float:
        return float(np.average(values[i : j + 1], weights=weights[i : j + 1]))

    return np.array([max(min(average(i, j) for j in range(k, n)) for i in range(k + 1)) for k in range(n)])


def test_a_curve_by_hand() -> None:
    found = Curve.of([100, 200, 300, 400], [0.5, 0.7, 0.6, 0.8])
    assert found.fitted_P.tolist() == pytest.approx([0.5, 0.65, 0.65, 0.8])
    assert found.labels_for(0.5) == 100
    assert found.labels_for(0.575) == pytest.approx(150)
    assert found.labels_for(0.65) == pytest.approx(200)  # a flat part answers where it begins
    assert found.labels_for(0.725) == pytest.approx(350)
    assert found.labels_for(0.8) == 400
    assert found.labels_for(0.49) is None and found.labels_for(0.81) is None
    assert found.accuracy_at(150) == pytest.approx(0.575)
    assert found.accuracy_at(250) == pytest.approx(0.65)
    assert found.accuracy_at(99) is None and found.accuracy_at(401) is None
    assert found.best == 0.8


def test_weights_pull_the_flat_parts() -> None:
    assert Curve.of([1, 2], [0.9, 0.5], weights=[3, 1]).fitted_P.tolist() == pytest.approx([0.8, 0.8])


@given(accuracies, st.data())
def test_the_fit_is_the_isotonic_one(accuracy: list[float], data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.floats(0.1, 10), min_size=len(accuracy), max_size=len(accuracy)))
    found = Curve.of(range(1, len(accuracy) + 1), accuracy, weights=weights)
    assert np.allclose(found.fitted_P, brute_isotonic(np.array(accuracy), np.array(weights)), atol=1e-9)


@given(accuracies, st.floats(-0.2, 1.2))
def test_the_least_labels_of_a_fine_grid(accuracy: list[float], wanted: float) -> None:
    found = curve(accuracy)
    grid = np.linspace(found.labels_P[0], found.labels_P[-1], 4001)
    high = np.interp(grid, found.labels_P, found.fitted_P) >= wanted
    labels = found.labels_for(wanted)
    if wanted < found.fitted_P[0] - 1e-9 or wanted > found.best + 1e-9:
        assert labels is None
    elif labels is not None and np.abs(found.fitted_P - wanted).min() > 1e-9:
        step = (grid[-1] - grid[0]) / 4000
        assert 0 <= grid[np.argmax(high)] - labels + 1e-9 <= step + 2e-9


def test_of_a_flat_part_the_nearest_labels_by_hand() -> None:
    found = Curve.of([100, 200, 300, 400], [0.5, 0.65, 0.65, 0.8])
    assert [found.labels_near(0.65, labels) for labels in (50, 250, 350, 900)] == pytest.approx([200, 250, 300, 300])
    assert [found.labels_near(0.575, labels) for labels in (50, 900)] == pytest.approx([150, 150])
    assert Curve.of([100, 200], [0.5, 0.5]).labels_near(0.5, 900) == 200  # and no further
    assert found.labels_near(0.49, 100) is None and found.labels_near(0.81, 400) is None


@given(accuracies, st.floats(0, 100), st.integers(0, 7))
def test_the_nearest_labels_of_all_that_have_the_accuracy(accuracy: list[float], labels: float, point: int) -> None:
    found = curve(accuracy)
    wanted = found.fitted_P[point % len(accuracy)]
    having = found.labels_P[np.abs(found.fitted_P - wanted) <= 1e-12]
    near = found.labels_near(float(wanted), labels)
    assert near == pytest.approx(min(max(labels, having[0]), having[-1]), abs=1e-6)


@given(accuracies, st.floats(0, 100))
def test_nothing_is_said_beyond_the_budgets(accuracy: list[float], labels: float) -> None:
    found = curve(accuracy)
    inside = found.labels_P[0] <= labels <= found.labels_P[-1]
    assert (found.accuracy_at(labels) is not None) == inside
    assert (found.hours_at(labels) is not None) == (found.paid_at(labels) is not None) == inside
    assert found.labels_for(found.best + 0.001) is None
    assert found.labels_for(found.fitted_P[0] - 0.001) is None


def test_hours_lie_on_straight_lines_too() -> None:
    found = Curve.of([10, 20], [0.1, 0.2], [Hours(1, 2, 0), Hours(2, 4, 8)])
    assert found.hours_at(15) == Hours(1.5, 3.0, 4.0)


def test_dollars_lie_on_straight_lines_and_have_a_mean() -> None:
    one, other = (Curve.of([10, 20], [0.1, 0.2], paid=paid) for paid in ([1, 5], [3, 9]))
    assert one.paid_at(15) == 3
    assert mean([one, other]).paid_P.tolist() == [2, 7]
    assert Curve.of([10, 20], [0.1, 0.2]).paid_at(15) == 0
    with pytest.raises(ValueError, match="finite"):
        Curve.of([10, 20], [0.1, 0.2], paid=[1])


def test_the_mean_is_made_monotone_after_it_is_taken() -> None:
    one, other = Curve.of([1, 2], [0.2, 0.6], [Hours(1), Hours(2)]), Curve.of([1, 2], [0.4, 0.0], [Hours(3), Hours(4)])
    both = mean([one, other])
    assert both.accuracy_P.tolist() == pytest.approx([0.3, 0.3])
    assert both.hours_P3[:, 0].tolist() == [2, 3]
    assert mean([one, other], np.array([2.0, 0.0])).accuracy_P.tolist() == pytest.approx([0.2, 0.6])
    assert mean([one, one, one]).labels_for(0.6) == 2  # the rounding of a mean keeps nobody from his target
    with pytest.raises(ValueError, match="same budgets"):
        mean([one, Curve.of([1, 3], [0.1, 0.2])])


@pytest.mark.parametrize(
    ("labels", "accuracy", "weights", "said"),
    [
        ([], [], None, "0 labels"),
        ([1, 2], [0.1], None, "2 labels, 1 acc"),
        ([2, 2], [0.1, 0.2], None, r"do not: \[2.0, 2.0\]"),
        ([1, 2], [0.1, float("nan")], None, "finite"),
        ([1, 2], [0.1, 0.2], [1, 0], "above 0"),
    ],
)
def test_points_that_are_no_curve(labels: list[float], accuracy: list[float], weights: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Curve.of(labels, accuracy, weights=weights)  # type: ignore[arg-type]
