"""A learning curve: what accuracy more labels would give, with an interval, from a few noisy estimates.

The error falls as a power of the number of labels to a floor, ε(n) = c + a·n^(−b) (Hestness et al., *Deep Learning
Scaling is Predictable, Empirically*, 2017). Two or three estimates do not fix three numbers, so the curve is not fitted
but averaged: a grid over its shape, each point weighted by how well it explains the estimates (the marginal likelihood
of a Gaussian model, in closed form) times a weak prior. What the estimates leave open stays open in the interval, there
is no search that could fail, and no random number.

The estimates' errors are not independent: every round scores the rows of the round before, and some more. If the errors
of one row in two rounds correlate by ρ, two estimates share the variance ρ·min(se²). And no real curve is an exact
power law: a wandering misfit is added (an Ornstein–Uhlenbeck process in ln n). ρ and the size of the misfit are part of
the grid. What all estimates may be off by together (`bias`) is told by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

EXPONENT = (0.5, 0.3)
"""Mean and deviation of the prior of b: learning curves in the literature have 0.1 to 1."""

REACH = 4.0
"""The curve speaks of at most this multiple of the labels that it has seen."""

_B = torch.linspace(0.04, 1.6, 27, dtype=torch.float64)
_FLOOR = torch.linspace(0.0, 0.975, 14, dtype=torch.float64)  # share of today's error that never goes away
_SHARED = ((0.0, 0.2), (0.6, 0.4), (0.95, 0.4))  # ρ, and its prior
_MISFIT = ((0.0, 0.35), (0.03, 0.3), (0.07, 0.2), (0.15, 0.1), (0.3, 0.05))  # its share of the error, and its prior
_LENGTH = 0.7  # of the misfit's memory, in ln n
_STEPS = 100  # of the search for the labels that an accuracy takes
_HALVINGS = 40  # of the search for a quantile: to 1e-12


class Interval(NamedTuple):
    """An accuracy as likely too low as too high, and where it is not likely to be outside of."""

    low: float
    mid: float
    high: float


class Needed(NamedTuple):
    """Labels that a target takes: with luck, as likely as not, and almost surely. None: more than the curve reaches."""

    low: float | None
    mid: float | None
    high: float | None


@dataclass(frozen=True)
class LearningCurve:
    """A weighted mixture of curves; `fit` makes it."""

    labels: float  # the most that an estimate was made with
    reach: float  # multiple of `labels` up to which it speaks
    exponent: tuple[float, float]  # mean and deviation of b, after the estimates
    layers: tuple[_Layer, ...]
    weight_G: Tensor  # of each curve of each layer, sum 1

    @staticmethod
    def fit(
        labels: Sequence[float],
        accuracy: Sequence[float],
        se: Sequence[float],
        *,
        bias: Sequence[float] = (),
        exponent: tuple[float, float] | None = None,
        reach: float = REACH,
    ) -> LearningCurve | None:
        """Return the curve of estimates `accuracy` ± `se` (standard errors) made with `labels` rows, in any order.

        `bias` is by how much all of them may be off together: of each the deviation, as a share of its error; none
        where it is not given. `exponent` is what is known of b, mean and deviation, in place of the weak prior. None
        where there are fewer than two different numbers of labels, or, with an `exponent`, fewer than one. Raises
        ValueError for what is no estimate: not finite, an accuracy outside [0, 1], no labels, an se not above 0.
        """
        n_P, error_P, se_P = _checked(labels, accuracy, se)
        if len(torch.unique(n_P)) < (2 if exponent is None else 1):
            return None
        b_S, log_prior_S, floor_S = _shapes(exponent or EXPONENT)
        bias_P = torch.tensor([*bias] or [0.0] * len(n_P), dtype=torch.float64)
        layers = tuple(
            _Layer.of(n_P, error_P, se_P, bias_P, b_S, floor_S, shared, size)
            for shared, _ in _SHARED
            for size, _ in _MISFIT
        )
        log_prior_L = [math.log(p * q) for _, p in _SHARED for _, q in _MISFIT]
        fits = [layer.log_fit_S + log_prior_S + more for layer, more in zip(layers, log_prior_L, strict=True)]
        weight_G = torch.softmax(torch.cat(fits), dim=0)
        b_G = b_S.repeat(len(layers))
        mean = float(weight_G @ b_G)
        deviation = math.sqrt(float(weight_G @ (b_G - mean).square()))
        return LearningCurve(float(n_P.max()), reach, (mean, deviation), layers, weight_G)

    def predict(self, labels: float, level: float = 0.9, *, se: float = 0.0) -> Interval | None:
        """Return the accuracy with `labels` rows: the median and the central interval that holds it with `level`.

        It is the true accuracy that is meant; give the `se` of a measurement to foretell that. None beyond the reach.
        """
        if labels > self.labels * self.reach * (1 + 1e-9):
            return None
        mean_G, deviation_G = self._errors(labels, se)
        tails = ((1 - level) / 2, 0.5, (1 + level) / 2)
        high, mid, low = (1 - self._quantile(tail, mean_G, deviation_G) for tail in tails)
        return Interval(low, mid, high)

    def labels_for(self, accuracy: float, level: float = 0.9) -> Needed:
        """Return the labels at which this accuracy is reached with probability (1−level)/2, ½ and (1+level)/2.

        None stands for more than `reach` times the labels seen; where the accuracy is reached already, the labels seen.
        """
        steps = torch.linspace(0.0, math.log(self.reach), _STEPS + 1, dtype=torch.float64)
        found: list[float | None] = [None, None, None]
        for labels in (self.labels * steps.exp()).tolist():
            mean_G, deviation_G = self._errors(labels, 0.0)
            chance = self._chance(1 - accuracy, mean_G, deviation_G)
            for place, wanted in enumerate(((1 - level) / 2, 0.5, (1 + level) / 2)):
                if found[place] is None and chance >= wanted:
                    found[place] = labels
            if found[2] is not None:
                break
        return Needed(*found)

    def _errors(self, labels: float, se: float) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of the error with `labels` rows, of every curve of the mixture."""
        parts = [layer.at(math.log(labels)) for layer in self.layers]
        mean_G, variance_G = (torch.cat(column) for column in zip(*parts, strict=True))
        return mean_G, (variance_G + se * se).clamp(min=1e-16).sqrt()

    def _chance(self, error: float, mean_G: Tensor, deviation_G: Tensor) -> float:
        """Return the probability that the error is at most `error`."""
        return float(self.weight_G @ torch.special.ndtr((error - mean_G) / deviation_G))

    def _quantile(self, chance: float, mean_G: Tensor, deviation_G: Tensor) -> float:
        """Return the error that is not exceeded with this probability, within [0, 1]."""
        low, high = 0.0, 1.0
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            under = self._chance(middle, mean_G, deviation_G) < chance
            low, high = (middle, high) if under else (low, middle)
        return (low + high) / 2


