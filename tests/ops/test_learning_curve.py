"""Learning curves: the closed form against brute force, sane on few and odd estimates, and intervals that hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from benchmarks.forecast_simulation import AHEAD, covered, simulate

from alray.ops import learning_curve
from alray.ops.learning_curve import Interval, LearningCurve

N = [40.0, 80.0, 120.0, 200.0]
ERROR = [0.31, 0.22, 0.2, 0.16]
SE = [0.05, 0.04, 0.04, 0.03]
BIAS = [0.0, 0.1, 0.2, 0.3]  # shares of the error


def fitted(labels: list[float], accuracy: list[float], se: float = 0.02) -> LearningCurve:
    curve = LearningCurve.fit(labels, accuracy, [se] * len(labels))
    assert curve is not None
    return curve


def predicted(curve: LearningCurve, labels: float) -> Interval:
    found = curve.predict(labels)
    assert found is not None
    return found


@pytest.mark.parametrize(("shared", "size"), list(itertools.product((0.0, 0.9), (0.0, 0.2))))
def test_the_closed_form_is_a_gaussian_with_a_very_wide_prior(shared: float, size: float) -> None:
    b_S, floor_S = torch.tensor([0.2, 0.5, 1.1]).double(), torch.tensor([0.0, 0.5, 0.9]).double()
    n_P, y_P, se_P = (torch.tensor(part).double() for part in (N, ERROR, SE))
    layer = learning_curve._Layer.of(n_P, y_P, se_P, torch.tensor(BIAS).double(), b_S, floor_S, shared, size)
    ahead, wide = 350.0, 1e5
    mean_S, variance_S = layer.at(math.log(ahead))
    fits = []
    for shape, (b, floor) in enumerate(zip(b_S.tolist(), floor_S.tolist(), strict=True)):
        places = np.array([*N, ahead])
        g = floor + (1 - floor) * (places / N[-1]) ** -b
        drift = layer.misfit**2 * np.exp(-abs(np.log(places)[:, None] - np.log(places)) / learning_curve._LENGTH)
        whole = drift + wide * np.outer(g, g)
        for i, j in itertools.product(range(4), range(4)):
            whole[i, j] += SE[i] ** 2 if i == j else shared * min(SE[i], SE[j]) ** 2
            whole[i, j] += BIAS[i] * (ERROR[i] + SE[i]) * BIAS[j] * (ERROR[j] + SE[j])
        seen, cross = whole[:4, :4], whole[4, :4]
        assert mean_S[shape] == pytest.approx(cross @ np.linalg.solve(seen, ERROR), abs=1e-5)
        assert variance_S[shape] == pytest.approx(whole[4, 4] - cross @ np.linalg.solve(seen, cross), abs=1e-5)
        fits.append(-0.5 * (np.linalg.slogdet(seen)[1] + np.array(ERROR) @ np.linalg.solve(seen, ERROR)))
    assert np.diff(layer.log_fit_S.numpy()) == pytest.approx(np.diff(fits), abs=1e-3)


def test_an_interval_is_that_of_draws_from_the_mixture() -> None:
    curve = fitted(N, [1 - e for e in ERROR])
    mean_G, deviation_G = (part.numpy() for part in curve._errors(300.0, 0.0))
    rng = np.random.default_rng(0)
    which = rng.choice(len(mean_G), size=200_000, p=curve.weight_G.numpy())
    draws = 1 - rng.normal(mean_G[which], deviation_G[which])
    assert predicted(curve, 300.0) == pytest.approx(np.quantile(draws, [0.05, 0.5, 0.95]), abs=2e-3)


def test_a_power_law_that_is_seen_well_is_found() -> None:
    labels = [100.0 * k for k in range(1, 11)]
    curve = fitted(labels, [1 - 0.4 * (n / 100) ** -0.6 for n in labels], se=0.0005)
    found = predicted(curve, 2000.0)
    assert found.mid == pytest.approx(1 - 0.4 * 20**-0.6, abs=0.006) and found.low < 1 - 0.4 * 20**-0.6 < found.high
    assert curve.exponent[0] == pytest.approx(0.6, abs=0.1) and curve.exponent[1] < 0.15


def test_better_estimates_say_more_and_far_is_less_certain_than_near() -> None:
    def width(found: Interval) -> float:
        return found.high - found.low

    rough, fine = fitted(N, [1 - e for e in ERROR], 0.04), fitted(N, [1 - e for e in ERROR], 0.01)
    assert width(predicted(fine, 300)) < width(predicted(rough, 300)) < width(predicted(rough, 800))
    wider, narrow = rough.predict(300, 0.99), rough.predict(300, 0.5)
    assert wider and narrow and width(wider) > width(predicted(rough, 300)) > width(narrow)
    measured = rough.predict(300, se=0.05)
    assert measured and width(measured) > width(predicted(rough, 300))


@pytest.mark.parametrize(
    "accuracy",
    [[1.0, 1.0, 1.0], [0.0, 0.0, 0.0], [0.7, 0.7, 0.7], [0.9, 0.8, 0.6], [0.2, 0.99, 0.3], [0.5, 1.0, 1.0]],
)
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("se", [1e-6, 0.02, 0.3])
def test_odd_estimates_give_sane_numbers(accuracy: list[float], count: int, se: float) -> None:
    curve = fitted([50.0, 100.0, 150.0][:count], accuracy[:count], se)
    found = [predicted(curve, n) for n in (20, 50, 100, 200, 400)]
    assert all(0 <= one.low <= one.mid <= one.high <= 1 for one in found)
    assert all(math.isfinite(value) for value in curve.exponent)
    assert len(curve.labels_for(0.9)) == 3
    if len(set(accuracy[:count])) == 1:  # nothing was gained: little is to be expected
        assert found[2].mid - 0.01 <= found[3].mid <= found[2].mid + 0.1


def test_fewer_than_two_numbers_of_labels_are_no_curve() -> None:
    assert LearningCurve.fit([], [], []) is None
    assert LearningCurve.fit([50], [0.8], [0.02]) is None
    assert LearningCurve.fit([50, 50], [0.8, 0.9], [0.02, 0.02]) is None
    assert LearningCurve.fit([], [], [], exponent=(0.5, 0.1)) is None
    assert LearningCurve.fit([50], [0.8], [0.02], exponent=(0.5, 0.1)) is not None


def test_what_all_estimates_may_be_off_by_together_is_in_the_interval() -> None:
    accuracy = [1 - e for e in ERROR]
    plain, none, shared = (LearningCurve.fit(N, accuracy, SE, bias=bias) for bias in ((), [0.0] * 4, [0.4] * 4))
    assert plain and none and shared and plain.predict(300) == none.predict(300)
    found, wider = predicted(plain, 300), predicted(shared, 300)
    assert wider.high - wider.low > 1.3 * (found.high - found.low)


def test_a_known_exponent_is_believed() -> None:
    steep, flat = (LearningCurve.fit([50], [0.8], [0.02], exponent=(b, 0.05)) for b in (1.2, 0.15))
    assert steep and flat and predicted(steep, 200).mid > predicted(flat, 200).mid + 0.02
    assert steep.exponent == pytest.approx((1.2, 0.05), abs=0.02)


def test_the_order_of_the_estimates_does_not_matter() -> None:
    one = LearningCurve.fit(N, [1 - e for e in ERROR], SE)
    other = LearningCurve.fit(N[::-1], [1 - e for e in ERROR[::-1]], SE[::-1])
    again = LearningCurve.fit(N, [1 - e for e in ERROR], SE)
    assert one and other and again
    assert one.predict(400) == again.predict(400)
    assert one.predict(400) == pytest.approx(other.predict(400), abs=1e-9)


def test_nothing_is_said_beyond_the_reach() -> None:
    curve = fitted(N, [1 - e for e in ERROR])
    assert curve.predict(4 * 200) is not None and curve.predict(4 * 200 + 1) is None
    assert curve.labels_for(0.9999) == (None, None, None)
    near = LearningCurve.fit(N, [1 - e for e in ERROR], SE, reach=1.5)
    assert near is not None and near.predict(301) is None


def test_labels_for_an_accuracy_are_where_the_intervals_meet_it() -> None:
    labels = [100.0 * k for k in range(1, 11)]
    curve = fitted(labels, [1 - 0.4 * (n / 100) ** -0.6 for n in labels], se=0.004)
    target = predicted(curve, 2000).mid
    found = curve.labels_for(target)
    assert found.low is not None and found.mid is not None and found.low < found.mid
    assert found.mid == pytest.approx(2000, rel=0.03)
    assert predicted(curve, found.low).high == pytest.approx(target, abs=2e-3)
    assert curve.labels_for(0.5) == pytest.approx((1000.0, 1000.0, 1000.0))  # reached already


@pytest.mark.parametrize(
    ("labels", "accuracy", "se"),
    [(0, 0.5, 0.1), (10, 1.1, 0.1), (10, -0.1, 0.1), (10, math.nan, 0.1), (10, 0.5, 0.0), (math.inf, 0.5, 0.1)],
)
def test_what_is_no_estimate_is_refused(labels: float, accuracy: float, se: float) -> None:
    with pytest.raises(ValueError, match=r"An estimate of .* labels\. Expected an accuracy within \[0, 1\]"):
        LearningCurve.fit([20, labels], [0.5, accuracy], [0.1, se])
    with pytest.raises(ValueError, match="2 numbers of labels, 1 accuracies"):
        LearningCurve.fit([20, 30], [0.5], [0.1, 0.1])


def test_a_90_percent_interval_holds_about_90_percent_of_the_truths() -> None:
    found = simulate("power", True, 15, seed=3) + simulate("bump", True, 15, seed=3)
    for ahead in AHEAD:
        some = [one for one in found if one.ahead == ahead]
        assert len(some) >= 120 and 0.80 <= covered(some) <= 0.98
        missed = [abs(one.mid - one.truth) for one in some]
        assert np.mean(missed) < np.mean([abs(one.now - one.truth) for one in some])  # better than no change
