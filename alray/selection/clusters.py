"""Passes over the shards for k-means: exact sums, exact nearest rows. Every merge is associative and order-free."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.ops import kmeans
from alray.runtime import Held
from alray.selection.resident import Exclusion, Resident, Scan
from alray.selection.shortlisted import Limit, unit_rows
from alray.table import Ids, as_ids


@dataclass(frozen=True)
class Nearest:
    """Per centroid: the nearest row (distance², id, score), and how many rows it has; and the inertia of all."""

    squared_K: npt.NDArray[np.float64]
    ids_K: Ids
    scores_K: npt.NDArray[np.float32]
    count_K: npt.NDArray[np.int64]
    inertia: float


def lloyd_sums(
    shard: Resident, scan: Scan, limit: Limit, centroids_KD: npt.NDArray[np.float32]
) -> tuple[Tensor, Tensor]:
    """Return per cluster the exact fp64 sum of the shard's unit rows, and their count."""
    _, rows_ND = unit_rows(shard, scan, limit)
    centroids = torch.from_numpy(np.array(centroids_KD))
    return kmeans.cluster_sums(rows_ND, kmeans.nearest(rows_ND, centroids)[0], len(centroids))


def add_sums(parts: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Merge cluster sums: fp64 additions that are exact, so the tree does not matter."""
    sums_KD, count_K = parts[0][0].clone(), parts[0][1].clone()
    for more_KD, more_K in parts[1:]:
        sums_KD += more_KD
        count_K += more_K
    return sums_KD, count_K


def refine(held: Held, scan: Scan, limit: Limit, centroids_KD: Tensor, *, passes: int) -> Tensor:
    """Return the centroids after exact Lloyd passes over all shards."""
    for _ in range(passes):
        sums_KD, count_K = held.reduce(lloyd_sums, add_sums, scan, limit, centroids_KD.numpy())
        centroids_KD = kmeans.means(torch.as_tensor(sums_KD), torch.as_tensor(count_K), centroids_KD)
    return centroids_KD


def nearest_rows(
    shard: Resident, scan: Scan, limit: Limit, centroids_KD: npt.NDArray[np.float32], taken: Exclusion
) -> Nearest:
    """Return the shard's nearest row to each centroid among that centroid's own rows that are not `taken`."""
    rows, units_ND = unit_rows(shard, scan, limit)
    centroids = torch.from_numpy(np.array(centroids_KD))
    label_N, _ = kmeans.nearest(units_ND, centroids)
    squared_N = kmeans.distances(units_ND, centroids, label_N)
    inertia = float(squared_N.sum())
    free = torch.from_numpy(~taken.mask(shard)[rows])
    rows, label_N, squared_N = rows[free.numpy()], label_N[free], squared_N[free]
    clusters = len(centroids_KD)
    least_K = torch.full((clusters,), torch.inf, dtype=torch.float64).scatter_reduce_(0, label_N, squared_N, "amin")
    ids_K = as_ids([""] * clusters)
    scores_K = np.full(clusters, np.nan, dtype=np.float32)
    all_scores = shard.remember(("scores", scan.token), lambda: np.empty(0, dtype=np.float32))
    for at in torch.nonzero(squared_N == least_K[label_N]).flatten().tolist():
        cluster, row = int(label_N[at]), int(rows[at])
        if not ids_K[cluster] or shard.ids[row] < ids_K[cluster]:
            ids_K[cluster], scores_K[cluster] = shard.ids[row], all_scores[row]
    count_K = torch.bincount(label_N, minlength=clusters).numpy()
    return Nearest(least_K.numpy(), ids_K, scores_K, count_K, inertia)


def merge_nearest(parts: list[Nearest]) -> Nearest:
    """Merge nearest rows by (distance, id): associative, commutative, idempotent in all but the counts."""
    squared_K, ids_K, scores_K = parts[0].squared_K.copy(), parts[0].ids_K.copy(), parts[0].scores_K.copy()
    for part in parts[1:]:
        closer = part.squared_K < squared_K
        for k in np.flatnonzero((part.squared_K == squared_K) & np.isfinite(squared_K)):
            closer[k] = part.ids_K[k] < ids_K[k]
        squared_K[closer], ids_K[closer], scores_K[closer] = (
            part.squared_K[closer],
            part.ids_K[closer],
            part.scores_K[closer],
        )
    counts = np.sum([part.count_K for part in parts], axis=0)
    return Nearest(squared_K, ids_K, scores_K, counts, float(np.sum([part.inertia for part in parts])))


def medoids(
    held: Held, scan: Scan, limit: Limit, centroids_KD: Tensor, budget: int
) -> tuple[Ids, npt.NDArray[np.float32], float]:
    """Return (ids, scores, inertia) of `budget` distinct shortlisted rows: the real row nearest to each centroid.

    An empty cluster has none; what is missing is taken from the largest clusters, their next nearest row each.
    """
    ids: list[str] = []
    scores: list[float] = []
    inertia = None
    while len(ids) < budget:
        taken = Exclusion(frozenset(ids))
        found: Nearest = held.reduce(nearest_rows, merge_nearest, scan, limit, centroids_KD.numpy(), taken)
        inertia = found.inertia if inertia is None else inertia
        full = np.flatnonzero(found.count_K > 0)
        if not len(full):
            break
        largest = full[np.lexsort((full, -found.count_K[full]))][: budget - len(ids)]
        ids += [str(i) for i in found.ids_K[largest]]
        scores += found.scores_K[largest].tolist()
    return as_ids(ids), np.array(scores, dtype=np.float32), float(inertia or 0.0)
