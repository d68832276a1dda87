"""The formulas of §2.9: the paper's own numbers (V9), a hand example (V10), and what must hold for every curve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alray.reports import savings
from alray.reports.curves import Curve, Hours
from alray.reports.repeats import Outside, Repeats, estimate
from alray.reports.savings import Need, Prices, cost_for, cost_reduction, equivalent_saving, saving_at, saving_for

RANDOM = Curve.of([100, 200, 400], [0.5, 0.6, 0.7])
METHOD = Curve.of([100, 150, 200], [0.5, 0.65, 0.72])

rising = st.lists(st.floats(0.01, 0.2), min_size=2, max_size=8).map(
    lambda steps: Curve.of([50 * (n + 1) for n in range(len(steps))], [sum(steps[: n + 1]) for n in range(len(steps))])
)
noisy = st.lists(st.floats(0, 1), min_size=2, max_size=8).map(
    lambda values: Curve.of([50 * (n + 1) for n in range(len(values))], values)
)


def bought(labels: float, dollars: float) -> Curve:
    """Return a curve that has 0.7 at this many labels, after sampling of `dollars` at $3 a GPU-hour."""
    gpu = dollars / 3
    return Curve.of([labels / 2, labels], [0.5, 0.7], [Hours(gpu / 2, 0, gpu / 2), Hours(gpu, 0, gpu)])


def test_v9_the_papers_bill() -> None:
    prices = Prices(label=0.04, gpu_hour=3.0)
    standard, svpp, asvp = (bought(n / 0.04, d) for n, d in ((8591, 161), (9091, 1.3), (8663, 26)))
    totals = [cost_for(0.7, prices, curve) for curve in (standard, svpp, asvp)]
    assert totals == pytest.approx([8752, 9092.3, 8689])
    hours = [savings.need(0.7, curve).hours.gpu for curve in (standard, svpp, asvp)]
    assert hours == pytest.approx([53.667, 0.4333, 8.6667], abs=5e-4)
    labels = [savings.need(0.7, curve).labels for curve in (standard, svpp, asvp)]
    assert labels == pytest.approx([214775, 227275, 216575])
    assert cost_reduction(0.7, prices, asvp, standard) == pytest.approx(1 - 8689 / 8752)
    assert cost_reduction(0.7, prices, svpp, standard) == pytest.approx(-0.0389, abs=1e-4)
    assert cost_reduction(0.7, prices, asvp, svpp) == pytest.approx(0.0444, abs=1e-4)


def test_v10_half_the_labels() -> None:
    assert RANDOM.labels_for(0.65) == pytest.approx(300)
    assert saving_at(150, METHOD, RANDOM) == pytest.approx(0.5)
    assert saving_for(0.65, METHOD, RANDOM) == pytest.approx(0.5)


def test_labels_that_no_longer_raise_the_method_are_counted() -> None:
    random = Curve.of([100, 900, 2000], [0.5, 0.65, 0.7])
    method = Curve.of([100, 500, 1000], [0.5, 0.65, 0.65])
    assert saving_at(500, method, random) == pytest.approx(1 - 500 / 900)
    assert saving_at(1000, method, random) == pytest.approx(1 - 1000 / 900)  # not the 44 % of where it became flat
    assert saving_for(0.65, method, random) == pytest.approx(1 - 500 / 900)


def test_of_a_flat_reference_the_labels_that_are_nearest() -> None:
    flat = Curve.of([100, 200, 400, 500], [0.5, 0.6, 0.6, 0.7])
    method = Curve.of([100, 150, 300, 450], [0.5, 0.6, 0.6, 0.6])
    savings_at = [saving_at(labels, method, flat) for labels in (150, 300, 450)]
    assert savings_at == pytest.approx([1 - 150 / 200, 0, 1 - 450 / 400])
    saturated = Curve.of([100, 200, 300], [0.5, 0.6, 0.6])
    assert saving_at(450, method, saturated) == pytest.approx(1 - 450 / 300)  # its last budget, and no further


def test_the_equivalent_saving_by_hand() -> None:
    prices = Prices(label=0.1, cpu_hour=0.5, gpu_hour=2.0)
    method = Curve.of([100, 150], [0.5, 0.65], [Hours(1, 2, 0.5), Hours(2, 4, 1)])
    reference = Curve.of([100, 200, 400], [0.5, 0.6, 0.7], [Hours()] * 3)
    # 300 − 150 labels; 4 core-hours and 1 GPU-hour are $4, which is 40 labels
    assert equivalent_saving(0.65, prices, method, reference) == pytest.approx(110)
    assert cost_for(0.65, prices, method) == pytest.approx(15 + 4)
    assert cost_for(0.65, prices, reference) == pytest.approx(30)
    assert cost_reduction(0.65, prices, method, reference) == pytest.approx(1 - 19 / 30)


def test_sampling_time_is_compared_at_the_last_budget_that_both_have() -> None:
    quick = Curve.of([100, 200, 400], [0.5, 0.6, 0.7], [Hours(1), Hours(2), Hours(9)])
    slow = Curve.of([100, 200, 300], [0.5, 0.6, 0.7], [Hours(5), Hours(12), Hours(30)])
    assert savings.quicker(quick, slow) == 6


def test_the_wall_clock_is_not_charged_but_what_is_held() -> None:
    assert Need(10, Hours(wall=100, cpu=2, gpu=3)).dollars(Prices(1.0, 0.5, 2.0)) == 10 + 1 + 6


def test_labels_cost_what_the_run_was_charged_or_a_price_put_on_afresh() -> None:
    method = Curve.of([100, 200], [0.5, 0.7], [Hours(), Hours(1, 1, 0)], paid=[10, 50])
    charged = Prices(0.2, 2.0, 0.0, as_paid=True)
    assert savings.need(0.6, method).label_dollars(charged) == 30
    assert cost_for(0.6, charged, method) == 31
    assert cost_for(0.6, Prices(0.2, 2.0), method) == pytest.approx(31)  # 150 labels at $0.2
    assert cost_for(0.6, Prices(1.0), method) == pytest.approx(150)
    # of dollars as charged the reduction is one too; labels that computing would buy have the average price
    other = Curve.of([100, 200], [0.5, 0.7], paid=[20, 100])
    assert cost_reduction(0.6, Prices(0.3, as_paid=True), method, other) == pytest.approx(0.5)
    assert equivalent_saving(0.6, charged, method, other) == pytest.approx(-1 / 0.2)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (lambda: saving_at(200, METHOD, RANDOM), "beyond the reference's curve"),  # 0.72: random never gets there
        (lambda: saving_at(300, METHOD, RANDOM), "no such budget was run, only 100 to 200"),
        (lambda: saving_for(0.71, RANDOM, METHOD), "not reached"),
        (lambda: saving_for(0.4, METHOD, RANDOM), "below the first budget"),
        (lambda: saving_for(0.45, Curve.of([10, 20], [0.4, 0.5]), RANDOM), "below the first budget of the reference"),
        (
            lambda: saving_at(0, Curve.of([0, 9], [0.1, 0.2]), Curve.of([0, 9], [0.1, 0.2])),
            "the reference needs no labels",
        ),
        (lambda: saving_for(0.1, METHOD, Curve.of([0, 9], [0.1, 0.2])), "below the first budget"),
        (lambda: saving_for(0.5, METHOD, Curve.of([0, 9], [0.5, 0.6])), "the reference needs no labels"),
        (lambda: cost_for(0.9, Prices(), METHOD), "not reached"),
        (lambda: cost_reduction(0.71, Prices(1), METHOD, RANDOM), "not reached by the baseline"),
        (lambda: cost_reduction(0.6, Prices(), METHOD, RANDOM), "the baseline costs nothing at these prices"),
        (lambda: savings.quicker(METHOD, RANDOM), "its sampling took no time"),
        (lambda: savings.quicker(METHOD, Curve.of([7], [0.5])), "no budget in common with the baseline"),
        (lambda: equivalent_saving(0.6, Prices(), METHOD, RANDOM), "a label costs nothing"),
        (lambda: equivalent_saving(0.71, Prices(1), METHOD, RANDOM), "beyond the reference's curve"),
    ],
)
def test_what_the_curves_do_not_say_is_not_said(formula: object, said: str) -> None:
    with pytest.raises(Outside) as outside:
        formula()  # type: ignore[operator]
    assert str(outside.value) == said


@given(noisy, st.floats(0, 1))
def test_a_curve_saves_nothing_against_itself(curve: Curve, share: float) -> None:
    labels = curve.labels_P[0] + share * (curve.labels_P[-1] - curve.labels_P[0])
    assert saving_at(float(labels), curve, curve) == 0
    assert saving_for(curve.best, curve, curve) == 0
    assert equivalent_saving(curve.best, Prices(1, 1, 1), curve, curve) == 0
    assert cost_reduction(curve.best, Prices(1, 1, 1), curve, curve) == 0


@given(rising, rising, st.floats(0.01, 1000), st.floats(0, 1.7))
def test_the_ratio_does_not_hang_on_the_unit_of_labels(one: Curve, other: Curve, scale: float, accuracy: float) -> None:
    def scaled(curve: Curve) -> Curve:
        return Curve.of((curve.labels_P * scale).tolist(), curve.accuracy_P.tolist())

    try:
        expected = saving_for(accuracy, one, other)
    except Outside:
        with pytest.raises(Outside):
            saving_for(accuracy, scaled(one), scaled(other))
    else:
        assert saving_for(accuracy, scaled(one), scaled(other)) == pytest.approx(expected, abs=1e-9)


@given(noisy, rising)
def test_at_a_budget_it_is_the_formula_with_the_labels_of_the_budget(one: Curve, other: Curve) -> None:
    for labels, accuracy in zip(one.labels_P, one.fitted_P, strict=True):
        try:
            expected = 1 - labels / savings.labels_for(float(accuracy), other)
        except Outside:
            continue
        assert saving_at(float(labels), one, other) == pytest.approx(expected, abs=1e-9)


@given(noisy, noisy, st.floats(0, 1))
def test_a_flat_reference_neither_helps_nor_harms(one: Curve, other: Curve, share: float) -> None:
    """Whichever of its labels with that accuracy counted, the saving would not be nearer to 0."""
    labels = float(one.labels_P[0] + share * (one.labels_P[-1] - one.labels_P[0]))
    accuracy = one.accuracy_at(labels)
    assert accuracy is not None
    try:
        found = saving_at(labels, one, other)
    except Outside:
        return
    having = other.labels_P[np.abs(other.fitted_P - accuracy) <= 1e-12]
    assert all(abs(found) <= abs(1 - labels / many) + 1e-9 for many in having)
    assert 1 - labels / other.labels_P[0] - 1e-9 <= found <= 1 - labels / other.labels_P[-1] + 1e-9


@given(rising, rising, st.floats(0, 2))
def test_a_saving_is_only_ever_between_budgets_that_were_run(one: Curve, other: Curve, accuracy: float) -> None:
    try:
        ratio = saving_for(accuracy, one, other)
    except Outside:
        return
    least, most = one.labels_P[0] / other.labels_P[-1], one.labels_P[-1] / other.labels_P[0]
    assert 1 - most <= ratio <= 1 - least


def test_intervals_of_savings() -> None:
    method = Repeats({s: Curve.of([100, 150], [0.5, 0.65 + 0.01 * s]) for s in range(-2, 3)})
    reference = Repeats({s: Curve.of([100, 200, 400], [0.5, 0.6 + 0.01 * s, 0.7]) for s in (5, 6, 7, 8)})
    found = estimate(lambda m, r: saving_for(0.62, m, r), method, reference)
    assert found.low is not None and found.value is not None and found.high is not None
    assert found.low < found.value < found.high and found.defined == found.draws
    same = estimate(lambda m, r: saving_for(0.62, m, r), method, method)
    assert (same.value, same.low, same.high) == (0, 0, 0)
