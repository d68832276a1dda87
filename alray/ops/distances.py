"""Distances whose bits hang on two rows alone: not on how many are computed at once, where, or in which order.

A sequential choice computes the distance of a row to a centre beside a thousand others on a shard, and alone at the
root, and both must agree in the last bit. Those of fp64 GEMMs do not: their kernels depend on shapes. So each row is
rounded once to a grid, so coarse that every product of two rows is a sum of whole multiples below 2⁵³: exact, in any
order, on any processor. Rows of fp16 features lie on their grid already, but for coordinates a few thousand times
smaller than the largest. All three distances are k(x, x) + k(y, y) − 2 k(x, y) for some k, so equal rows have the
distance 0, exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

MetricName = Literal["euclidean", "symmetric_kl", "gradient"]

EXACT_BITS = 53
"""Whole numbers below 2⁵³ are exact in fp64."""

STORED_BITS = 24
"""Whole numbers below 2²⁴ are exact in fp32, in which rows are kept."""

FLOOR = 1e-12
"""The least probability whose logarithm is taken."""

LOG_STEP = 2.0**-19
"""The grid of ln p: −ln `FLOOR` < 32 then takes 24 bits."""


def on_grid(x_NP: Tensor) -> Tensor:
    """Return each row rounded to multiples of a power of two of its own, fp32 [N, P].

    The power is such that no sum of P products of two rows needs more than 53 bits: 22 bits below the row's largest
    number for P = 512, 24 at most.
    """
    wide_NP, width = x_NP.double(), max(x_NP.shape[1], 1)
    bits = min(STORED_BITS, (EXACT_BITS - math.ceil(math.log2(width))) // 2)
    top_N1 = wide_NP.abs().amax(dim=1, keepdim=True)
    mantissa_N1 = torch.frexp(top_N1).mantissa
    power_N1 = torch.where(top_N1 > 0, top_N1 / mantissa_N1, 1.0)  # of two, exactly: the next above the largest
    step_N1 = power_N1 * 2.0**-bits
    return ((wide_NP / step_N1).round() * step_N1).float()


def compact(rows_NG: Tensor) -> Tensor:
    """Return the rows in fp16 if that loses nothing, else as they are."""
    half_NG = rows_NG.half()
    return half_NG if torch.equal(half_NG.to(rows_NG.dtype), rows_NG) else rows_NG


@dataclass(frozen=True)
class Metric(ABC):
    """A squared distance between rows of points; all but `place` take rows that are on the grid, [N, G]."""

    @abstractmethod
    def place(self, points_NP: Tensor) -> Tensor:
        """Return points rounded to the grid, fp32 [N, G]: what travels, and what centres are made of."""

    @abstractmethod
    def cross(self, rows_NG: Tensor, others_KG: Tensor) -> Tensor:
        """Return k of each row and each other, fp64 [N, K], for fp64 rows."""

    @abstractmethod
    def own(self, rows_NG: Tensor) -> Tensor:
        """Return k of each row and itself, fp64 [N]: its squared distance to a point that says nothing."""

    def squared(self, rows_NG: Tensor, others_KG: Tensor) -> Tensor:
        """Return the squared distances, fp64 [N, K], ≥ 0."""
        rows_NG, others_KG = rows_NG.double(), others_KG.double()
        both_NK = self.own(rows_NG)[:, None] + self.own(others_KG)
        return (both_NK - 2 * self.cross(rows_NG, others_KG)).clamp_min(0)

    def length(self, squared: float) -> float:
        """Return the distance as people quote it."""
        return math.sqrt(squared)


@dataclass(frozen=True)
class Euclidean(Metric):
    """‖x − y‖²."""

    def place(self, points_NP: Tensor) -> Tensor:
        return on_grid(points_NP)

    def cross(self, rows_NG: Tensor, others_KG: Tensor) -> Tensor:
        return rows_NG @ others_KG.T

    def own(self, rows_NG: Tensor) -> Tensor:
        return rows_NG.double().square().sum(dim=1)


@dataclass(frozen=True)
class SymmetricKL(Metric):
    """½ KL(p‖q) + ½ KL(q‖p) = ½ Σ (p − q)(ln p − ln q) of probabilities, their logarithms floored at ln 1e-12.

    p is rounded to multiples of 2⁻²⁴ and ln p to multiples of 2⁻¹⁹. Both keep the order of numbers, so every term stays
    ≥ 0; and as the probabilities of a row add up to one, every sum is exact for any number of classes. It has no root.
    """

    def place(self, points_NP: Tensor) -> Tensor:
        probs_NC = points_NP.double()
        log_NC = probs_NC.clamp_min(FLOOR).log()
        fine_NC = (probs_NC * 2.0**STORED_BITS).round() * 2.0**-STORED_BITS
        return torch.cat([fine_NC, (log_NC / LOG_STEP).round() * LOG_STEP], dim=1).float()

    def cross(self, rows_NG: Tensor, others_KG: Tensor) -> Tensor:
        return (rows_NG @ others_KG.roll(others_KG.shape[1] // 2, dims=1).T) / 4

    def own(self, rows_NG: Tensor) -> Tensor:
        probs_NC, log_NC = rows_NG.double().chunk(2, dim=1)
        return (probs_NC * log_NC).sum(dim=1) / 2

    def length(self, squared: float) -> float:
        return squared


@dataclass(frozen=True)
class Gradient(Metric):
    """‖a⊗h − a'⊗h'‖² = ‖a‖²‖h‖² + ‖a'‖²‖h'‖² − 2 (a·a')(h·h') of points (a, h), the first `classes` numbers being a.

    The products a⊗h, of C × H numbers a row, are never made (Zhang et al., arXiv 2306.09910, appendix D).
    """

    classes: int

    def place(self, points_NP: Tensor) -> Tensor:
        return torch.cat([on_grid(part) for part in self._parts(points_NP)], dim=1)

    def cross(self, rows_NG: Tensor, others_KG: Tensor) -> Tensor:
        (a_NC, h_NH), (a_KC, h_KH) = self._parts(rows_NG), self._parts(others_KG)
        return (a_NC @ a_KC.T) * (h_NH @ h_KH.T)

    def own(self, rows_NG: Tensor) -> Tensor:
        a_NC, h_NH = self._parts(rows_NG.double())
        return a_NC.square().sum(dim=1) * h_NH.square().sum(dim=1)

    def _parts(self, rows_NG: Tensor) -> tuple[Tensor, Tensor]:
        return rows_NG[:, : self.classes], rows_NG[:, self.classes :]


def metric(name: MetricName, classes: int = 0) -> Metric:
    """Return the metric of this name; `classes` says where the two parts of a `gradient` point meet."""
    if name == "gradient":
        return Gradient(classes)
    return Euclidean() if name == "euclidean" else SymmetricKL()
