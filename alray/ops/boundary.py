"""How far a row is from the nearest decision boundary: in closed form under an affine head, else by DeepFool's walk.

DeepFool (Moosavi-Dezfooli, Fawzi & Frossard, CVPR 2016) takes the classifier for affine, steps to the boundary that
this puts nearest, and looks again. For an affine classifier the first step is the answer (their §2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alray.ops.probability import overflow

BLOCK = 256
"""Rows of a walk at a time: their gradients are rows × classes × D numbers."""


def apart(weight_CD: Tensor) -> Tensor:
    """Return ‖w_a − w_b‖ for each pair of classes, fp32 [C, C]: exactly 0 for equal ones."""
    wide_CD = weight_CD.double()
    return torch.cdist(wide_CD, wide_CD, compute_mode="donot_use_mm_for_euclid_dist").float()


def distance(logits_NC: Tensor, apart_CC: Tensor, *, last_class_bug: bool = False) -> Tensor:
    """Return min over c ≠ y of (l_y − l_c) / ‖w_y − w_c‖, [N], y the predicted class: 0 on a boundary.

    Infinite where no boundary is: one class, or all with equal weights. With `last_class_bug` only the last class
    other than y counts, as in the code of Ash et al. (BADGE), which never updates the least value that it has seen.
    """
    label_N = logits_NC.argmax(dim=1)
    gap_NC = logits_NC.gather(1, label_N[:, None]) - logits_NC
    apart_NC = apart_CC[label_N]
    far_NC = torch.where(apart_NC > 0, gap_NC / apart_NC, torch.inf).scatter(1, label_N[:, None], torch.inf)
    if last_class_bug and logits_NC.shape[1] > 1:
        far_NC = far_NC.gather(1, last_other(label_N, logits_NC.shape[1])[:, None])
    return far_NC.min(dim=1).values + overflow(logits_NC)


def last_other(label_N: Tensor, classes: int) -> Tensor:
    """Return the last class that is not the row's own, [N]."""
    return torch.where(label_N == classes - 1, classes - 2, classes - 1)


@dataclass(frozen=True)
class Walk:
    """DeepFool in rows of any classifier, each row by itself.

    `logits(x_nD)` gives [n, C]; `slopes(x_nD, class_nK, label_n)` the gradients of l_c − l_y by x, [n, K, D]. Both must
    treat rows alone. Only the `classes` likeliest classes other than y are walked towards, as in the authors' code.
    """

    logits: Callable[[Tensor], Tensor]
    slopes: Callable[[Tensor, Tensor, Tensor], Tensor]
    classes: int = 10
    iterations: int = 50
    overshoot: float = 0.02
    last_class_bug: bool = False

    def distance(self, x_ND: Tensor) -> Tensor:
        """Return the length of the perturbation that changes each row's class, before its overshoot, [N].

        0 on a boundary; infinite where no class has a slope against the row's own. What has not changed class when the
        iterations are over has the length that it came to.
        """
        parts = [self._block(x_ND[at : at + BLOCK]) for at in range(0, len(x_ND), BLOCK)]
        return torch.cat(parts) if parts else x_ND.new_zeros(0)

    def _block(self, x_nD: Tensor) -> Tensor:
        logits_nC = self.logits(x_nD)
        label_n = logits_nC.argmax(dim=1)
        class_nK = self._towards(logits_nC, label_n)
        if not class_nK.shape[1]:
            return torch.full_like(logits_nC[:, 0], torch.inf)
        moved_nD, beyond_n = torch.zeros_like(x_nD), x_nD.new_zeros(len(x_nD))
        going = torch.arange(len(x_nD), device=x_nD.device)
        for _ in range(self.iterations):
            here = x_nD[going] + (1 + self.overshoot) * moved_nD[going]
            step, length = self._step(here, class_nK[going], label_n[going])
            beyond_n[going] = torch.where(length.isfinite(), 0, length)  # infinite, or not a number
            ahead = length.isfinite() & (length > 0)
            going, step = going[ahead], step[ahead]
            moved_nD[going] += step
            there = x_nD[going] + (1 + self.overshoot) * moved_nD[going]
            going = going[self.logits(there).argmax(dim=1) == label_n[going]]
            if not len(going):
                break
        length_n: Tensor = torch.linalg.vector_norm(moved_nD, dim=1)
        return length_n + beyond_n + overflow(logits_nC)

    def _towards(self, logits_nC: Tensor, label_n: Tensor) -> Tensor:
        """Return the classes that a row may be walked to, [n, K]: the same ones for all its steps."""
        others = logits_nC.shape[1] - 1
        if self.last_class_bug and others:
            return last_other(label_n, others + 1)[:, None]
        below_nC = logits_nC.scatter(1, label_n[:, None], -torch.inf)
        return below_nC.argsort(dim=1, descending=True, stable=True)[:, : min(self.classes, others)]

    def _step(self, x_nD: Tensor, class_nK: Tensor, label_n: Tensor) -> tuple[Tensor, Tensor]:
        """Return the step to the nearest boundary of the classifier taken for affine here, [n, D], and its length."""
        logits_nC, slope_nKD = self.logits(x_nD), self.slopes(x_nD, class_nK, label_n)
        gap_nK = logits_nC.gather(1, label_n[:, None]) - logits_nC.gather(1, class_nK)
        steep_nK = torch.linalg.vector_norm(slope_nKD, dim=2)
        far_nK = torch.where(steep_nK > 0, gap_nK / steep_nK, torch.inf)
        length_n, k_n = far_nK.min(dim=1)
        rows = torch.arange(len(x_nD), device=x_nD.device)
        scale_n = length_n / steep_nK[rows, k_n].clamp_min(torch.finfo(steep_nK.dtype).tiny)
        return scale_n[:, None] * slope_nKD[rows, k_n], length_n.clamp_min(0)
