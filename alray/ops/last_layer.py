"""The last layer's training objective around its weights: slopes and curvature, exact, in fp64, from labelled rows.

The objective is the head's own, Σ wᵢ·CEᵢ + ½·l2·‖W‖², the bias free. So the bias is part of what moves: rows are taken
with a one beside their activations, and weights with the bias as their last column, S [C, H + 1]. In logits the
last layer is affine, so Gauss–Newton's matrix and the Hessian are the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alray.ops.influence import surprise


@dataclass(frozen=True)
class Curvature:
    """The Hessian of the objective at the head's weights, as what it does to a direction S, fp64 [C, H + 1].

    `with_one_MH` are activations with a one beside them, `probs_MC` what the head says of these rows, `weight_M` their
    weights in the loss. `damping` is added to the whole diagonal.
    """

    with_one_MH: Tensor
    probs_MC: Tensor
    weight_M: Tensor
    l2: float
    damping: float

    @staticmethod
    def of(
        hidden_MH: Tensor, weight_CH: Tensor, bias_C: Tensor, *, weight_M: Tensor | None, l2: float, damping: float
    ) -> Curvature:
        """Return the curvature at the layer `weight_CH`, `bias_C` from labelled rows; no weights are ones."""
        x_MH = with_one(hidden_MH)
        probs_MC = logits(hidden_MH, weight_CH, bias_C).softmax(dim=1)
        ones_M = torch.ones(len(x_MH), dtype=torch.float64)
        return Curvature(x_MH, probs_MC, ones_M if weight_M is None else weight_M.double(), l2, damping)

    def times(self, s_CH: Tensor) -> Tensor:
        """Return H S = Σ wᵢ [(diag pᵢ − pᵢpᵢᵀ) S hᵢ] hᵢᵀ + l2·S (bias free) + damping·S."""
        along_MC = self.with_one_MH @ s_CH.T
        return self._turned(along_MC).T @ self.with_one_MH + self._ridge * s_CH

    def times_row(self, row: int, s_CH: Tensor) -> Tensor:
        """Return Hᵢ S of one row, whose mean over all rows is H/M without damping: what LiSSA's steps look at."""
        x_1H, probs_1C = self.with_one_MH[row : row + 1], self.probs_MC[row : row + 1]
        alone = Curvature(x_1H, probs_1C, self.weight_M[row : row + 1], self.l2 / len(self.with_one_MH), 0.0)
        return alone.times(s_CH)

    def precondition(self) -> Tensor | None:
        """Return the lower Cholesky factor [H + 1, H + 1] of one block for every class; None if it has none.

        Σ wᵢ·aᵢ·hᵢhᵢᵀ with aᵢ the mean of p(1 − p) over classes: features far from the origin, or of unlike sizes, make
        conjugate gradients crawl, and this is where they do so.
        """
        spread_M = self.weight_M * (self.probs_MC * (1 - self.probs_MC)).mean(dim=1)
        block_HH = (self.with_one_MH * spread_M[:, None]).T @ self.with_one_MH
        diagonal_H = block_HH.diagonal()
        diagonal_H += self._ridge + 1e-10 * diagonal_H.mean()
        factor_HH, fault = torch.linalg.cholesky_ex(block_HH)
        return None if int(fault) or not bool(torch.isfinite(factor_HH).all()) else factor_HH

    @property
    def _ridge(self) -> Tensor:
        ridge_H = torch.full((self.with_one_MH.shape[1],), self.l2 + self.damping, dtype=torch.float64)
        ridge_H[-1] = self.damping
        return ridge_H

    def _turned(self, along_MC: Tensor) -> Tensor:
        mean_M1 = (self.probs_MC * along_MC).sum(dim=1, keepdim=True)
        return self.weight_M[:, None] * self.probs_MC * (along_MC - mean_M1)


def gradient(hidden_RH: Tensor, label_R: Tensor, weight_CH: Tensor, bias_C: Tensor) -> Tensor:
    """Return the gradient of the mean cross-entropy of labelled rows by the layer, fp64 [C, H + 1]."""
    found_CH: Tensor = surprise(logits(hidden_RH, weight_CH, bias_C), label_R).T @ with_one(hidden_RH)
    return found_CH / len(hidden_RH)


def with_one(hidden_MH: Tensor) -> Tensor:
    """Return activations with a one beside them, fp64 [M, H + 1]: what the bias is multiplied by."""
    return torch.nn.functional.pad(hidden_MH.double(), (0, 1), value=1.0)


def logits(hidden_MH: Tensor, weight_CH: Tensor, bias_C: Tensor) -> Tensor:
    """Return the logits of a few rows, fp64 [M, C]."""
    return torch.addmm(bias_C.double(), hidden_MH.double(), weight_CH.double().T)
