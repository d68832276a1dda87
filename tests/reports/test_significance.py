"""Paired t in both conventions (V8) and the win matrix (P41)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from alray.reports.significance import beaten, paired_t, win_matrix

V8 = [1, 2, 0, 3, 0.3]


def test_v8_both_conventions() -> None:
    population, sample = paired_t(V8, ddof=0), paired_t(V8, ddof=1)
    assert (population.t, sample.t) == (pytest.approx(2.5400, abs=5e-5), pytest.approx(2.2718, abs=5e-5))
    assert population.critical == sample.critical == pytest.approx(2.776, abs=5e-4)
    assert population.level == pytest.approx(0.0680, abs=5e-5) and sample.level == pytest.approx(0.05)
    assert population.p == pytest.approx(sample.p)  # the probability is a fact, not a convention
    assert not population.significant and not sample.significant


def test_a_difference_between_the_two_thresholds() -> None:
    base = np.array([1.0, 2.0, 0.0, 3.0, 0.3])
    shifted = base + 0.15  # t is 2.84 with ddof 0 and 2.54 with ddof 1; the critical value is 2.776
    assert paired_t(shifted, ddof=0).significant and not paired_t(shifted, ddof=1).significant


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9))
def test_it_is_scipys_one_sample_test(values: list[float]) -> None:
    if np.std(values) < 1e-6:
        return
    found, expected = paired_t(values), stats.ttest_1samp(values, 0)
    assert (found.t, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))


@pytest.mark.parametrize("ddof", [0, 1])
def test_p41_no_variance_is_not_divided_by(ddof: int) -> None:
    none, more, less = (paired_t([v] * 5, ddof=ddof) for v in (0.0, 0.1, -0.1))
    assert (none.t, none.p, none.significant) == (0, 1, False)
    assert (more.t, more.p, more.significant) == (math.inf, 0, True)
    assert less.t == -math.inf


@pytest.mark.parametrize("ddof", [0, 1])
def test_p41_identical_methods_never_win(ddof: int) -> None:
    scores = np.random.default_rng(0).random((3, 5))
    names, wins_KK = win_matrix([{"b": scores, "a": scores.copy()}], ddof=ddof)
    assert names == ["a", "b"] and not wins_KK.any()


def test_a_win_matrix_by_hand() -> None:
    base = np.zeros((2, 5))
    ahead = np.array([[0.2, 0.21, 0.2, 0.19, 0.2], [0.5, -0.5, 0.1, 0.0, -0.1]])  # clear in one of two rounds
    between = np.array([np.array(V8) + 0.15, np.zeros(5)])  # clear by the lax convention alone
    settings = [{"base": base, "ahead": ahead, "between": between}]
    names, strict = win_matrix(settings, ddof=1)
    assert names == ["ahead", "base", "between"]
    assert strict[0].tolist() == [0, 0.5, 0] and strict[1].tolist() == [0, 0, 0]
    assert strict[2].tolist() == [0, 0, 0]
    _, lax = win_matrix(settings, ddof=0)
    assert lax[2].tolist() == [0, 0.5, 0]
    _, twice = win_matrix(settings * 2)
    assert np.array_equal(twice, 2 * strict)  # at most one a setting
    assert beaten(strict).tolist() == [0, 0.25, 0]


def test_what_is_no_pair() -> None:
    with pytest.raises(ValueError, match="two differences or more and a ddof of 0 or 1: got 1 and 1"):
        paired_t([0.3])
    with pytest.raises(ValueError, match="got 5 and 2"):
        paired_t(V8, ddof=2)
    with pytest.raises(ValueError, match="needs the methods a, b"):
        win_matrix([{"a": np.zeros((1, 5)), "b": np.zeros((1, 5))}, {"a": np.zeros((1, 5))}])
    with pytest.raises(ValueError, match="same rounds and seeds"):
        win_matrix([{"a": np.zeros((1, 5)), "b": np.zeros((2, 5))}])
