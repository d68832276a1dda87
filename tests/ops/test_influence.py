"""What one row's expected gradient says along a direction, against autograd and sums written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alray.errors import StrategyError
from alray.ops import influence

N, D, C = 40, 7, 6


@pytest.fixture
def rows() -> dict[str, Tensor]:
    """A linear layer with a bias, rows, and a direction of the layer's weights [C, D + 1], fp64."""
    draw = torch.Generator().manual_seed(1)
    made = {"x": (N, D), "weight": (C, D), "bias": (C,), "s": (C, D + 1)}
    return {name: torch.randn(*size, generator=draw, dtype=torch.float64) for name, size in made.items()}


def along(rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return probabilities and slopes of the logits along s."""
    x, s = rows["x"], rows["s"]
    return (x @ rows["weight"].T + rows["bias"]).softmax(1), x @ s[:, :-1].T + s[:, -1]


def by_autograd(rows: dict[str, Tensor], top_k: int, weighted: bool) -> np.ndarray:
    """Return G·s, one row and one backward pass at a time, classes taken one by one."""
    out = []
    for x in rows["x"]:
        weight, bias = rows["weight"].clone().requires_grad_(), rows["bias"].clone().requires_grad_()
        logp = (weight @ x + bias).log_softmax(0)
        p = logp.detach().exp()
        top = p.argsort(descending=True)[:top_k]
        factor = p if weighted or top_k > 1 else torch.ones(C, dtype=torch.float64)
        loss = torch.stack([-factor[c] * logp[c] for c in top]).sum()
        slopes = torch.autograd.grad(loss, [weight, bias])
        out.append(float((slopes[0] * rows["s"][:, :-1]).sum() + (slopes[1] * rows["s"][:, -1]).sum()))
    return np.array(out)


@pytest.mark.parametrize(("top_k", "weighted"), [(1, False), (1, True), (2, True), (3, True), (5, True)])
def test_p37_the_formula_is_autograd(rows: dict[str, Tensor], top_k: int, weighted: bool) -> None:
    found = influence.benefit(*along(rows), top_k, weighted=weighted)
    np.testing.assert_allclose(found, by_autograd(rows, top_k, weighted), rtol=1e-10, atol=1e-13)


def test_of_label_is_autograd_with_that_label(rows: dict[str, Tensor]) -> None:
    label_N = torch.arange(N) % C
    probs_NC, along_NC = along(rows)
    found = influence.of_label(probs_NC, along_NC, label_N)
    wanted = ((probs_NC - torch.eye(C)[label_N]) * along_NC).sum(1)
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    pseudo = influence.of_label(probs_NC, along_NC, probs_NC.argmax(1))
    np.testing.assert_allclose(pseudo, influence.benefit(probs_NC, along_NC, 1, weighted=False), atol=1e-12)


def test_p35_over_all_classes_it_is_zero_and_refused(rows: dict[str, Tensor]) -> None:
    """P35: Σ p_c ∇ℓ_c over all classes is zero, so K = C is refused with that explanation."""
    assert np.abs(by_autograd(rows, C, True)).max() < 1e-12
    assert influence.benefit(*along(rows), C, weighted=True).abs().max() == 0
    for top_k in (C, C + 1):
        with pytest.raises(StrategyError, match=rf"`top_k` is {top_k} and the head has 6 classes.*identically zero"):
            influence.check_top_k(top_k, C)
    influence.check_top_k(C - 1, C)
    influence.check_top_k(1, 1)


@pytest.mark.parametrize("top_k", range(1, C))
def test_p36_the_top_classes_are_minus_the_rest(rows: dict[str, Tensor], top_k: int) -> None:
    """P36: Σ over the top K of p_c ∇ℓ_c is minus the sum over the other classes."""
    probs_NC, along_NC = along(rows)
    each_NC = probs_NC * ((probs_NC * along_NC).sum(1, keepdim=True) - along_NC)
    inside_NC = probs_NC.argsort(1, descending=True).argsort(1) < top_k
    rest = -(each_NC * ~inside_NC).sum(1)
    np.testing.assert_allclose(influence.benefit(probs_NC, along_NC, top_k, weighted=True), rest, atol=1e-12)


def test_a_certain_row_keeps_its_digits() -> None:
    """In fp32 p₀ rounds to one, and (p − e)·u would be zero or noise beside a slope that all classes share."""
    logits = torch.tensor([[30.0, 1.0, -2.0]])
    along_NC = torch.tensor([[1e6, 1e6 + 2.0, 1e6 - 1.0]])
    exact = logits.double().softmax(1)
    wanted = exact[0, 1] * 2.0 - exact[0, 2] * 1.0
    for top_k, factor in ((1, 1.0), (2, float(exact[0, 2]))):
        found = influence.benefit(logits.softmax(1), along_NC, top_k, weighted=False)
        if top_k == 1:
            assert float(found) == pytest.approx(float(wanted) * factor, rel=1e-5)
        else:  # P_in · p₂u₂ − p₂ · (p₀u₀ + p₁u₁)
            assert float(found) == pytest.approx(-float(exact[0, 2]), rel=1e-5)


def test_equal_probabilities_take_the_first_classes() -> None:
    probs, along_NC = torch.full((1, 4), 0.25), torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    found = influence.benefit(probs, along_NC, 1, weighted=False)
    assert float(found) == pytest.approx(0.25 * (1 + 3 + 7))


def test_the_slope_of_a_loss_by_its_logits() -> None:
    logits, label = (
        torch.randn(5, 3, generator=torch.Generator().manual_seed(2)).double(),
        torch.tensor([0, 1, 2, 0, 1]),
    )
    leaf = logits.clone().requires_grad_()
    torch.nn.functional.cross_entropy(leaf, label, reduction="sum").backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(influence.surprise(logits, label), leaf.grad, atol=1e-12)
