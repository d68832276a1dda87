"""Influence of an unlabelled row on a reference loss: its expected gradient along one direction of the weights.

Adding a row z to the training set moves the fitted weights by −H⁻¹∇ℓ(z), and so the reference loss by −v·H⁻¹∇ℓ(z),
with v its gradient and H the Hessian of the training objective (Koh & Liang, ICML 2017; Liu et al., ICCV 2021, §3.1).
With s = H⁻¹v, found once, a row needs u = J s alone, the slope of its logits along s: for every class c,
∇ℓ(z, c)·s = (p − e_c)·u. So neither the label of the row nor the number of weights is of any account until the end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from alray.errors import StrategyError


def check_top_k(top_k: int, classes: int) -> None:
    """Refuse an expected gradient over all classes, which says nothing. With one class there is nothing to choose."""
    if (why := too_few(top_k, classes)) is not None:
        raise StrategyError(why)


def too_few(top_k: int, classes: int) -> str | None:
    """Return why a head has too few classes for a gradient expected over `top_k`; None where it has enough."""
    if top_k < classes or (top_k == classes == 1):
        return None
    less = f"to less than {classes}" if classes > 1 else "to 1"
    return (
        f"`top_k` is {top_k} and the head has {classes} classes: the expected gradient over all classes, Σ p_c ∇ℓ_c, "
        f"is identically zero for any row and any weights, so that scores would be rounding alone. Set `top_k` {less}; "
        "1, the pseudo-label, is what the paper's code uses."
    )


def benefit(probs_NC: Tensor, along_NC: Tensor, top_k: int, *, weighted: bool) -> Tensor:
    """Return Σ_{c in top K} p_c (p − e_c)·u, fp64 [N]: the fall of the reference loss, minus the influence.

    `along_NC` are the slopes u of the logits along s. With K = 1 and not `weighted` the factor p_c is left out.
    Of equal probabilities the first classes are the top ones. Within the top K the terms cancel in pairs, so they are
    never formed: what is left is P_in · Σ_out p_c u_c − P_out · Σ_in p_c u_c, in which no probability near one is
    subtracted from one, and the row of a certain class keeps its digits.
    """
    probs_NC, order_NC = probs_NC.double().sort(dim=1, descending=True, stable=True)
    along_NC = along_NC.double().gather(1, order_NC)
    along_NC = along_NC - along_NC[:, :1]  # a slope that all classes share moves no probability
    inside_NK, outside_NR = probs_NC[:, :top_k], probs_NC[:, top_k:]
    gain_out_N = (outside_NR * along_NC[:, top_k:]).sum(dim=1)
    if top_k == 1 and not weighted:
        return gain_out_N
    gain_in_N = (inside_NK * along_NC[:, :top_k]).sum(dim=1)
    return inside_NK.sum(dim=1) * gain_out_N - outside_NR.sum(dim=1) * gain_in_N


def of_label(probs_NC: Tensor, along_NC: Tensor, label_N: Tensor) -> Tensor:
    """Return (p − e_y)·u, fp64 [N], of rows whose labels are known: minus their influence."""
    along_NC = along_NC.double()
    own_N1 = along_NC.gather(1, label_N[:, None])
    return (probs_NC.double() * (along_NC - own_N1)).sum(dim=1)


def surprise(logits_NC: Tensor, label_N: Tensor) -> Tensor:
    """Return p − e_y, [N, C]: the gradient of each row's cross-entropy by its logits."""
    return logits_NC.softmax(dim=1) - torch.nn.functional.one_hot(label_N, logits_NC.shape[1])
