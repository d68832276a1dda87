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
