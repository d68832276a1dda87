"""Distances of unit fp16 rows without any rounding, so that neither blocks nor neighbours can change a comparison.

The entries are multiples of 2⁻²⁴ not much above 1, so products are multiples of 2⁻⁴⁸, and by Cauchy and Schwarz every
partial sum of an inner product stays below 2: fp64 holds all of them exactly, in any order.
"""

from __future__ import annotations

import torch
from torch import Tensor


def squared(x_ND: Tensor, y_MD: Tensor) -> Tensor:
    """Return ‖x − y‖² of every pair of rows made by `ops.kmeans.unit_rows`, exact fp64 [N, M]."""
    assert x_ND.dtype == y_MD.dtype == torch.float16
    x_ND, y_MD = x_ND.double(), y_MD.double()
    return x_ND.square().sum(dim=1)[:, None] + y_MD.square().sum(dim=1) - 2 * (x_ND @ y_MD.T)
