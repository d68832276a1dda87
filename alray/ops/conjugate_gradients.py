"""Conjugate gradients: s with H s = v from products H s alone, H symmetric and positive (Hestenes & Stiefel, 1952).

Ours and not SciPy's, whose dot products run on as many threads as the machine has: the bits of s decide between ties.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from alray.errors import StrategyError

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Solved:
    """The solution, its residual relative to v, and the products that it took."""

    s: Tensor
    residual: float
    iterations: int


def solve(times: Product, v: Tensor, *, tol: float, iterations: int, precondition: Product | None = None) -> Solved:
    """Return s with ‖H s − v‖ ≤ tol·‖v‖, or what `iterations` products came to; sums are in fp64.

    Raises StrategyError when H curves downwards or is not a number: then there is no least point to find.
    """
    s, residual = torch.zeros_like(v), v
    size = _dot(v, v) ** 0.5
    if size == 0:
        return Solved(s, 0.0, 0)
    towards = precondition(residual) if precondition else residual
    rho, direction, done = _dot(residual, towards), towards, 0
    while done < iterations and _dot(residual, residual) ** 0.5 > tol * size:
        image = times(direction)
        bend = _dot(direction, image)
        if not bend > 0:
            raise StrategyError(_bent(bend, done))
        step = rho / bend
        s, residual, done = s + step * direction, residual - step * image, done + 1
        towards = precondition(residual) if precondition else residual
        before, rho = rho, _dot(residual, towards)
        direction = towards + (rho / before) * direction
    return Solved(s, _dot(residual, residual) ** 0.5 / size, done)


def _bent(bend: float, done: int) -> str:
    return (
        f"Conjugate gradients met a direction along which the Hessian curves by {bend:.3g} (after {done} iterations); "
        "expected more than 0. Raise the strategy's `damping`, fit the head with `head.l2` above 0, or, with all "
        "weights, use `curvature: gauss_newton`."
    )


def _dot(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a.flatten().double(), b.flatten().double()))
