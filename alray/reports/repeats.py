"""A campaign repeated with several seeds, and what its spread over seeds says about a number made from its mean curve.

Seeds are the only thing that is drawn anew, so they are what the bootstrap draws. Two campaigns with the same seeds
share the rows of round 0, the splits and the test rows; their seeds are drawn together, which takes out what they have
in common. Others are drawn apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from alray import seeds
from alray.reports.curves import Curve, FloatArray, mean

DRAWS = 1000
LEVEL = 0.9
"""What an interval is meant to hold. If more draws than the rest are undefined, no interval can be stated."""


class Outside(Exception):
    """A number is not defined on the curves that were run; the message says why."""


@dataclass(frozen=True)
class Estimate:
    """A number from mean curves, with its 90 % interval over seeds.

    `value` is None where the mean curves do not define it, and `why` says so; `low` and `high` are None with fewer than
    two seeds, or where more than a tenth of the draws are undefined. `defined` of `draws` draws had a value.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    defined: int = 0
    draws: int = 0
    why: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Repeats:
    """One curve a seed, all at the same budgets."""

    by_seed: Mapping[int, Curve]

    @cached_property
    def mean(self) -> Curve:
        """The mean over seeds."""
        return mean([self.by_seed[seed] for seed in sorted(self.by_seed)])

    @cached_property
    def resampled(self) -> tuple[Curve, ...]:
        """The means over seeds drawn with replacement; the same seeds are always drawn in the same way."""
        names = sorted(self.by_seed)
        curves = [self.by_seed[seed] for seed in names]
        return tuple(mean(curves, counts_S) for counts_S in _counts(tuple(names)))

    def deviation_P(self) -> FloatArray | None:
        """Return the standard deviation of the accuracy over seeds (ddof 1) at each budget; None with one seed."""
        if len(self.by_seed) < 2:
            return None
        stacked = np.stack([curve.accuracy_P for curve in self.by_seed.values()])
        return np.asarray(stacked.std(axis=0, ddof=1), dtype=np.float64)


def estimate(formula: Callable[..., float], *repeats: Repeats) -> Estimate:
    """Return `formula` of the mean curves with its interval; a formula raises `Outside` where it is not defined."""
    value, why = _value(formula, [one.mean for one in repeats])
    if any(len(one.by_seed) < 2 for one in repeats):
        return Estimate(value, why=why)
    found = [_value(formula, curves)[0] for curves in zip(*(one.resampled for one in repeats), strict=True)]
    defined = [one for one in found if one is not None]
    low = high = None
    if value is not None and len(defined) >= LEVEL * DRAWS:
        tail = tail_of(min(len(one.by_seed) for one in repeats))
        low, high = np.quantile(defined, [tail, 1 - tail]).tolist()
    return Estimate(value, low, high, len(defined), DRAWS, why)


def tail_of(count: int) -> float:
    """Return the share of draws that is cut off at either end, of the means of this many seeds (two or more)."""
    from scipy import stats  # here: every command would wait for it

    t = float(stats.t.ppf((1 - LEVEL) / 2, count - 1))
    return float(stats.norm.cdf(t * math.sqrt(count / (count - 1))))


def _value(formula: Callable[..., float], curves: list[Curve] | tuple[Curve, ...]) -> tuple[float | None, str]:
    try:
        return formula(*curves), ""
    except Outside as outside:
        return None, str(outside)


def _counts(names: tuple[int, ...]) -> FloatArray:
    """Return how often each of these seeds is drawn, [draws, S]."""
    drawn = seeds.generator(0, "report", *names).multinomial(len(names), [1 / len(names)] * len(names), size=DRAWS)
    return drawn.astype(np.float64)
