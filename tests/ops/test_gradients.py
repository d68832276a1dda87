"""BADGE's residuals against autograd, where the head is sure, and one row at a time."""

from __future__ import annotations

import torch

from alray.ops.gradients import residuals


def test_residuals_and_features_are_the_factors_of_the_gradient_by_the_last_weights() -> None:
    g = torch.Generator().manual_seed(0)
    weight_CH = torch.randn(5, 7, generator=g, dtype=torch.float64, requires_grad=True)
    for hidden_H in torch.randn(6, 7, generator=g, dtype=torch.float64):
        logits_C = weight_CH @ hidden_H
        loss = torch.nn.functional.cross_entropy(logits_C[None], logits_C.argmax()[None])
        (gradient_CH,) = torch.autograd.grad(loss, weight_CH)
        a_C = residuals(logits_C.detach().softmax(dim=0)[None])[0]
        torch.testing.assert_close(torch.outer(a_C, hidden_H), gradient_CH, rtol=1e-12, atol=1e-12)


def test_p17_a_row_has_the_same_residual_beside_others_and_alone() -> None:
    probs_NC = torch.randn(333, 11, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    whole_NC = residuals(probs_NC)
    for at in (0, 1, 100, 332):
        assert torch.equal(residuals(probs_NC[at : at + 1])[0], whole_NC[at])


def test_a_sure_head_still_has_a_gradient() -> None:
    probs_NC = torch.tensor([[60.0, 1.0, 2.0, -3.0, 0.0]]).softmax(dim=1)
    assert probs_NC[0, 0] == 1
    a_NC = residuals(probs_NC)
    others = probs_NC[0, 1:].double().sum()
    torch.testing.assert_close(a_NC[0, 0].double(), -others, rtol=1e-6, atol=0)
    assert a_NC[0, 0] < 0 and torch.equal(a_NC[0, 1:], probs_NC[0, 1:])


def test_one_class_has_none() -> None:
    assert torch.equal(residuals(torch.ones(3, 1)), torch.zeros(3, 1))
