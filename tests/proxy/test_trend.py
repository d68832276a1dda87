"""Slopes and counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alray.proxy.trend import Point, flat_rounds, growing, labels_until, slope, slopes


def line(labels: list[int], rate: float, noise: float = 0.0, seed: int = 0) -> list[Point]:
    rng = np.random.default_rng(seed)
    return [Point(n, 0.3 + rate * math.log(n) + noise * float(rng.normal())) for n in labels]


def test_the_slope_of_a_line_is_its_own() -> None:
    rounds = line([100, 110, 130, 170, 200], 0.07)
    assert slope(rounds, 1.5) == pytest.approx(0.07, abs=1e-12)
    assert slope(rounds[:2], 1.5) is None and slope(rounds[:1], 1.5) is None and slope([], 1.5) is None


def test_the_fit_takes_the_fewest_rounds_that_grow_enough() -> None:
    rounds = [Point(10, 99.0), *line([100, 150, 200, 300], 0.07)]
    assert slope(rounds, 1.5) == pytest.approx(0.07, abs=1e-12)
    assert slope(rounds[-2:], 1.5) == pytest.approx(0.07, abs=1e-12)  # from 200 to 300 is just enough
    assert slope(rounds, 4) != pytest.approx(0.07, abs=1)


def test_a_fit_over_many_rounds_hears_less_noise_than_two_of_them() -> None:
    runs = [line(list(range(200, 420, 10)), 0.1, noise=0.01, seed=seed) for seed in range(40)]
    fits = [slope(rounds, 1.5) for rounds in runs]
    pairs = [slope(rounds[-2:], 1.01) for rounds in runs]
    assert np.mean(fits) == pytest.approx(0.1, abs=0.01)  # type: ignore[arg-type]
    assert np.std(fits) < 0.1 * np.std(pairs)  # type: ignore[arg-type]


def test_slopes_are_those_of_every_round_as_it_stood() -> None:
    rounds = line([100, 120, 160, 200], 0.1)
    assert slopes(rounds, 1.5) == [None, None, slope(rounds[:3], 1.5), slope(rounds, 1.5)]
    assert labels_until(rounds, 1.5) == 150 and labels_until([], 1.5) is None


def test_rounds_without_more_labels_or_with_too_few_are_left_out() -> None:
    rounds = [Point(30, 0.0), Point(60, 0.1), Point(60, 0.1), Point(55, 5.0), Point(80, 0.2)]
    assert growing(rounds, 50) == [Point(60, 0.1), Point(80, 0.2)]
    assert growing([Point(0, 0.0)], 0) == []


def test_the_band_is_hysteresis() -> None:
    def count(*values: float | None) -> int:
        return flat_rounds(values, tau=0.1, band=0.05)

    assert count(0.1, 0.05, -0.3) == 3
    assert count(0.1, 0.12, 0.15, 0.1) == 2  # a slope inside the band neither adds nor takes away
    assert count(0.1, 0.151, 0.1) == 1  # a slope above it takes all
    assert count(0.12, 0.13) == 0
    assert count(None, 0.05, None, 0.05) == 2
    assert count() == 0
