"""Average-linkage clustering of weighted points: each stands for as many rows as it weighs.

Clusters merge in the order of the mean distance between their rows. Merging by chains of nearest neighbours finds the
same tree as merging the nearest pair each time, in M² steps (Murtagh, 1983): average linkage is reducible.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
Merge = tuple[float, int, int]
"""The mean distance of two clusters, and a point of each."""


def average(
    points_MD: npt.NDArray[Any],
    weight_M: npt.NDArray[np.int64],
    *,
    clusters: int,
    distance: float | None = None,
) -> npt.NDArray[np.int64]:
    """Return the cluster of each point, numbered by first points, [M].

    Merges until `clusters` are left, or if `distance` is given until none are nearer to each other on average. Takes
    8·M² bytes and M²·D operations.
    """
    merges = sorted(tree(points_MD.astype(np.float64), weight_M.astype(np.float64)))
    kept = merges[: max(len(points_MD) - clusters, 0)] if distance is None else [m for m in merges if m[0] < distance]
    parent = list(range(len(points_MD)))

    def root(at: int) -> int:
        while parent[at] != at:
            parent[at] = at = parent[parent[at]]
        return at

    for _, one, other in kept:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return np.unique([root(at) for at in range(len(parent))], return_inverse=True)[1].astype(np.int64)


def tree(points_MD: F64, weight_M: F64) -> list[Merge]:
    """Return the M − 1 merges of average linkage, in no order; ties go to the first point."""
    gap_MM, weight_M = distances(points_MD), weight_M.copy()
    merges, chain, left = list[Merge](), list[int](), len(points_MD)
    while left > 1:
        if not chain:
            chain = [int(np.flatnonzero(weight_M > 0)[0])]
        near = int(gap_MM[chain[-1]].argmin())
        if len(chain) > 1 and gap_MM[chain[-1], chain[-2]] <= gap_MM[chain[-1], near]:
            one, other = chain.pop(), chain.pop()
            merges.append((float(gap_MM[one, other]), one, other))
            _join(gap_MM, weight_M, one, other)
            left -= 1
        else:
            chain.append(near)
    return merges


def _join(gap_MM: F64, weight_M: F64, one: int, other: int) -> None:
    """Put the cluster `one` into `other`: mean distances to all others are weighted means (Lance & Williams, 1967)."""
    total = weight_M[one] + weight_M[other]
    mean_M = (weight_M[one] * gap_MM[one] + weight_M[other] * gap_MM[other]) / total
    mean_M[other] = np.inf
    gap_MM[other], gap_MM[:, other] = mean_M, mean_M
    gap_MM[one], gap_MM[:, one] = np.inf, np.inf
    weight_M[other], weight_M[one] = total, 0.0


def distances(points_MD: F64) -> F64:
    """Return all distances, infinite from a point to itself, [M, M]."""
    square_M = (points_MD**2).sum(axis=1)
    squared_MM = square_M[:, None] + square_M - 2 * points_MD @ points_MD.T
    np.fill_diagonal(squared_MM, np.inf)
    both_MM: F64 = np.sqrt(np.maximum(np.minimum(squared_MM, squared_MM.T), 0))
    return both_MM
