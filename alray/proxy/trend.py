"""The trend of the evidence: its slope in the logarithm of the labels, and for how many rounds it has been flat."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Point(NamedTuple):
    """One round's evidence: nats per label, of so many randomly drawn labels."""

    labels: int
    score: float


def growing(rounds: Sequence[Point], least: int) -> list[Point]:
    """Return the rounds with more labels than all before them, of those with at least `least`."""
    out: list[Point] = []
    for point in rounds:
        if point.labels >= max(least, out[-1].labels + 1 if out else 1):
            out.append(point)
    return out


def slope(rounds: Sequence[Point], window: float) -> float | None:
    """Return d score / d ln labels at the last round, by least squares; None where labels did not grow enough.

    Fitted over the fewest latest rounds of which the last has at least `window` times the labels of the first.
    """
    if not rounds:
        return None
    far = [n for n, point in enumerate(rounds) if rounds[-1].labels >= window * point.labels]
    if not far:
        return None
    log_n, score_n = np.log([p.labels for p in rounds[far[-1] :]]), np.array([p.score for p in rounds[far[-1] :]])
    away_n = log_n - log_n.mean()
    return float(away_n @ score_n / (away_n @ away_n))


def slopes(rounds: Sequence[Point], window: float) -> list[float | None]:
    """Return the slope at each round."""
    return [slope(rounds[: end + 1], window) for end in range(len(rounds))]


def flat_rounds(slopes: Sequence[float | None], *, tau: float, band: float) -> int:
    """Return the count after the last slope: up by one at `tau` or less, to zero above `tau` + `band`, else as it was.

    The band is hysteresis: a slope that comes back a little above `tau` does not undo what was counted.
    """
    count = 0
    for value in slopes:
        if value is None:
            continue
        if value <= tau:
            count += 1
        elif value > tau + band:
            count = 0
    return count


def labels_until(rounds: Sequence[Point], window: float) -> int | None:
    """Return the labels from which on there will be a slope; None without any round."""
    return math.ceil(window * rounds[0].labels) if rounds else None
