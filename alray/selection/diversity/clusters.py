"""Passes over the shards for k-means: exact sums, exact nearest rows. Every merge is associative and order-free."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.ops import kmeans
from alray.runtime import Held
from alray.selection.resident import Exclusion, Resident, Scan, scores
from alray.selection.shortlisted import Limit, unit_rows
from alray.strategies.shortlist import Counts
from alray.table import Ids

Centroids = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Nearest:
    """The nearest rows of each centroid, nearest first, ties by id; how many rows each has; and the inertia of all."""

    label_n: npt.NDArray[np.int64]
    squared_n: npt.NDArray[np.float64]
    ids_n: Ids
    scores_n: npt.NDArray[np.float32]
    count_K: npt.NDArray[np.int64]
    inertia: float

    def keep(self, most: int) -> Nearest:
        """Return at most `most` rows a centroid, in the order (centroid, distance, id)."""
        near = np.lexsort((self.squared_n, self.label_n))
        near = near[_rank_in_runs(self.label_n[near]) < most]
        # Rows as far as the last one that is kept may come before it by their ids.
        last_K = np.full(len(self.count_K), -np.inf)
        np.maximum.at(last_K, self.label_n[near], self.squared_n[near])
        near = np.flatnonzero(self.squared_n <= last_K[self.label_n])
        near = near[np.lexsort((self.ids_n[near].astype(str), self.squared_n[near], self.label_n[near]))]
        near = near[_rank_in_runs(self.label_n[near]) < most]
        parts = (self.label_n[near], self.squared_n[near], self.ids_n[near], self.scores_n[near])
        return Nearest(*parts, self.count_K, self.inertia)


def _rank_in_runs(sorted_n: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return 0, 1, 2, … within each run of equal numbers."""
    if not len(sorted_n):
        return sorted_n
    first = np.r_[True, sorted_n[1:] != sorted_n[:-1]]
    return np.arange(len(sorted_n)) - np.maximum.accumulate(np.where(first, np.arange(len(sorted_n)), 0))


def labels(shard: Resident, scan: Scan, limit: Limit, centroids_KD: Centroids) -> Tensor:
    """Return the nearest centroid of each shortlisted row, [n]."""
    key = ("labels", limit.above, limit.last, hashlib.blake2b(centroids_KD.tobytes()).digest())

    def compute() -> Tensor:
        return kmeans.nearest(unit_rows(shard, scan, limit)[1], torch.from_numpy(np.array(centroids_KD)))[0]

    return shard.remember(scan.token, key, compute)


def sizes(shard: Resident, scan: Scan, limit: Limit, centroids_KD: Centroids) -> Counts:
    """Return how many shortlisted rows each centroid is the nearest of in this shard, [K]."""
    return torch.bincount(labels(shard, scan, limit, centroids_KD), minlength=len(centroids_KD)).numpy()


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
        assert int(torch.as_tensor(count_K).max()) < kmeans.EXACT_ROWS, "a cluster's sum could round"
        centroids_KD = kmeans.means(torch.as_tensor(sums_KD), torch.as_tensor(count_K), centroids_KD)
    return centroids_KD


def nearest_rows(
    shard: Resident, scan: Scan, limit: Limit, centroids_KD: npt.NDArray[np.float32], taken: Exclusion, most: int
) -> Nearest:
    """Return each centroid's `most` nearest among the shard's rows that are its own and not `taken`."""
    rows, units_ND = unit_rows(shard, scan, limit)
    centroids = torch.from_numpy(np.array(centroids_KD))
    label_N, _ = kmeans.nearest(units_ND, centroids)
    squared_N = kmeans.distances(units_ND, centroids, label_N)
    inertia = float(squared_N.sum())
    free = ~taken.mask(shard)[rows]
    rows, labels, squared = rows[free], label_N.numpy()[free], squared_N.numpy()[free]
    count_K = np.bincount(labels, minlength=len(centroids))
    return Nearest(labels, squared, shard.ids[rows], scores(shard, scan)[rows], count_K, inertia).keep(most)


class MergeNearest:
    """Merge nearest rows by (distance, id)."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, parts: list[Nearest]) -> Nearest:
        joined = Nearest(
            np.concatenate([part.label_n for part in parts]),
            np.concatenate([part.squared_n for part in parts]),
            np.concatenate([part.ids_n for part in parts]),
            np.concatenate([part.scores_n for part in parts]),
            np.sum([part.count_K for part in parts], axis=0),
            float(np.sum([part.inertia for part in parts])),
        )
        return joined.keep(self.most)


def medoids(
    held: Held, scan: Scan, limit: Limit, centroids_KD: Tensor, budget: int
) -> tuple[Ids, npt.NDArray[np.float32], float]:
    """Return (ids, scores, inertia) of `budget` distinct shortlisted rows: the real row nearest to each centroid.

    An empty cluster has none. What is missing is taken in turns from the clusters, the largest first, each time their
    next nearest row.
    """
    centroids = centroids_KD.numpy()
    first: Nearest = held.reduce(nearest_rows, MergeNearest(1), scan, limit, centroids, Exclusion(frozenset()), 1)
    ids, values, missing = first.ids_n, first.scores_n, budget - len(first.ids_n)
    if missing > 0:
        taken = Exclusion(frozenset(ids))
        more: Nearest = held.reduce(nearest_rows, MergeNearest(missing), scan, limit, centroids, taken, missing)
        turns = _rank_in_runs(more.label_n)
        order = np.lexsort((more.label_n, -first.count_K[more.label_n], turns))[:missing]
        ids, values = np.concatenate([ids, more.ids_n[order]]), np.concatenate([values, more.scores_n[order]])
    return ids, values, first.inertia
