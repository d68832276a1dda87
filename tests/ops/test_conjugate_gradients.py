"""Conjugate gradients against dense solves, and what they say when there is nothing to solve."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alray.errors import StrategyError
from alray.ops.conjugate_gradients import solve


def spd(size: int, seed: int = 0) -> Tensor:
    """Return a symmetric positive definite matrix, fp64."""
    a = torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return a @ a.T + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_it_solves(preconditioned: bool) -> None:
    h, v = spd(30), torch.arange(30, dtype=torch.float64)
    by_diagonal = (lambda r: r / h.diagonal()) if preconditioned else None
    found = solve(lambda s: h @ s, v, tol=1e-12, iterations=200, precondition=by_diagonal)
    np.testing.assert_allclose(found.s, np.linalg.solve(h.numpy(), v.numpy()), rtol=1e-7, atol=1e-8)
    assert found.residual <= 1e-12


def test_it_stops_when_told_and_says_how_far_it_came() -> None:
    h, v = spd(40), torch.ones(40, dtype=torch.float64)
    found = solve(lambda s: h @ s, v, tol=1e-12, iterations=3)
    assert found.iterations == 3
    assert found.residual == pytest.approx(float((h @ found.s - v).norm() / v.norm()), rel=1e-6)
    assert solve(lambda s: h @ s, v, tol=0.9, iterations=99).iterations < 40


def test_no_gradient_has_no_direction() -> None:
    found = solve(lambda s: s, torch.zeros(3, 2), tol=1e-6, iterations=9)
    assert found.iterations == 0 and found.s.abs().max() == 0 and found.residual == 0


@pytest.mark.parametrize("value", [-1.0, 0.0, float("nan")])
def test_a_hessian_that_does_not_curve_upwards_is_refused(value: float) -> None:
    with pytest.raises(StrategyError, match=r"curves by .*expected more than 0\. Raise the strategy's `damping`"):
        solve(lambda s: value * s, torch.ones(4), tol=1e-6, iterations=9)
