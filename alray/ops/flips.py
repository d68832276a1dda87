"""ALFA-Mix in closed form: how far a row must move before an affine head changes its mind.

Official ALFA-Mix (Parvaneh et al., CVPR 2022, eq. 5 as it was run) moves a row z towards each anchor a by
α ⊙ (a − z), α = ε ‖a − z‖ (g / ‖g‖) ⊘ (a − z): the displacement is ε ‖a − z‖ u with u = g / ‖g‖ for every anchor. For an
affine head the label along the ray z + r u changes exactly at one radius r*, so the farthest anchor alone decides and
one critical cap per row replaces (caps × anchors) forward passes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

GUARD = 1e-8
"""The official code divides by (a − z) + 1e-8; where the difference is exactly zero, that freezes the coordinate."""


def descent_weights(logits_NC: Tensor) -> tuple[Tensor, Tensor]:
    """Return v [N, C] with g ∝ Wᵀ v, and the pseudo-labels y* [N].

    g = Σ_{c≠y*} p_c (w_c − w_y*) is the gradient of the cross-entropy of y*. Only its direction matters, so p is
    replaced by the softmax over c ≠ y*: the direction stays finite where p_y* rounds to 1.
    """
    label_N = logits_NC.argmax(dim=1, keepdim=True)
    others_NC = logits_NC.scatter(1, label_N, -math.inf)
    v_NC = others_NC.softmax(dim=1) if logits_NC.shape[1] > 1 else torch.zeros_like(logits_NC)
    return v_NC.scatter(1, label_N, -1.0), label_N.squeeze(1)


def slopes(v_NC: Tensor, label_N: Tensor, weight_CD: Tensor) -> Tensor:
    """Return s_c = (w_c − w_y*)·u for the unit direction u ∝ Wᵀ v, [N, C]; 0 where the direction vanishes.

    Σ_c v_c = 0, so the rows of W are centred first: what all classes share cancels exactly instead of in rounding.
    """
    weight_CD = weight_CD - weight_CD.mean(dim=0)
    classes, size = weight_CD.shape
    if classes <= 2 * size:  # 2NC² by the Gram matrix against 4NCD by way of u
        image_NC = v_NC @ (weight_CD.double() @ weight_CD.double().T).to(v_NC.dtype)
    else:
        image_NC = (v_NC @ weight_CD) @ weight_CD.T
    norm_N = (v_NC * image_NC).sum(dim=1).clamp_min(0).sqrt()
    slope_NC = image_NC - image_NC.gather(1, label_N[:, None])
    return torch.where(norm_N[:, None] > 0, slope_NC / norm_N[:, None], 0.0)


def first_crossing(logits_NC: Tensor, label_N: Tensor, slope_NC: Tensor) -> Tensor:
    """Return r* = min over {c : s_c > 0} of (l_y* − l_c) / s_c, [N]; infinite where no class ever overtakes y*."""
    gap_NC = logits_NC.gather(1, label_N[:, None]) - logits_NC
    return torch.where(slope_NC > 0, gap_NC / slope_NC, math.inf).min(dim=1).values


def farthest_anchor(hidden_ND: Tensor, anchors_CD: Tensor) -> Tensor:
    """Return max_i ‖a_i − z‖, [N]. Both sides are centred on the anchors' mean, so that a common offset costs no digits."""
    centre_D = anchors_CD.mean(dim=0)
    z_ND, a_CD = hidden_ND - centre_D, anchors_CD - centre_D
    squared_NC = torch.addmm(a_CD.square().sum(dim=1), z_ND, a_CD.T, alpha=-2.0)
    return (squared_NC.max(dim=1).values + z_ND.square().sum(dim=1)).clamp_min(0).sqrt()


def critical_cap(hidden_ND: Tensor, logits_NC: Tensor, weight_CD: Tensor, anchors_CD: Tensor) -> Tensor:
    """Return the cap at which each row becomes a candidate, [N]: candidate at cap c ⟺ critical cap < c.

    The cap is √D r* / max_i ‖a_i − z‖ (the official ε is cap / √D). Infinite where no displacement flips the label.
    """
    v_NC, label_N = descent_weights(logits_NC)
    radius_N = first_crossing(logits_NC, label_N, slopes(v_NC, label_N, weight_CD))
    return math.sqrt(hidden_ND.shape[1]) * radius_N / farthest_anchor(hidden_ND, anchors_CD)


def critical_cap_frozen(hidden_ND: Tensor, logits_NC: Tensor, weight_CD: Tensor, anchors_CD: Tensor) -> Tensor:
    """Return the critical caps with the official freezing of coordinates in which row and anchor are equal, [N].

    The official displacement is ε ‖d‖ u ⊙ m with m = d / (d + 1e-8): 0 where d is exactly 0. Directions then differ by
    anchor, so every anchor is tested: C times the work of `critical_cap`. In float64, for comparison only.
    """
    z_ND, weight_CD = hidden_ND.double(), weight_CD.double()
    logits_NC = logits_NC.double()
    v_NC, label_N = descent_weights(logits_NC)
    u_ND = torch.nn.functional.normalize(v_NC @ (weight_CD - weight_CD.mean(dim=0)), dim=1, eps=1e-300)
    least_N = torch.full((len(z_ND),), math.inf, dtype=torch.float64, device=z_ND.device)
    for anchor_D in anchors_CD.double():
        d_ND = anchor_D - z_ND
        image_NC = (u_ND * (d_ND / (d_ND + GUARD))) @ weight_CD.T
        slope_NC = image_NC - image_NC.gather(1, label_N[:, None])
        radius_N = first_crossing(logits_NC, label_N, slope_NC)
        least_N = torch.minimum(least_N, radius_N / d_ND.norm(dim=1))
    return math.sqrt(z_ND.shape[1]) * least_N
