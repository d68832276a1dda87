"""Which calls are out, and which of them are late: on a clock of the test's own."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from alray.runtime.ray_flights import SLOW, SLOW_S, START_S, Flights


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def flown(clock: Clock, rows: Callable[[int], int], seconds: float) -> Flights:
    """Return flights after three calls of ten rows each, answered within so many seconds on slot 0."""
    out = Flights(rows, clock)
    for number in range(3):
        out.start(f"r{number}", number, 0)
        clock.now += seconds
        out.learn(out.end(f"r{number}"))
    return out


def test_a_call_is_late_after_twice_the_median(clock: Clock) -> None:
    out = flown(clock, lambda number: 10, 30.0)
    out.start("slow", 7, 1)
    clock.now += SLOW * 30.0
    assert not out.late(1)
    clock.now += 0.1
    assert out.late(1) and not out.late(0)  # slot 0 has nothing to do


def test_a_larger_shard_may_take_longer(clock: Clock) -> None:
    out = flown(clock, lambda number: 100 if number == 7 else 10, 30.0)
    out.start("large", 7, 1)
    clock.now += 10 * SLOW * 30.0
    assert not out.late(1)
    clock.now += 0.1
    assert out.late(1)


def test_quick_calls_are_not_late_for_a_while_and_nothing_is_before_three_have_ended(clock: Clock) -> None:
    out = flown(clock, lambda number: 10, 0.01)
    out.start("b", 7, 1)
    clock.now += SLOW_S
    assert not out.late(1)
    clock.now += 0.1
    assert out.late(1)
    fresh = Flights(lambda number: 10, clock)
    fresh.start("a", 0, 0)
    clock.now += 1e6
    assert not fresh.late(0)


def test_a_calls_time_begins_when_the_one_before_it_has_ended(clock: Clock) -> None:
    out = flown(clock, lambda number: 10, 30.0)
    out.start("first", 7, 1)
    out.start("behind", 8, 1)
    clock.now += 59.0
    out.end("first")
    clock.now += 59.0
    assert not out.late(1)
    clock.now += 2.0
    assert out.late(1)


def test_a_worker_that_starts_is_given_time(clock: Clock) -> None:
    out = flown(clock, lambda number: 10, 0.01)
    out.start("first of a new worker", 7, 1)
    clock.now += SLOW_S + 0.1
    assert out.late(1) and not out.late(1, fresh=True)
    clock.now += START_S
    assert out.late(1, fresh=True)


def test_a_call_that_failed_says_nothing_of_how_long_calls_take(clock: Clock) -> None:
    out = flown(clock, lambda number: 10, 30.0)
    for number in range(10, 20):
        out.start("lost", number, 0)
        out.end("lost")  # and no `learn`
    out.start("usual", 7, 1)
    clock.now += 59.0
    assert not out.late(1)


def test_a_slots_calls_are_dropped_with_its_worker(clock: Clock) -> None:
    out = Flights(lambda number: 1, clock)
    out.start("a", 4, 0)
    out.start("b", 6, 0)
    out.start("copy", 4, 1, copy=True)
    assert (out.busy(0), out.busy(1), out.copies(4), out.numbers) == (2, 1, 2, [4, 6])
    assert out.drop(0) == [4, 6]
    assert (out.busy(0), out.copies(4), out.numbers, out.references) == (0, 1, [4], ["copy"])
    assert out.of(1)[0][1].copy
