"""Additive statistics of rows: sums that any split of the rows over workers adds up to.

How well features fit labels is a function of second moments alone, so no row has to travel: each shard sums its own
rows in fp64 and the sums are added. Gram sums round differently in another order; what follows from them agrees to
1e-8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.errors import ModelError

CHUNK = 4096
"""Rows that are copied to fp64 at a time."""

STD_FLOOR = 1e-3
"""A coordinate that hardly varies is not blown up by more than this (the official PED code has the same floor)."""

Rows = Tensor | npt.NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over M labelled rows of C classes, all fp64; a class without rows has zeros.

    gram_DD = FᵀF, sum_CD and square_CD the sums of each class's rows and of their squares, count_C its rows.
    """

    gram_DD: Tensor
    sum_CD: Tensor
    square_CD: Tensor
    count_C: Tensor

    @staticmethod
    def of(features_MD: Rows, target_M: Rows, classes: int) -> Moments:
        """Return the moments of rows [M, D] and their class numbers below `classes` [M].

        Raises ModelError where a value is NaN or infinite, or the targets do not fit.
        """
        features_MD, target_M = _tensor(features_MD), _tensor(target_M).long()
        _check(features_MD, target_M, classes)
        dim = features_MD.shape[1]
        total = Moments.none(dim, classes)
        total.count_C.add_(torch.bincount(target_M, minlength=classes))
        for rows_ND, target_N in zip(torch.split(features_MD, CHUNK), torch.split(target_M, CHUNK), strict=True):
            rows_ND = rows_ND.double()
            total.gram_DD.addmm_(rows_ND.T, rows_ND)
            total.sum_CD.index_add_(0, target_N, rows_ND)
            total.square_CD.index_add_(0, target_N, rows_ND.square())
        return total

    @staticmethod
    def none(dim: int, classes: int) -> Moments:
        """Return the moments of no rows."""
        gram_DD = torch.zeros(dim, dim, dtype=torch.float64)
        sum_CD = torch.zeros(classes, dim, dtype=torch.float64)
        return Moments(gram_DD, sum_CD, sum_CD.clone(), torch.zeros(classes, dtype=torch.int64))

    def __add__(self, other: Moments) -> Moments:
        """Return the moments of both sets of rows."""
        return add([self, other])

    @property
    def rows(self) -> int:
        """How many rows were summed."""
        return int(self.count_C.sum())

    @property
    def dim(self) -> int:
        """The length of a row."""
        return self.gram_DD.shape[0]

    @property
    def classes(self) -> int:
        """How many classes there are, those without rows too."""
        return len(self.count_C)

    def compact(self) -> Moments:
        """Return the moments without the classes that have no rows.

        An all-zero column of labels is no evidence of anything, yet its evidence is huge.
        """
        there_C = self.count_C > 0
        return Moments(self.gram_DD, self.sum_CD[there_C], self.square_CD[there_C], self.count_C[there_C])


def add(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all rows behind `parts`, of which there is at least one.

    Raises ModelError when they are of features of another size, or of other classes.
    """
    shapes = {(part.dim, part.classes) for part in parts}
    if len(shapes) > 1:
        raise ModelError(
            f"Moments of (features, classes) = {', '.join(map(str, sorted(shapes)))} cannot be added; expected one "
            "size. Compute all of them on the same features and with the same classes."
        )
    total = Moments.none(*shapes.pop())
    for part in parts:
        total.gram_DD.add_(part.gram_DD)
        total.sum_CD.add_(part.sum_CD)
        total.square_CD.add_(part.square_CD)
        total.count_C.add_(part.count_C)
    return total


@dataclass(frozen=True, eq=False)
class Coordinates:
    """Sums over general rows, labelled or not, fp64: how many rows, and of each coordinate the sum and the squares."""

    rows: int
    sum_D: Tensor
    square_D: Tensor

    @staticmethod
    def of(features_ND: Tensor) -> Coordinates:
        """Return the sums of rows [N, D]."""
        total = Coordinates.none(features_ND.shape[1])
        for rows_ND in torch.split(features_ND, CHUNK):
            rows_ND = rows_ND.double()
            total = total + Coordinates(len(rows_ND), rows_ND.sum(dim=0).cpu(), rows_ND.square().sum(dim=0).cpu())
        return total

    @staticmethod
    def none(dim: int) -> Coordinates:
        """Return the sums over no rows."""
        return Coordinates(0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dtype=torch.float64))

    def __add__(self, other: Coordinates) -> Coordinates:
        """Return the sums over both sets of rows."""
        return Coordinates(self.rows + other.rows, self.sum_D + other.sum_D, self.square_D + other.square_D)

    @property
    def mean_D(self) -> Tensor:
        """The mean of each coordinate; 0 of no rows."""
        return self.sum_D / max(self.rows, 1)

    @property
    def std_D(self) -> Tensor:
        """The standard deviation of each coordinate (divisor n), at least `STD_FLOOR`."""
        variance_D = self.square_D / max(self.rows, 1) - self.mean_D.square()
        return variance_D.clamp_min(0).sqrt().clamp_min(STD_FLOOR)


def _tensor(rows: Rows) -> Tensor:
    if isinstance(rows, Tensor):
        return rows
    return torch.from_numpy(rows if rows.flags.writeable else rows.copy())  # a view of a file is read-only


def _check(features_MD: Tensor, target_M: Tensor, classes: int) -> None:
    if features_MD.dim() != 2 or target_M.shape != features_MD.shape[:1]:
        raise ModelError(
            f"Features of shape {tuple(features_MD.shape)} and targets of shape {tuple(target_M.shape)} do not fit; "
            "expected [M, D] and [M]. Give one class number for each row."
        )
    wrong = int((~torch.isfinite(features_MD).all(dim=1)).sum())
    if wrong:
        raise ModelError(f"{wrong} of {len(features_MD)} rows hold NaN or infinity; leave such rows out.")
    if len(target_M) and not 0 <= int(target_M.min()) <= int(target_M.max()) < classes:
        raise ModelError(
            f"Class numbers run from {int(target_M.min())} to {int(target_M.max())}; expected 0 to {classes - 1}. "
            "Number the labels by the list of classes."
        )
