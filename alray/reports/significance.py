"""Which method beats which: paired t over seeds, and the win matrix of active-learning papers.

The published win-matrix code divides by the population's standard deviation (ddof 0) and compares with the critical
value of the sample's (ddof 1): at five seeds its 5 % test is one at 6.8 %. Both conventions are here, with the level
that each really has, so that published tables can be met and honest ones made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alray.reports.curves import FloatArray

Cells = Mapping[str, FloatArray]
"""Scores of each method in one setting, [rounds, seeds]; seeds in the same order for all, higher is better."""


@dataclass(frozen=True)
class PairedT:
    """A paired t statistic of S differences. `p` is the real two-sided probability, whatever `ddof` the t has.

    `critical` is what |t| is compared with: the two-sided value at `alpha` with S − 1 degrees of freedom. `level` is
    the probability of passing it by chance: `alpha` for ddof 1, more for ddof 0.
    """

    t: float
    ddof: int
    critical: float
    p: float
    level: float

    @property
    def significant(self) -> bool:
        """Whether |t| is above the critical value."""
        return abs(self.t) > self.critical


def paired_t(differences_S: FloatArray | Sequence[float], *, ddof: int = 1, alpha: float = 0.05) -> PairedT:
    """Return t = √S · mean / std of S ≥ 2 paired differences; without spread it is 0 or ±inf (ValueError for fewer)."""
    from scipy import stats  # here: every command would wait for it

    values_S = np.asarray(differences_S, dtype=np.float64)
    count = len(values_S)
    if count < 2 or ddof not in (0, 1):
        raise ValueError(f"A paired t needs two differences or more and a ddof of 0 or 1: got {count} and {ddof}.")
    t = _t(values_S, ddof)
    honest = math.sqrt((count - 1) / count) if ddof == 0 else 1.0  # from this t to that of ddof 1
    critical = float(stats.t.ppf(1 - alpha / 2, count - 1))
    tail = [2 * float(stats.t.sf(abs(value) * honest, count - 1)) for value in (t, critical)]
    return PairedT(t, ddof, critical, *tail)


def win_matrix(settings: Sequence[Cells], *, ddof: int = 1, alpha: float = 0.05) -> tuple[list[str], FloatArray]:
    """Return the methods, sorted, and how often the one of a row beats the one of a column, [K, K].

    Each round in which it is significantly better counts 1 / rounds, so that a cell holds at most one a setting. The
    first round is drawn at random for all: leave it out of `settings`. Every setting needs the same methods.
    """
    names = sorted(settings[0])
    wins_KK = np.zeros((len(names), len(names)))
    for cells in settings:
        if sorted(cells) != names or len({scores.shape for scores in cells.values()}) != 1:
            raise ValueError(f"Every setting needs the methods {', '.join(names)}, with the same rounds and seeds.")
        for i, row in enumerate(names):
            for j, column in enumerate(names):
                wins_KK[i, j] += _wins(cells[row] - cells[column], ddof, alpha)
    return names, wins_KK


def beaten(wins_KK: FloatArray) -> FloatArray:
    """Return how often each method is beaten by another, on average over the others, [K]; lower is better."""
    others = max(1, len(wins_KK) - 1)
    return np.asarray(wins_KK.sum(axis=0) / others)  # the diagonal is zero


def _wins(difference_RS: FloatArray, ddof: int, alpha: float) -> float:
    tests = [paired_t(difference_S, ddof=ddof, alpha=alpha) for difference_S in difference_RS]
    return sum(test.significant and test.t > 0 for test in tests) / max(1, len(tests))


def _t(values_S: FloatArray, ddof: int) -> float:
    middle = float(values_S.mean())
    if values_S.max() == values_S.min():  # no variance: its rounding must not be divided by
        return 0.0 if values_S[0] == 0 else math.copysign(math.inf, values_S[0])
    return math.sqrt(len(values_S)) * middle / float(values_S.std(ddof=ddof))
