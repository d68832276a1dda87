"""How often the learning curve's interval holds the true accuracy, on simulated campaigns.

    python tests/benchmarks/forecast_simulation.py [--campaigns 200] [--seed 0]

A campaign has ten rounds of equal size. Its true error follows a power law to a floor; a power law with a bump, as when
the number of labels passes the number of features; or an exponential, which no power law is. Each round's estimate
counts right answers on 60 to 400 rows: new ones each round, or the rows of the round before and some more, of which
each keeps being right or wrong with a probability of 0.8. After each round but the first, the accuracy one and three
rounds ahead is forecast. Prints a table (`as now` is the miss of who expects no change), and exits 1 when the 90 %
intervals hold fewer than 80 % or more than 98 % of the truths of a kind of campaign.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from alray.ops.learning_curve import LearningCurve
from alray.training.crossval import standard_error

ROUNDS = 10
AHEAD = (1, 3)
KINDS = ("power", "bump", "exponential")
KEEPS = 0.8
"""Chance that a row that is scored again is as right or wrong as it was."""


class Campaign(NamedTuple):
    """What a campaign's rounds estimate, and what is true."""

    labels: np.ndarray
    accuracy: np.ndarray  # true
    right: np.ndarray  # counted, of
    rows: np.ndarray


class Forecast(NamedTuple):
    """A forecast after `seen` rounds of the accuracy `ahead` rounds on, and what came true."""

    seen: int
    ahead: int
    low: float
    mid: float
    high: float
    truth: float
    now: float  # the last estimate


def truth(kind: str, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a true error per number of labels."""
    first, share = rng.uniform(0.08, 0.6), rng.uniform(0.0, 0.6)
    n = labels / labels[0]
    if kind == "exponential":
        return first * (share + (1 - share) * np.exp(-(n - 1) / rng.uniform(2, 10)))
    error = first * (share + (1 - share) * n ** -rng.uniform(0.15, 1.0))
    if kind == "bump":
        at, width, height = rng.uniform(0.3, 2.0), rng.uniform(0.2, 0.5), rng.choice([-1, 1]) * rng.uniform(0.08, 0.25)
        error = error * (1 + height * np.exp(-(((np.log(n) - at) / width) ** 2) / 2))
    return error


def campaign(kind: str, nested: bool, rng: np.random.Generator) -> Campaign:
    """Return one campaign."""
    labels = rng.choice([40, 100, 500]) * np.arange(1, ROUNDS + 1)
    error = truth(kind, labels, rng)
    start = int(rng.integers(60, 200))
    rows = start + int(rng.integers(0, (400 - start) // (ROUNDS - 1) + 1)) * np.arange(ROUNDS)
    if not nested:
        return Campaign(labels, 1 - error, rng.binomial(rows, 1 - error), rows)
    hard = rng.uniform(size=rows[-1])
    right = []
    for round in range(ROUNDS):
        now = np.where(rng.uniform(size=len(hard)) < KEEPS, hard, rng.uniform(size=len(hard)))
        right.append(int((now[: rows[round]] >= error[round]).sum()))
    return Campaign(labels, 1 - error, np.array(right), rows)


def forecasts(one: Campaign, level: float = 0.9) -> Iterator[Forecast]:
    """Yield what is forecast after each round, and what came true."""
    accuracy = (one.right + 0.5) / (one.rows + 1)
    se = [standard_error(right, rows) for right, rows in zip(one.right.tolist(), one.rows.tolist(), strict=True)]
    for seen in range(2, ROUNDS):
        curve = LearningCurve.fit(one.labels[:seen].tolist(), accuracy[:seen].tolist(), se[:seen])
        for ahead in AHEAD:
            place = seen - 1 + ahead
            if place >= ROUNDS or (found := curve.predict(float(one.labels[place]), level)) is None:
                continue
            yield Forecast(seen, ahead, *found, float(one.accuracy[place]), float(accuracy[seen - 1]))


def simulate(kind: str, nested: bool, campaigns: int, seed: int) -> list[Forecast]:
    """Return the forecasts of many campaigns of a kind."""
    rng = np.random.default_rng([seed, KINDS.index(kind), nested])
    return [found for _ in range(campaigns) for found in forecasts(campaign(kind, nested, rng))]


def covered(found: list[Forecast]) -> float:
    """Return the share of intervals that hold the truth."""
    return float(np.mean([one.low <= one.truth <= one.high for one in found]))


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--campaigns", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    columns = f"{'in 90 %':>8} {'width':>7} {'|error|':>8} {'as now':>7} {'bias':>7}"
    print(f"{'kind':<12} {'rows':<7} {'ahead':>5} {'n':>6} {columns}")
    wrong = 0
    for kind in KINDS:
        for nested in (True, False):
            found = simulate(kind, nested, given.campaigns, given.seed)
            for ahead in AHEAD:
                some = [one for one in found if one.ahead == ahead]
                share = covered(some)
                width = np.mean([one.high - one.low for one in some])
                miss = np.mean([abs(one.mid - one.truth) for one in some])
                bias = np.mean([one.mid - one.truth for one in some])
                naive = np.mean([abs(one.now - one.truth) for one in some])
                bad = not 0.8 <= share <= 0.98
                wrong += bad
                rows = "nested" if nested else "fresh"
                numbers = f"{share:>8.1%} {width:>7.3f} {miss:>8.4f} {naive:>7.4f} {bias:>+7.4f}"
                print(f"{kind:<12} {rows:<7} {ahead:>5} {len(some):>6} {numbers}{'  out of 80–98 %' if bad else ''}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
