"""LogME: the evidence that features explain labels, read off additive statistics.

You et al. (ICML 2021) score features F [n, D] by the evidence of a Bayesian linear model of each class's column y of
zeros and ones: y = F w + noise, w ~ N(0, I/α), noise ~ N(0, I/β), the best α and β taken. That is
log N(y; 0, I/β + FFᵀ/α) / n, in nats per label, the mean over classes; higher is better.

Three things differ from the official fixed-point code. Its evidence keeps D/2 ln α but sums the determinant over the
k = rank(F) directions only, so that it is wrong by (D − k)/(2n) ln α for n < D; the covariance form above has no D.
Its guards of 1e-5 are not free of scale; here features are divided by the root mean square of their norms, and labels
are never explained better than to `LEAST` of their squares. And it stops after 11 steps of an iteration that may
crawl; here β is eliminated and one number, t = α/β, is searched.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from alray.ops.moments import Moments

RANK = 1e-12
"""Directions whose eigenvalue of FᵀF is below this share of the largest do not count (1e-6 in singular values).

The Gram matrix squares the conditioning: rounding leaves eigenvalues of about 1e-15 where there should be none, while
fp16 features of independent rows reach down to about 1e-8.
"""

LEAST = 1e-6
"""The least noise, as a share of the labels' mean square: a perfect fit has no finite evidence without one.

Sums of squares are known to about 1e-14 of themselves; the evidence is then known to 1e-8 however well features fit.
"""

GRID = 97
"""Values of ln t that are tried first, over 24 decades; the best one's surroundings are then searched."""

STEPS = 48
"""Golden-section steps, each leaving 62 % of the interval: 0.57 · 2 · 0.618⁴⁸ is 1e-10 in ln t."""

_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class LogME:
    """The evidence per label in nats, and what made it; `score` is None where there is none, and `reason` says why.

    `per_class`, `alpha` and `beta` have one number a class that has rows; `alpha` and `beta` are those of the scaled
    features where features were normalised.
    """

    score: float | None
    per_class: tuple[float, ...] = ()
    alpha: tuple[float, ...] = ()
    beta: tuple[float, ...] = ()
    reason: str = ""


class Spectrum(NamedTuple):
    """F and one-hot labels Y in the basis of F's singular vectors, fp64: all that the evidence depends on.

    sigma_K squared singular values, x2_CK = (UᵀY)² transposed, rest_C = ‖y‖² − ‖Uᵀy‖², total_C = ‖y‖², n rows.
    """

    sigma_K: Tensor
    x2_CK: Tensor
    rest_C: Tensor
    total_C: Tensor
    rows: int

    @staticmethod
    def of(moments: Moments, *, normalise: bool = True) -> Spectrum:
        """Return the spectrum of moments whose classes all have rows."""
        sigma_D, basis_DD = torch.linalg.eigh(moments.gram_DD)
        kept_D = sigma_D > RANK * sigma_D[-1].clamp_min(0)
        sigma_K, basis_DK = sigma_D[kept_D], basis_DD[:, kept_D]
        total_C = moments.count_C.double()
        x2_CK = (moments.sum_CD @ basis_DK).square() / sigma_K
        rest_C = (total_C - x2_CK.sum(dim=1)).clamp_min(0)
        scale = float(moments.gram_DD.trace()) / moments.rows if normalise else 1.0
        return Spectrum(sigma_K / scale, x2_CK, rest_C, total_C, moments.rows)

    def log_evidence(self, alpha_C: Tensor, beta_C: Tensor) -> Tensor:
        """Return log N(y; 0, I/β + FFᵀ/α) per class, [C], in nats of all labels together."""
        t_C = alpha_C / beta_C
        return self._given(beta_C, self._misfit(t_C), self._spread(t_C))

    def best(self) -> tuple[Tensor, Tensor]:
        """Return the α and β of each class with the highest evidence, [C] each."""
        low, high = math.log(float(self.sigma_K[-1])) - 37, math.log(float(self.sigma_K[-1])) + 18
        u_G = torch.linspace(low, high, GRID, dtype=torch.float64)
        width = float(u_G[1] - u_G[0])
        at_C = u_G[self._profile_grid(u_G.exp()).argmax(dim=1)]
        left_C, right_C = at_C - width, at_C + width
        for _ in range(STEPS):
            step_C = _GOLDEN * (right_C - left_C)
            lower_C, upper_C = right_C - step_C, left_C + step_C
            rises_C = self._profile(lower_C.exp()) < self._profile(upper_C.exp())
            left_C, right_C = torch.where(rises_C, lower_C, left_C), torch.where(rises_C, right_C, upper_C)
        t_C = ((left_C + right_C) / 2).exp()
        beta_C = self._beta(self._misfit(t_C))
        return t_C * beta_C, beta_C

    def _misfit(self, t_C: Tensor) -> Tensor:
        """Return Q(t) = yᵀ (I + FFᵀ/t)⁻¹ y, [C]."""
        t_C1 = t_C[:, None]
        return (self.x2_CK * (t_C1 / (t_C1 + self.sigma_K))).sum(dim=1) + self.rest_C

    def _spread(self, t_C: Tensor) -> Tensor:
        """Return ln det(I + FFᵀ/t), [C]."""
        return torch.log1p(self.sigma_K / t_C[:, None]).sum(dim=1)

    def _beta(self, misfit_C: Tensor) -> Tensor:
        """Return the best β for these misfits."""
        return self.rows / torch.maximum(misfit_C, LEAST * self.total_C)

    def _given(self, beta_C: Tensor, misfit_C: Tensor, spread_C: Tensor) -> Tensor:
        return 0.5 * (self.rows * torch.log(beta_C / (2 * math.pi)) - beta_C * misfit_C - spread_C)

    def _profile(self, t_C: Tensor) -> Tensor:
        misfit_C = self._misfit(t_C)
        return self._given(self._beta(misfit_C), misfit_C, self._spread(t_C))

    def _profile_grid(self, t_G: Tensor) -> Tensor:
        """Return the evidence of every class at every t with its best β, [C, G]: one GEMM for all of them."""
        share_KG = t_G / (t_G + self.sigma_K[:, None])
        misfit_CG = self.x2_CK @ share_KG + self.rest_C[:, None]
        beta_CG = self.rows / torch.maximum(misfit_CG, LEAST * self.total_C[:, None])
        return self._given(beta_CG, misfit_CG, self._spread(t_G))


def logme(moments: Moments, *, normalise: bool = True) -> LogME:
    """Return the evidence per label of the labels given the features, its best α and β taken for each class.

    Classes without rows are left out. `normalise` divides the features by the root mean square of their row norms;
    the score does not depend on it, `alpha` and `beta` do. There is no score for fewer than two rows or classes, nor
    where all features are zero.
    """
    moments = moments.compact()
    if reason := _no_evidence(moments):
        return LogME(None, reason=reason)
    spectrum = Spectrum.of(moments, normalise=normalise)
    alpha_C, beta_C = spectrum.best()
    evidence_C = spectrum.log_evidence(alpha_C, beta_C) / moments.rows
    per_class = tuple(evidence_C.tolist())
    return LogME(float(evidence_C.mean()), per_class, tuple(alpha_C.tolist()), tuple(beta_C.tolist()))


def _no_evidence(moments: Moments) -> str:
    if moments.rows < 2:
        return f"{moments.rows} labelled rows; evidence needs at least 2"
    if moments.classes < 2:
        return f"all {moments.rows} labelled rows are of one class; evidence needs at least 2 classes"
    return "" if float(moments.gram_DD.trace()) > 0 else "all features are zero"
