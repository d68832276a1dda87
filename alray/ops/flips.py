"""ALFA-Mix in closed form: how far a row must move before an affine head changes its mind.

Official ALFA-Mix (Parvaneh et al., CVPR 2022, eq. 5 as it was run) moves a row z towards each anchor a by
α ⊙ (a − z), α = ε ‖a − z‖ (g / ‖g‖) ⊘ (a − z): the displacement is ε ‖a − z‖ u with u = g / ‖g‖ for every anchor. For
an affine head the label along the ray z + r u changes exactly at one radius r*, so the farthest anchor alone decides
and one critical cap per row replaces (caps × anchors) forward passes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from alray.ops.affine import affine
from alray.ops.probability import overflow

GUARD = 1e-8
"""The official code divides by (a − z) + 1e-8; where the difference is exactly zero, that freezes the coordinate."""

FLAT = 0.05
"""Below this share of what its terms could add up to, ‖g‖² has lost digits: such rows are done again in fp64."""

NOISE = 32
"""Slopes below this many roundings of the longest weight row are zero: two equal classes never overtake each other."""


class Frame(NamedTuple):
    """An affine head and its anchors as seen from the anchors' mean, in fp64: what all rows and classes share is gone.

    Neither labels nor displacements notice. Products of centred numbers keep the digits that a common offset of the
    features (mean 10, deviation 0.1, say) or of the weights would cost them in fp32.
    """

    centre_D: Tensor
    weight_CD: Tensor
    bias_C: Tensor
    anchors_CD: Tensor
    gram_CC: Tensor

    @staticmethod
    def of(weight_CD: Tensor, bias_C: Tensor, anchors_CD: Tensor) -> Frame:
        """Return the frame of a head's last layer and its class anchors."""
        weight_CD, bias_C, anchors_CD = weight_CD.double(), bias_C.double(), anchors_CD.double()
        centre_D = anchors_CD.mean(dim=0).float().double()  # an fp32 number, so that fp32 rows see the same centre
        weight_CD = weight_CD - weight_CD.mean(dim=0)
        bias_C = bias_C - bias_C.mean() + weight_CD @ centre_D
        return Frame(centre_D, weight_CD, bias_C, anchors_CD - centre_D, weight_CD @ weight_CD.T)

    def to(self, like: Tensor) -> Frame:
        """Return the frame in the precision and on the device of `like`."""
        return Frame(*(part.to(like) for part in self))

    @property
    def least_slope(self) -> float:
        """The slope below which rounding speaks."""
        return NOISE * torch.finfo(self.gram_CC.dtype).eps * float(self.gram_CC.diagonal().max().clamp_min(0).sqrt())


