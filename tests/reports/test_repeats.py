"""The bootstrap over seeds: deterministic, joint for the same seeds, silent where it knows nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from alray.reports.curves import Curve
from alray.reports.repeats import DRAWS, Estimate, Outside, Repeats, _counts, estimate, tail_of


def repeats(*rows: list[float], first: int = 0) -> Repeats:
    return Repeats({first + seed: Curve.of([10, 20, 30], row) for seed, row in enumerate(rows)})


def best(curve: Curve) -> float:
    return curve.best


def test_the_interval_is_that_of_all_resamples() -> None:
    """Its tails are those of a t interval: of five seeds 0.86 % and not 5 % at either end."""
    tops, tail = [0.5, 0.55, 0.52, 0.6, 0.58], 0.00857
    found = estimate(best, repeats(*([0.1, 0.2, top] for top in tops)))
    every = [np.mean(drawn) for drawn in itertools.product(tops, repeat=5)]  # 3125 equally likely ones
    assert found.value == pytest.approx(np.mean(tops))
    assert found.low == pytest.approx(np.quantile(every, tail), abs=0.005)
    assert found.high == pytest.approx(np.quantile(every, 1 - tail), abs=0.005)
    assert (found.defined, found.draws, found.why) == (DRAWS, DRAWS, "")


def test_the_tails_of_few_seeds_are_wider() -> None:
    """Oracle: a normal interval as long as the t interval, with the deviation of the resampled mean (divisor n)."""
    for count, expected in ((5, 0.00857), (10, 0.02666)):
        assert tail_of(count) == pytest.approx(expected, abs=1e-5)
    assert tail_of(2) < tail_of(3) < tail_of(5) < tail_of(100) < 0.05
    assert tail_of(100_000) == pytest.approx(0.05, abs=1e-4)


def test_ninety_percent_of_five_seeds_hold_the_truth_nearly_that_often() -> None:
    rng, held, times = np.random.default_rng(0), 0, 300
    counts = _counts((0, 1, 2, 3, 4)) / 5
    for scores in rng.normal(size=(times, 5)):
        low, high = np.quantile(counts @ scores, [tail_of(5), 1 - tail_of(5)])
        held += low <= 0 <= high
    assert 0.82 < held / times < 0.92


def test_seeds_that_agree_leave_no_doubt() -> None:
    found = estimate(best, repeats(*[[0.1, 0.2, 0.3]] * 4))
    assert found.low == pytest.approx(found.value) and found.high == pytest.approx(found.value)


def test_the_same_twice_and_whatever_the_order_of_seeds() -> None:
    one = repeats([0.1, 0.2, 0.3], [0.2, 0.3, 0.5], [0.1, 0.1, 0.4])
    turned = Repeats(dict(reversed(list(one.by_seed.items()))))
    assert estimate(best, one) == estimate(best, one) == estimate(best, turned)


def test_the_same_seeds_are_drawn_together_and_others_apart() -> None:
    rows = [0.1, 0.2, 0.3], [0.2, 0.3, 0.5], [0.1, 0.1, 0.4]

    def difference(one: Curve, other: Curve) -> float:
        return one.best - other.best

    together = estimate(difference, repeats(*rows), repeats(*rows))
    apart = estimate(difference, repeats(*rows), repeats(*rows, first=7))
    assert (together.low, together.high) == (0, 0)
    assert apart.low is not None and apart.high is not None and apart.low < -0.01 < 0.01 < apart.high


def test_one_seed_has_no_interval() -> None:
    assert estimate(best, repeats([0.1, 0.2, 0.3])) == Estimate(pytest.approx(0.3))
    assert repeats([0.1, 0.2, 0.3]).deviation_P() is None


def test_an_undefined_number_says_why_and_undefined_draws_are_counted() -> None:
    def above(bar: float, curve: Curve) -> float:
        if curve.best < bar:
            raise Outside("too low")
        return curve.best

    both = repeats([0.1, 0.2, 0.4], [0.1, 0.2, 0.6])
    never = estimate(lambda curve: above(0.9, curve), both)
    assert never == Estimate(None, None, None, 0, DRAWS, "too low")
    often = estimate(lambda curve: above(0.5, curve), both)
    assert often.value == pytest.approx(0.5) and often.low is None and often.high is None
    assert 0.7 * DRAWS < often.defined < 0.8 * DRAWS  # all but those that draw the low one twice


def test_the_deviation_is_that_of_a_sample() -> None:
    found = repeats([0.1, 0.2, 0.4], [0.1, 0.3, 0.6]).deviation_P()
    assert found is not None and found.tolist() == pytest.approx([0, np.sqrt(0.005), np.sqrt(0.02)])
