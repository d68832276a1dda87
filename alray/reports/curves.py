"""A learning curve: accuracy, hours and dollars against the labels paid for; made monotone, never extended.

The question is always how many labels an accuracy takes. A measured curve rises and falls by chance, and would answer
it twice; isotonic regression gives the nearest curve that never falls (a running maximum would take every lucky round
for the truth). Beyond the budgets that were run nothing is known, and None says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

ROUNDING = 1e-12
"""Accuracies closer than this are one: a mean over seeds is off by as much as its last bits."""


@dataclass(frozen=True)
class Hours:
    """Hours by the wall clock, and summed over the cores and the GPUs that were held."""

    wall: float = 0.0
    cpu: float = 0.0
    gpu: float = 0.0


@dataclass(frozen=True, eq=False)
class Curve:
    """P measured points of one campaign, or of the mean of several.

    `labels_P` rise strictly; `hours_P3` are the hours of sampling (wall, cpu, gpu) until that many labels were asked
    for; `weights_P` say how much each point counts where the curve has to be made monotone; `paid_P` are the dollars
    that these labels cost. Raises ValueError for points that are none.
    """

    labels_P: FloatArray
    accuracy_P: FloatArray
    hours_P3: FloatArray
    weights_P: FloatArray
    paid_P: FloatArray

    @staticmethod
    def of(
        labels: Sequence[float],
        accuracy: Sequence[float],
        hours: Sequence[Hours] | None = None,
        weights: Sequence[float] | None = None,
        paid: Sequence[float] | None = None,
    ) -> Curve:
        """Return the curve through these points, of no hours and no dollars if not given, with weights of 1."""
        spent = [Hours()] * len(labels) if hours is None else hours
        return Curve(
            np.asarray(labels, dtype=np.float64),
            np.asarray(accuracy, dtype=np.float64),
            np.array([(h.wall, h.cpu, h.gpu) for h in spent], dtype=np.float64).reshape(len(spent), 3),
            np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64),
            np.zeros(len(labels)) if paid is None else np.asarray(paid, dtype=np.float64),
        )

    def __post_init__(self) -> None:
        points = len(self.labels_P)
        if not points or len(self.accuracy_P) != points or self.hours_P3.shape != (points, 3):
            raise ValueError(f"{points} labels, {len(self.accuracy_P)} accuracies, {self.hours_P3.shape} hours.")
        if not (np.diff(self.labels_P) > 0).all():
            raise ValueError(f"The labels of a curve rise from point to point; these do not: {self.labels_P.tolist()}.")
        numbers = np.concatenate([self.labels_P, self.accuracy_P, self.hours_P3.ravel(), self.weights_P, self.paid_P])
        whole = len(self.weights_P) == len(self.paid_P) == points
        if not np.isfinite(numbers).all() or not whole or not (self.weights_P > 0).all():
            raise ValueError("The points of a curve are finite numbers, and its weights are above 0.")

    @cached_property
    def fitted_P(self) -> FloatArray:
        """The accuracies made monotone: the rising ones nearest to them in weighted squares."""
        from sklearn.isotonic import isotonic_regression  # here: every command would wait for it

        return np.asarray(isotonic_regression(self.accuracy_P, sample_weight=self.weights_P), dtype=np.float64)

    @property
    def best(self) -> float:
        """The highest accuracy of the monotone curve."""
        return float(self.fitted_P[-1])

    def labels_for(self, accuracy: float) -> float | None:
        """Return the least labels at which the monotone curve has this accuracy; None outside of what it spans.

        Between two budgets the curve is a straight line; on a flat part the answer is where that part begins.
        """
        at = int(np.searchsorted(self.fitted_P, accuracy - ROUNDING))
        if at == len(self.fitted_P) or (at == 0 and accuracy < self.fitted_P[0] - ROUNDING):
            return None
        if at == 0:
            return float(self.labels_P[0])
        return self._between(at, accuracy)

    def labels_near(self, accuracy: float, labels: float) -> float | None:
        """Return those of the labels with this accuracy that are nearest to `labels`; None outside of what it spans.

        Where the curve rises, one number of labels has an accuracy, and that is `labels_for`; on a flat part all from
        its first to its last have.
        """
        here, first = self.accuracy_at(labels), self.labels_for(accuracy)
        if here is not None and abs(here - accuracy) <= ROUNDING:
            return float(labels)
        return first if first is None or labels <= first else self._last_with(accuracy)

    def accuracy_at(self, labels: float) -> float | None:
        """Return the accuracy of the monotone curve at this many labels; None outside of the budgets that were run."""
        if not self.labels_P[0] <= labels <= self.labels_P[-1]:
            return None
        return float(np.interp(labels, self.labels_P, self.fitted_P))

    def hours_at(self, labels: float) -> Hours | None:
        """Return the hours of sampling until this many labels were asked for; None outside of the budgets."""
        if not self.labels_P[0] <= labels <= self.labels_P[-1]:
            return None
        return Hours(*(float(np.interp(labels, self.labels_P, hours_P)) for hours_P in self.hours_P3.T))

    def paid_at(self, labels: float) -> float | None:
        """Return the dollars that this many labels cost; None outside of the budgets that were run."""
        if not self.labels_P[0] <= labels <= self.labels_P[-1]:
            return None
        return float(np.interp(labels, self.labels_P, self.paid_P))

    def _last_with(self, accuracy: float) -> float:
        """Return the most labels at which the curve has this accuracy, which it spans."""
        above = int(np.searchsorted(self.fitted_P, accuracy + ROUNDING, side="right"))
        return float(self.labels_P[-1]) if above == len(self.fitted_P) else self._between(above, accuracy)

    def _between(self, at: int, accuracy: float) -> float:
        """Return where the straight line from the point before `at` has this accuracy."""
        (low, high), (few, many) = self.fitted_P[at - 1 : at + 1], self.labels_P[at - 1 : at + 1]
        return float(np.clip(few + (accuracy - low) / (high - low) * (many - few), few, many))


def mean(curves: Sequence[Curve], counts: FloatArray | None = None) -> Curve:
    """Return the mean of curves at the same budgets, each taken `counts` times (once where not given).

    Accuracies are averaged before the mean is made monotone: made monotone one by one, each would be pushed up by its
    own noise. Raises ValueError where budgets differ.
    """
    first = curves[0]
    if any(not np.array_equal(curve.labels_P, first.labels_P) for curve in curves):
        raise ValueError("Only curves at the same budgets have a mean.")
    share_S = np.ones(len(curves)) if counts is None else counts
    share_S = share_S / share_S.sum()
    return Curve(
        first.labels_P,
        share_S @ np.stack([curve.accuracy_P for curve in curves]),
        np.tensordot(share_S, np.stack([curve.hours_P3 for curve in curves]), axes=1),
        share_S @ np.stack([curve.weights_P for curve in curves]),
        share_S @ np.stack([curve.paid_P for curve in curves]),
    )
