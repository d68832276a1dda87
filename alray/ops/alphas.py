"""ALFA-Mix's other mixing weights: α drawn at random, and α learned by a few steps of Adam.

A mixture is α ⊙ a + (1 − α) ⊙ z with one weight a coordinate in [1e-8, cap] (Parvaneh et al., CVPR 2022). As in the
official code, learning begins at random weights, each step is tried before the next is taken, and of all flips of a
row at a cap the one with the least ‖α‖ is kept. Each row draws from a sequence of its own and is learned by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alray import seeds
from alray.ops import mixing
from alray.ops.mixing import Net, Trial

LEAST = 1e-8
"""The smallest weight."""

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""Adam's (Kingma & Ba, ICLR 2015), at its published values."""


@dataclass(frozen=True)
class Steps:
    """How weights are learned: `steps` tries at most, on −CE(mixture, label) + `l2`·‖α‖ (not squared).

    The rate is `lr` in the first two thirds of the steps and a tenth of it after. Without `keep` the optimiser is made
    anew at each step, as in the official code: a first step of Adam is lr·sign(gradient), so that for caps below `lr`
    every weight ends at 1e-8 or at the cap.
    """

    steps: int = 5
    lr: float = 0.1
    l2: float = 0.01
    keep: bool = False

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        return self.lr if step < self.steps * 2 / 3 else self.lr / 10


class Adam:
    """Adam on rows of numbers, each by itself. No fused operation: they round otherwise at the end of an array."""

    def __init__(self, like: Tensor) -> None:
        self.taken, self.mean, self.square = 0, torch.zeros_like(like), torch.zeros_like(like)

    def step(self, gradient: Tensor, rate: float) -> Tensor:
        """Return what to subtract."""
        self.taken += 1
        self.mean = BETAS[0] * self.mean + (1 - BETAS[0]) * gradient
        self.square = BETAS[1] * self.square + (1 - BETAS[1]) * gradient.square()
        mean = self.mean / (1 - BETAS[0] ** self.taken)
        return rate * (mean / ((self.square / (1 - BETAS[1] ** self.taken)).sqrt() + EPSILON))


@dataclass(frozen=True)
class Draw:
    """Weights drawn from Normal(cap/2, cap/2) and clamped, keyed by (stream, id, cap, anchor, coordinate)."""

    stream: int
    hashes: seeds.Hashes

    def __call__(self, rows: Tensor, dim: int, place: int, cap: float) -> Tensor:
        """Return the weights of some rows for the cap and anchor that are at a `place` of their sequences, [n, D]."""
        drawn_ND = torch.from_numpy(seeds.uniforms(self.stream, self.hashes[rows.cpu().numpy()], place * dim, dim))
        normal_ND: Tensor = torch.special.ndtri(drawn_ND)
        return (cap / 2 + cap / 2 * normal_ND).clamp(LEAST, cap)


class Weighted:
    """Mixtures with weights that are drawn, and learned from there when `how` says so.

    `classes_A` are the numbers of the anchors' classes, their places in the draw.
    """

    def __init__(self, x_ND: Tensor, net: Net, draw: Draw, classes_A: Sequence[int], how: Steps | None) -> None:
        self.net, self.draw, self.classes_A, self.how = net, draw, classes_A, how
        self.anchors = len(classes_A)
        self.z_ND = x_ND - net.centre_D
        self.logits_NC = net.above(net.below(self.z_ND))
        self.label_N = self.logits_NC.argmax(dim=1)

    def floor(self, anchor: int) -> Tensor:
        if self.net.above_CH is not None:  # a bound on both layers is so loose that it spares nothing
            return torch.zeros_like(self.logits_NC[:, 0])
        gain_NC = mixing.steepest(self.net.anchors_CD[anchor] - self.z_ND, self.net.weight_CD, self.label_N)
        return mixing.earliest(self.logits_NC, self.label_N, gain_NC)

    def mix(self, rows: Tensor, number: int, cap: float, anchor: int) -> Trial:
        z_ND = self.z_ND[rows]
        d_ND = self.net.anchors_CD[anchor] - z_ND
        place = number * self.logits_NC.shape[1] + self.classes_A[anchor]
        alpha_ND = self.draw(rows, z_ND.shape[1], place, cap).to(z_ND)
        if self.how is not None:
            return learned(z_ND, d_ND, self.label_N[rows], alpha_ND, cap, self.net, self.how)
        return Trial(self.net.above(self.net.below(z_ND + alpha_ND * d_ND)), torch.linalg.vector_norm(alpha_ND, dim=1))


def learned(z_ND: Tensor, d_ND: Tensor, label_N: Tensor, alpha_ND: Tensor, cap: float, net: Net, how: Steps) -> Trial:
    """Return each row's flip with the least ‖α‖ among those met while α is learned; key ∞ where there is none."""
    key_N, kept_NC = torch.full_like(z_ND[:, 0], math.inf), torch.zeros(0)
    for weights_ND, logits_NC in tries(z_ND, d_ND, label_N, alpha_ND, cap, net, how):
        norm_N = torch.linalg.vector_norm(weights_ND, dim=1)
        better_N = (logits_NC.argmax(dim=1) != label_N) & (norm_N < key_N)
        kept_NC = torch.where(better_N[:, None], logits_NC, kept_NC) if len(kept_NC) else logits_NC
        key_N = torch.where(better_N, norm_N, key_N)
    return Trial(kept_NC, key_N)


def tries(
    z_ND: Tensor, d_ND: Tensor, label_N: Tensor, alpha_ND: Tensor, cap: float, net: Net, how: Steps
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights that are tried, [N, D] in [1e-8, cap], and the logits [N, C] of their mixtures z + α ⊙ d.

    The step after the last try would never be tried, so it is not taken.
    """
    adam = Adam(alpha_ND)
    for step in range(how.steps):
        pre_NH = net.below(z_ND + alpha_ND * d_ND)
        logits_NC = net.above(pre_NH)
        yield alpha_ND, logits_NC
        if step + 1 < how.steps:
            slope_ND = net.pull(residual(logits_NC, label_N), pre_NH) * d_ND
            norm_N1 = torch.linalg.vector_norm(alpha_ND, dim=1, keepdim=True)
            adam = adam if how.keep else Adam(alpha_ND)
            alpha_ND = alpha_ND - adam.step(how.l2 * (alpha_ND / norm_N1) - slope_ND, how.rate(step))
            alpha_ND = alpha_ND.clamp(LEAST, cap)


def residual(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """Return p − e_y, the cross-entropy's gradient by the logits, [N, C]; p_y − 1 is minus what the others have."""
    others_NC = logits_NC.softmax(dim=1).scatter(1, label_N[:, None], 0.0)
    return others_NC.scatter(1, label_N[:, None], -others_NC.sum(dim=1, keepdim=True))