@dataclass(frozen=True)
class _Layer:
    """All shapes of the curve under one ρ and one size of the misfit.

    y = E·g(n) + misfit + noise is linear in E, the error at the most labels, which has a flat prior: what follows is
    least squares with the covariance K = noise + misfit (Rasmussen & Williams, *Gaussian Processes for Machine
    Learning*, 2006, §2.7).
    """

    log_n_P: Tensor
    b_S: Tensor
    floor_S: Tensor
    misfit: float  # deviation of the misfit
    inverse_PP: Tensor  # K⁻¹
    solved_SP: Tensor  # K⁻¹ g
    rest_SP: Tensor  # K⁻¹ (y − E·g)
    error_S: Tensor  # E
    variance_S: Tensor  # of E
    log_fit_S: Tensor  # log marginal likelihood, but for a constant

    @staticmethod
    def of(
        n_P: Tensor,
        error_P: Tensor,
        se_P: Tensor,
        bias_P: Tensor,
        b_S: Tensor,
        floor_S: Tensor,
        shared: float,
        size: float,
    ) -> _Layer:
        """Weigh each shape by the estimates: `error_P` ± `se_P` with `n_P` labels."""
        log_n_P, variance_P = n_P.log(), se_P.square()
        scale = float((error_P / variance_P).sum() / (1 / variance_P).sum() + se_P.min())
        noise_PP = shared * torch.minimum(variance_P[:, None], variance_P) + (1 - shared) * torch.diag(variance_P)
        off_P = bias_P * (error_P + se_P)
        noise_PP += torch.outer(off_P, off_P)
        inverse_PP = torch.linalg.inv(noise_PP + _covariance(log_n_P, log_n_P, size * scale))
        g_SP = _shape(log_n_P, log_n_P.max(), b_S, floor_S)
        solved_SP = g_SP @ inverse_PP
        variance_S = 1 / (solved_SP * g_SP).sum(dim=1)
        error_S = (solved_SP @ error_P) * variance_S
        rest_SP = (error_P - error_S[:, None] * g_SP) @ inverse_PP
        misses_S = (rest_SP * (error_P - error_S[:, None] * g_SP)).sum(dim=1)
        log_fit_S = 0.5 * (torch.linalg.slogdet(inverse_PP).logabsdet + variance_S.log() - misses_S)
        return _Layer(
            log_n_P, b_S, floor_S, size * scale, inverse_PP, solved_SP, rest_SP, error_S, variance_S, log_fit_S
        )

    def at(self, log_n: float) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the error at n under each shape, [S]."""
        where = torch.tensor([log_n], dtype=torch.float64)
        k_P = _covariance(where, self.log_n_P, self.misfit)[0]
        g_S = _shape(where, self.log_n_P.max(), self.b_S, self.floor_S)[:, 0]
        slope_S = g_S - self.solved_SP @ k_P
        mean_S = self.error_S * g_S + self.rest_SP @ k_P
        return mean_S, self.misfit**2 - k_P @ self.inverse_PP @ k_P + slope_S.square() * self.variance_S


def _shapes(exponent: tuple[float, float]) -> tuple[Tensor, Tensor, Tensor]:
    """Return b, its log prior and the floor of every shape, [S] each; the floor has a flat prior."""
    b_S, floor_S = _B.repeat_interleave(len(_FLOOR)), _FLOOR.repeat(len(_B))
    return b_S, -0.5 * ((b_S - exponent[0]) / exponent[1]).square(), floor_S


def _shape(log_n_P: Tensor, log_last: Tensor, b_S: Tensor, floor_S: Tensor) -> Tensor:
    """Return ε(n) / ε(most labels) = f + (1 − f)·(n / most)^(−b), [S, P]."""
    fall_SP = torch.exp(-b_S[:, None] * (log_n_P - log_last))
    return floor_S[:, None] + (1 - floor_S[:, None]) * fall_SP


def _covariance(a_P: Tensor, b_P: Tensor, deviation: float) -> Tensor:
    """Return the covariance of the misfit between places, [P, P]."""
    return deviation**2 * torch.exp(-(a_P[:, None] - b_P).abs() / _LENGTH)


def _checked(labels: Sequence[float], accuracy: Sequence[float], se: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    n_P, accuracy_P, se_P = (torch.tensor(list(part), dtype=torch.float64) for part in (labels, accuracy, se))
    if not len(n_P) == len(accuracy_P) == len(se_P):
        raise ValueError(f"{len(n_P)} numbers of labels, {len(accuracy_P)} accuracies and {len(se_P)} standard errors.")
    fine_P = (n_P > 0) & (accuracy_P >= 0) & (accuracy_P <= 1) & (se_P > 0)
    fine_P &= torch.isfinite(n_P) & torch.isfinite(se_P)
    if not bool(fine_P.all()):
        worst = int((~fine_P).nonzero()[0, 0])
        raise ValueError(
            f"An estimate of {accuracy[worst]} ± {se[worst]} with {labels[worst]} labels. Expected an accuracy within "
            "[0, 1], a standard error above 0 and a number of labels above 0."
        )
    return n_P, 1 - accuracy_P, se_P
