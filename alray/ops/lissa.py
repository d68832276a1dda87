"""LiSSA: H⁻¹v by a recursion that looks at one row's Hessian a step (Agarwal et al., JMLR 2017), as ISAL's code has it.

h ← v + (1 − damp)·h − Hᵢh / scale. Where it converges, h = scale·(H + scale·damp·I)⁻¹v with H the mean of the Hᵢ. After
250 steps at the published scale h is still near a multiple of v, and the influence near a similarity of gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alray.errors import StrategyError


def lissa(
    times_row: Callable[[int, Tensor], Tensor],
    v: Tensor,
    rows: int,
    *,
    damp: float,
    scale: float,
    depth: int,
    repetitions: int,
) -> Tensor:
    """Return the mean h over `repetitions`, undivided by `scale`; each goes on with the row where the last one stopped.

    `times_row(i, h)` is Hᵢh of row i of `rows`; after the last row comes the first again.

    Raises StrategyError when h grows as it cannot if every step is a contraction.
    """
    total = torch.zeros_like(v)
    for start in range(0, repetitions * depth, depth):
        total += _chain(times_row, v, [(start + t) % rows for t in range(depth)], damp, scale)
    return total / repetitions


def _chain(
    times_row: Callable[[int, Tensor], Tensor], v: Tensor, order: list[int], damp: float, scale: float
) -> Tensor:
    h, size = v.clone(), float(v.norm())
    bound = size
    for step, row in enumerate(order, start=1):
        h = v + (1 - damp) * h - times_row(row, h) / scale
        bound = size + (1 - damp) * bound  # what a Hessian without negative curvature, and below 2·scale, allows
        grown = float(h.norm())
        if not grown <= 1.001 * bound:
            raise StrategyError(
                f"LiSSA diverges: at step {step} the estimate has length {grown:.3g}, and a converging one at most "
                f"{bound:.3g}. Raise `lissa.scale` (it is {scale:g}; it must exceed the largest curvature of a single "
                "row), or use `solver: cg`."
            )
    return h
