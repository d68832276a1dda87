"""Typicality: how near a row's nearest neighbours are (Hacohen, Dekel & Weinshall, ICML 2022, eq. 4)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.ops import unit_distances

FLOOR = 1e-5
"""Added to the mean distance, so that a row that stands many times has a typicality too."""

BLOCK = 512
"""Rows whose distances to all others are held at once."""


def most_typical(units_ND: Tensor, count: int, neighbours: int) -> npt.NDArray[np.int64]:
    """Return `count` rows of fp16 unit rows, each the most typical of those that are left, [count].

    With n rows left, a row's typicality is 1/(mean distance to its min(neighbours, n/2) nearest of them + 10⁻⁵), to at
    least one. Ties go to the first row. Needs 1 ≤ count ≤ N; takes N²D + count·N·(neighbours + count) operations.
    """
    rows = len(units_ND)
    near_NK, distance_NK = _nearest(units_ND, min(rows - 1, neighbours + count - 1))
    left_N, picks = np.ones(rows, dtype=np.bool_), []
    for taken in range(count):
        wanted = max(1, min(neighbours, (rows - taken) // 2))
        columns = min(wanted + taken, near_NK.shape[1])  # no more than `taken` of a row's neighbours can be gone
        mean_N = _mean_of_first(distance_NK[:, :columns], left_N[near_NK[:, :columns]], wanted)
        picks.append(int(np.where(left_N, 1 / (mean_N + FLOOR), -1.0).argmax()))
        left_N[picks[-1]] = False
    return np.array(picks, dtype=np.int64)


def _nearest(units_ND: Tensor, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the `count` nearest other rows of each row, nearest first, and their distances; [N, count]."""
    near, distance = [], []
    for start in range(0, len(units_ND), BLOCK):
        block_bN = unit_distances.squared(units_ND[start : start + BLOCK], units_ND)
        block_bN[torch.arange(len(block_bN)), torch.arange(start, start + len(block_bN))] = torch.inf
        found = block_bN.topk(count, dim=1, largest=False)
        near.append(found.indices)
        distance.append(found.values.sqrt())
    return torch.cat(near).numpy(), torch.cat(distance).numpy()


def _mean_of_first(
    distance_NK: npt.NDArray[np.float64], left_NK: npt.NDArray[np.bool_], wanted: int
) -> npt.NDArray[np.float64]:
    """Return the mean of the first `wanted` distances to rows that are left; 0 where there are none."""
    used_NK = left_NK & (left_NK.cumsum(axis=1) <= wanted)
    total_N: npt.NDArray[np.float64] = np.where(used_NK, distance_NK, 0.0).sum(axis=1)
    count_N: npt.NDArray[np.int64] = used_NK.sum(axis=1)
    return total_N / np.maximum(count_N, 1).astype(np.float64)
