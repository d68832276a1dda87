"""Affine maps of rows whose results do not depend on the rows beside them.

A GEMM's edge, where rows or columns do not fill a tile, takes another kernel that adds in another order. So the last
rows of one cut of a pool would differ in bits from the same rows inside another cut, and equal columns from each other.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

TILE = 16
"""Rows and columns are filled up to a multiple of this with zeros (8 was enough on the processors that were tried)."""


def affine(x_ND: Tensor, weight_CD: Tensor, bias_C: Tensor, *, scale: float = 1.0) -> Tensor:
    """Return bias + scale · x·weightᵀ, [N, C]: each number from its own row, weights and bias alone."""
    rows, columns = len(x_ND), len(weight_CD)
    x_ND, weight_CD = _filled(x_ND), _filled(weight_CD)
    bias_C = pad(bias_C, (0, len(weight_CD) - columns))
    return torch.addmm(bias_C, x_ND, weight_CD.T, alpha=scale)[:rows, :columns]


def _filled(x_ND: Tensor) -> Tensor:
    more = -len(x_ND) % TILE
    return pad(x_ND, (0, 0, 0, more)) if more else x_ND
