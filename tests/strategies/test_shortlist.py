"""Shortlists: the growing cap against the official loop, and the best so many, from any split of the scores."""

from __future__ import annotations

import math

import numpy as np
import pytest

from alray.strategies.shortlist import Best, Cut, GrowingCap


def official_loop(critical: np.ndarray, caps: list[float], budget: int) -> tuple[int, float]:
    """Return (candidates, cap) of the loop that stops at strictly more than `budget` candidates."""
    found = np.zeros(len(critical), dtype=bool)
    for cap in caps:
        found |= critical < cap
        if found.sum() > budget:
            break
    return int(found.sum()), cap


def cut_of(rule: GrowingCap, scores: np.ndarray, shards: int = 1) -> Cut:
    return rule.decide(sum(rule.statistic(part) for part in np.array_split(scores, shards)))  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [0.2, 0.1, 0.3, 1 / 32, 1.0])
@pytest.mark.parametrize("budget", [1, 10, 300, 999, 1000, 5000])
@pytest.mark.parametrize("shards", [1, 7])
def test_the_growing_cap_is_the_official_loops(step: float, budget: int, shards: int) -> None:
    critical = np.random.default_rng(0).gamma(2, 0.4, size=1000).astype(np.float32)
    critical[::10] = np.inf
    cut = cut_of(GrowingCap(step, budget), -critical, shards)
    caps = [step * k for k in range(1, math.ceil(round(1 / step, 6)) + 1)]
    candidates, cap = official_loop(critical.astype(np.float64), caps, budget)
    assert cut.cap == pytest.approx(cap) and cut.best is None
    assert (-critical.astype(np.float64) > cut.above).sum() == candidates


def test_exactly_the_budget_is_not_enough() -> None:
    critical = np.array([0.1, 0.15, 0.3, 0.9], dtype=np.float32)
    assert cut_of(GrowingCap(0.2, 1), -critical).cap == pytest.approx(0.2)
    assert cut_of(GrowingCap(0.2, 2), -critical).cap == pytest.approx(0.4)
    assert cut_of(GrowingCap(0.2, 3), -critical).cap == pytest.approx(1.0)


def test_a_cap_at_the_row_itself_does_not_admit_it() -> None:
    critical = np.array([0.5, 0.5], dtype=np.float32)
    assert cut_of(GrowingCap(0.5, 1), -critical).cap == 1.0


def test_no_candidate_at_any_cap() -> None:
    cut = cut_of(GrowingCap(0.2, 1), np.full(9, -np.inf, dtype=np.float32))
    assert cut.cap == pytest.approx(1.0) and cut.above == -cut.cap


@pytest.mark.parametrize("parts", range(1, 1000, 7))
def test_the_last_cap_is_the_first_that_reaches_one(parts: int) -> None:
    caps = GrowingCap(1 / parts, 1).caps
    assert len(caps) == parts and caps[-1] == pytest.approx(1)


def test_caps_of_a_whole_number_of_steps_that_rounds_up() -> None:
    assert 1 / (1 / 49) > 49 and len(GrowingCap(1 / 49, 1).caps) == 49


def test_caps_are_products() -> None:
    np.testing.assert_array_equal(GrowingCap(0.3, 1).caps, [0.3, 0.6, 0.3 * 3, 1.2])
    np.testing.assert_array_equal(GrowingCap(0.1, 1).caps, [0.1 * k for k in range(1, 11)])


def test_the_best_are_no_more_than_there_are() -> None:
    rule = Best(10)
    total = rule.statistic(np.zeros(4, np.float32)) + rule.statistic(np.zeros(3, np.float32))
    assert rule.decide(total) == Cut(best=7) and Best(3).decide(total) == Cut(best=3)
