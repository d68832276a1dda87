"""Farthest-first traversal of rows that one machine holds: greedy k-centre (Gonzalez, 1985)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.ops.distances import Euclidean


def farthest_first(
    points_NP: Tensor, centres_MP: Tensor, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return (rows, distances): `count` times the row farthest from all centres and picks so far, ties by order.

    Needs a centre and count ≤ N.
    """
    metric = Euclidean()
    rows_NG, centres_MG = metric.place(points_NP), metric.place(centres_MP)
    least_N = torch.cat([metric.squared(rows, centres_MG).amin(dim=1) for rows in torch.split(rows_NG, 1024)])
    picks: list[int] = []
    squared: list[float] = []
    for _ in range(count):
        pick = int(least_N.argmax())
        picks.append(pick)
        squared.append(float(least_N[pick]))
        least_N = torch.minimum(least_N, metric.squared(rows_NG, rows_NG[pick : pick + 1])[:, 0])
        least_N[picks] = -1.0
    return np.array(picks, dtype=np.int64), np.sqrt(np.array(squared))
