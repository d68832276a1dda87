"""LiSSA's recursion, its published constants, and its divergence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alray.errors import StrategyError
from alray.ops.lissa import lissa


def test_p34_without_curvature_250_steps_give_91_9752() -> None:
    """P34: h = (1 − 0.99²⁵¹) / 0.01 · v."""
    v = torch.tensor([1.0, -2.0], dtype=torch.float64)
    found = lissa(lambda _, h: 0 * h, v, 10, damp=0.01, scale=1e4, depth=250, repetitions=4)
    np.testing.assert_allclose(found, v * (1 - 0.99**251) / 0.01, rtol=1e-12)
    assert float(found[0]) == pytest.approx(91.9752, abs=1e-4)


def test_p34_where_it_converges_it_is_a_damped_solve() -> None:
    """P34: h = scale·(H + scale·damp·I)⁻¹v."""
    a = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h, v = a @ a.T + 0.1 * torch.eye(8), torch.arange(8, dtype=torch.float64)
    found = lissa(lambda _, x: h @ x, v, 1, damp=0.02, scale=50.0, depth=3000, repetitions=1)
    wanted = 50 * np.linalg.solve(h.numpy() + np.eye(8), v.numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-8)


def test_rows_are_taken_in_order_each_repetition_where_the_last_one_stopped() -> None:
    seen = list[int]()

    def times(row: int, h: Tensor) -> Tensor:
        seen.append(row)
        return 0 * h

    lissa(times, torch.ones(1), 5, damp=0.1, scale=1.0, depth=4, repetitions=2)
    assert seen == [0, 1, 2, 3, 4, 0, 1, 2]


@pytest.mark.parametrize("curve", [2.5, 1e3, -0.5, float("nan")])
def test_divergence_is_noticed(curve: float) -> None:
    with pytest.raises(StrategyError, match=r"LiSSA diverges: at step \d+.*Raise `lissa.scale`.*`solver: cg`"):
        lissa(lambda _, h: curve * h, torch.ones(3), 7, damp=0.01, scale=1.0, depth=250, repetitions=1)
