"""Uncertainty of class probabilities (Settles, *Active Learning Literature Survey*, 2009, §3.1)."""

from __future__ import annotations

import torch
from torch import Tensor


def least_confidence(probs_NC: Tensor) -> Tensor:
    """Return 1 − max p, [N]: 0 when certain."""
    return 1 - probs_NC.max(dim=1).values


def margin(probs_NC: Tensor) -> Tensor:
    """Return p₁ − p₂, the gap of the two largest probabilities, [N]: 0 when torn. One class has a gap of 1."""
    if probs_NC.shape[1] < 2:
        return probs_NC[:, 0].clone()
    top_N2 = probs_NC.topk(2, dim=1).values
    return top_N2[:, 0] - top_N2[:, 1]


def entropy(probs_NC: Tensor) -> Tensor:
    """Return −Σ p ln p in nats, [N]; a probability of zero adds nothing."""
    parts_NC: Tensor = torch.special.entr(probs_NC)
    return parts_NC.sum(dim=1)


def symmetric_kl(logits_NC: Tensor, others_NC: Tensor) -> Tensor:
    """Return ½ KL(p‖q) + ½ KL(q‖p) = ½ Σ (p − q)(ln p − ln q) of two predictions given as logits, [N], ≥ 0."""
    log_p_NC, log_q_NC = logits_NC.log_softmax(dim=1), others_NC.log_softmax(dim=1)
    parts_NC = (log_p_NC.exp() - log_q_NC.exp()) * (log_p_NC - log_q_NC)
    return parts_NC.sum(dim=1).clamp_min(0) / 2


def overflow(logits_NC: Tensor) -> Tensor:
    """Return 0 for each row, but NaN where its largest logit is no finite number, as its softmax is then, [N]."""
    top_N = logits_NC.amax(dim=1)
    return top_N - top_N