def descent_weights(logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Return v [N, C] with g ∝ Wᵀ v, and the pseudo-labels y* [N].

    g = Σ_{c≠y*} p_c (w_c − w_y*) is the gradient of the cross-entropy of y*. Only its direction matters, so p is
    replaced by the softmax over c ≠ y*: the direction stays finite where p_y* rounds to 1.
    """
    label_N1 = logits_NC.argmax(dim=1, keepdim=True)
    others_NC = logits_NC.scatter(1, label_N1, -math.inf)
    v_NC = others_NC.softmax(dim=1) if logits_NC.shape[1] > 1 else torch.zeros_like(logits_NC)
    return v_NC.scatter_(1, label_N1, -1.0), label_N1.squeeze(1)


def slopes(v_NC: Tensor, label_N: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Return s_c = (w_c − w_y*)·u for the unit direction u ∝ Wᵀ v, and the share of ‖g‖² left by cancellation.

    Shapes [N, C] and [N]. Where the direction vanishes, slopes are 0. With few classes the Gram matrix is the shorter
    way, 2NC² against 4NCD by way of u.
    """
    weight_CD, gram_CC = frame.weight_CD, frame.gram_CC
    few = len(weight_CD) <= 2 * weight_CD.shape[1]
    zero_C, zero_D = torch.zeros_like(gram_CC[0]), torch.zeros_like(weight_CD[0])
    image_NC = affine(v_NC, gram_CC, zero_C) if few else affine(affine(v_NC, weight_CD.T, zero_D), weight_CD, zero_C)
    square_N = (v_NC * image_NC).sum(dim=1).clamp_min(0)
    share_N = square_N / (v_NC.abs() * gram_CC.diagonal()).sum(dim=1)
    slope_NC = image_NC - image_NC.gather(1, label_N[:, None])
    return torch.where(square_N[:, None] > 0, slope_NC / square_N.sqrt()[:, None], 0.0), share_N


def first_crossing(logits_NC: Tensor, label_N: Tensor, slope_NC: Tensor, least_slope: float = 0.0) -> Tensor:
    """Return r* = min over {c : s_c > 0} of (l_y* − l_c) / s_c, [N]; infinite where no class ever overtakes y*."""
    gap_NC = logits_NC.gather(1, label_N[:, None]) - logits_NC
    return torch.where(slope_NC > least_slope, gap_NC / slope_NC, math.inf).min(dim=1).values


def critical_cap(hidden_ND: Tensor, frame: Frame) -> Tensor:
    """Return the cap at which each row becomes a candidate, [N]: candidate at cap c ⟺ critical cap < c.

    The cap is √D r* / max_i ‖a_i − z‖ (the official ε is cap / √D). Infinite where no displacement flips the label, NaN
    where the rows' precision has no number for the logits.
    """
    cap_N, share_N = _caps(hidden_ND, frame.to(hidden_ND))
    flat_N = share_N < FLAT
    if hidden_ND.dtype != torch.float64 and bool(flat_N.any()):
        cap_N[flat_N] = _caps(hidden_ND[flat_N].double(), frame)[0].to(cap_N)
    return cap_N


def _caps(hidden_ND: Tensor, frame: Frame) -> tuple[Tensor, Tensor]:
    """Return the critical caps in the rows' own precision, and the shares of ‖g‖² that did not cancel, [N] each."""
    z_ND, classes = hidden_ND - frame.centre_D, len(frame.weight_CD)
    sides = torch.cat([frame.weight_CD, -2 * frame.anchors_CD])  # logits and ‖a‖² − 2 z·a from one read of the rows
    offsets = torch.cat([frame.bias_C, frame.anchors_CD.square().sum(dim=1)])
    both_N2C = affine(z_ND, sides, offsets)
    logits_NC, away_NC = both_N2C[:, :classes], both_N2C[:, classes:]
    v_NC, label_N = descent_weights(logits_NC)
    slope_NC, share_N = slopes(v_NC, label_N, frame)
    radius_N = first_crossing(logits_NC, label_N, slope_NC, frame.least_slope)
    farthest_N = (away_NC.max(dim=1).values + torch.linalg.vector_norm(z_ND, dim=1).square()).clamp_min(0).sqrt()
    cap_N = torch.where(farthest_N > 0, math.sqrt(z_ND.shape[1]) * radius_N / farthest_N, math.inf)
    none_N = overflow(logits_NC)
    return cap_N + none_N, share_N + none_N


def critical_cap_frozen(hidden_ND: Tensor, frame: Frame) -> Tensor:
    """Return the critical caps with the official freezing of coordinates in which row and anchor are equal, fp64 [N].

    The official displacement is ε ‖d‖ u ⊙ m with m = d / (d + 1e-8): 0 where d is exactly 0. Directions then differ by
    anchor, so every anchor is tested: C times the work of `critical_cap`. In fp64, for comparison only.
    """
    z_ND = hidden_ND.double() - frame.centre_D
    logits_NC = torch.addmm(frame.bias_C, z_ND, frame.weight_CD.T)
    v_NC, label_N = descent_weights(logits_NC)
    u_ND = torch.nn.functional.normalize(v_NC @ frame.weight_CD, dim=1, eps=1e-300)
    least_N = torch.full_like(u_ND[:, 0], math.inf)
    for anchor_D in frame.anchors_CD:
        d_ND = anchor_D - z_ND
        image_NC = (u_ND * (d_ND / (d_ND + GUARD))) @ frame.weight_CD.T
        slope_NC = image_NC - image_NC.gather(1, label_N[:, None])
        radius_N = first_crossing(logits_NC, label_N, slope_NC, frame.least_slope)
        least_N = torch.minimum(least_N, radius_N / d_ND.norm(dim=1))
    return math.sqrt(z_ND.shape[1]) * least_N + overflow(logits_NC.to(hidden_ND))
