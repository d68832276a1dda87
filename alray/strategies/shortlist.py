"""Shortlists: global rules over all scores, each from one small mergeable statistic a shard.

A rule gives each shard a `statistic` of its scores, adds the statistics up, and decides a `Cut`: the rows with a score
above it are the shortlist. Statistics are integers, so the sum is exact in any order.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cut:
    """The shortlist is every row with score > `above`, or the best `best` rows by (score, id)."""

    above: float = -math.inf
    best: int | None = None
    cap: float | None = None  # of a growing cap, for the report
    count: int = 0  # rows above `above`
    most: int | None = None  # keep only this many of them, the best by (score, id)


class Shortlist(ABC):
    """A rule that needs one statistic of each shard."""

    @abstractmethod
    def statistic(self, scores_N: Scores) -> Counts:
        """Return a shard's statistic; statistics of shards are added."""

    @abstractmethod
    def decide(self, total: Counts) -> Cut:
        """Return the cut for the whole pool's statistic."""


@dataclass(frozen=True)
class Best(Shortlist):
    """The `count` highest scores, ties by id."""

    count: int

    def statistic(self, scores_N: Scores) -> Counts:
        return np.array([len(scores_N)], dtype=np.int64)

    def decide(self, total: Counts) -> Cut:
        return Cut(best=min(self.count, int(total[0])))


@dataclass(frozen=True)
class All(Shortlist):
    """Every row with a score above −∞; with `most`, the best that many of them, ties by id."""

    most: int | None = None

    def statistic(self, scores_N: Scores) -> Counts:
        return np.array([int((scores_N > -np.inf).sum())], dtype=np.int64)

    def decide(self, total: Counts) -> Cut:
        count = int(total[0])
        return Cut(count=count, most=self.most if self.most is not None and self.most < count else None)


@dataclass(frozen=True)
class GrowingCap(Shortlist):
    """ALFA-Mix's growing cap: the least of `step`, 2·`step`, … with strictly more than `budget` candidates.

    The last cap is the first that reaches `last`; the first one is also the last when `step` does. Scores are minus
    critical caps; a row is a candidate at cap c when its critical cap is below c. One histogram decides all caps at
    once. When no cap has more than `budget`, the largest cap's candidates are the shortlist.
    """

    step: float
    budget: int
    multiple: float | None = None  # of the budget: at most this many candidates are kept
    last: float = 1.0

    @property
    def caps(self) -> npt.NDArray[np.float64]:
        """The caps κ·k for k = 1 … ⌈last/κ⌉: products, not a repeated sum, which would miss 1 by rounding.

        1/κ itself may round up past a whole number (κ = 1/49), which must not add a cap beyond 1.
        """
        count = max(math.ceil(self.last / self.step - 1e-9), 1)
        return np.arange(1, count + 1, dtype=np.float64) * self.step

    def statistic(self, scores_N: Scores) -> Counts:
        below = np.sort(-scores_N.astype(np.float64))
        return np.searchsorted(below, self.caps, side="left").astype(np.int64)

    def decide(self, total: Counts) -> Cut:
        enough = np.flatnonzero(total > self.budget)
        at = int(enough[0]) if len(enough) else len(total) - 1
        cap, count = float(self.caps[at]), int(total[at])
        kept = math.inf if self.multiple is None else self.multiple * self.budget
        most = int(kept) if count > kept else None
        return Cut(above=-cap, cap=cap, count=count, most=most)
