"""Schedules, by hand."""

from __future__ import annotations

import math

import pytest

from alray.training import schedule


def test_cosine_falls_from_one_to_zero() -> None:
    assert [schedule.falling("cosine", step, 4) for step in range(5)] == pytest.approx(
        [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0.0]
    )


def test_cosine_7_16_falls_from_one_to_a_fifth() -> None:
    factors = [schedule.falling("cosine_7_16", step, 16) for step in range(17)]
    assert factors[0] == 1.0 and factors[16] == pytest.approx(0.19509, abs=1e-5)  # cos(78.75°)
    assert factors[8] == pytest.approx(math.cos(math.radians(39.375)))  # 7/16 of a half turn, half-way
    assert factors == sorted(factors, reverse=True)


def test_the_staircase_takes_its_factor_at_each_milestone() -> None:
    assert [schedule.staircase(epoch, [2, 3], 0.1) for epoch in range(5)] == pytest.approx([1, 1, 0.1, 0.01, 0.01])
    assert schedule.staircase(99, [], 0.1) == 1.0
