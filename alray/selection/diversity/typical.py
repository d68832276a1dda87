"""TypiClust over shards: clusters by k-means, and in turns the most typical row of each.

The clusters' sizes come from one pass. Rows travel only of clusters that get picks, of each at most a set number, and
in batches that a worker can hold; what comes back from the workers is ids.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.ops import kmeans, turns, typicality
from alray.selection import shortlisted
from alray.selection.diversity import by_kmeans, clusters
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.clusters import Centroids
from alray.selection.diversity.coreset import number_above
from alray.selection.resident import Resident, Scan
from alray.selection.shortlisted import Limit, unit_rows
from alray.strategies.diversity import MostTypical
from alray.strategies.shortlist import Counts
from alray.table import Ids, as_ids

BATCH_BYTES = 64 * 2**20
"""fp16 unit rows that one worker gathers at once."""


def most_typical(found: Candidates) -> Chosen:
    """Return `budget` candidates, whose scores count down their turns; the clusters are of features in any case."""
    way = found.diversity
    assert isinstance(way, MostTypical)
    found = dataclasses.replace(found, scan=dataclasses.replace(found.scan, space="features"))
    labelled_ND = _labelled_units(found)
    wanted = min(len(labelled_ND) + found.budget, way.clusters, found.count)
    centroids_KD = by_kmeans.centroids(found, wanted)
    labelled_K = torch.bincount(kmeans.nearest(labelled_ND, centroids_KD)[0], minlength=wanted).numpy()
    size_K: Counts = found.held.reduce(clusters.sizes, shortlisted.add, found.scan, found.limit, centroids_KD.numpy())
    cluster_B = share_out(size_K, labelled_K, way.small, found.budget)
    picks_K = np.bincount(cluster_B, minlength=wanted)
    most_K = np.minimum(size_K, np.maximum(way.most, picks_K)) * (picks_K > 0)
    found.report.update(
        space="features", clusters=wanted, clusters_sampled=int(((most_K < size_K) & (picks_K > 0)).sum())
    )
    ids_of: dict[int, Ids] = {}
    for batch in batches(most_K, found.dim):
        ids_of |= _typical_rows(found, centroids_KD.numpy(), batch, size_K, most_K, picks_K, way.neighbours)
    given = zip(cluster_B.tolist(), turns.places(cluster_B).tolist(), strict=True)
    ids = as_ids([ids_of[cluster][turn] for cluster, turn in given if turn < len(ids_of[cluster])])
    return ids, np.arange(found.budget, found.budget - len(ids), -1, dtype=np.float32)


def share_out(size_K: Counts, labelled_K: Counts, small: int, budget: int) -> Counts:
    """Return the cluster of each pick, in their order: turns of the clusters that are not small, then of the small.

    Clusters stand by (labelled rows ascending, size descending, number); labelled rows count for the size.
    """
    all_K = size_K + labelled_K
    order_K = np.lexsort((np.arange(len(all_K)), -all_K, labelled_K))
    large_B = turns.take_turns(order_K[all_K[order_K] > small], size_K, budget)
    rest_B = turns.take_turns(order_K[all_K[order_K] <= small], size_K, budget - len(large_B))
    return np.concatenate([large_B, rest_B])


def batches(most_K: Counts, dim: int) -> list[Counts]:
    """Return the clusters with rows to gather, in batches of at most `BATCH_BYTES`, or of one cluster."""
    out: list[list[int]] = []
    room = 0
    for cluster in np.flatnonzero(most_K).tolist():
        size = int(most_K[cluster]) * dim * 2
        if not out or size > room:
            out.append([])
            room = BATCH_BYTES
        out[-1].append(cluster)
        room -= size
    return [np.array(batch, dtype=np.int64) for batch in out]


def _labelled_units(found: Candidates) -> Tensor:
    known = found.bought()
    return torch.zeros(0, found.dim, dtype=torch.float16) if known is None else kmeans.unit_rows(known["features"])


# passes over the shards


@dataclass(frozen=True)
class Members:
    """Rows of some clusters, by cluster and then by the random number they drew, the highest first."""

    label_n: Counts
    number_n: npt.NDArray[np.float64]
    ids_n: Ids
    units_nD: Tensor

    def highest(self, most_K: Counts) -> Members:
        """Return at most `most_K` rows of each cluster, ties by id."""
        order = np.lexsort((self.ids_n.astype(str), -self.number_n, self.label_n))
        order = order[turns.places(self.label_n[order]) < most_K[self.label_n[order]]]
        units_nD = self.units_nD[torch.from_numpy(order)]
        return Members(self.label_n[order], self.number_n[order], self.ids_n[order], units_nD)


def members(
    shard: Resident,
    scan: Scan,
    limit: Limit,
    centroids_KD: Centroids,
    batch: Counts,
    above_K: npt.NDArray[np.float64],
    most_K: Counts,
    stream: int,
) -> Members:
    """Return the shard's rows of the clusters in `batch`: at most `most_K` of each, those with the highest numbers."""
    rows, units_ND = unit_rows(shard, scan, limit)
    label_N = clusters.labels(shard, scan, limit, centroids_KD).numpy()
    number_N = seeds.uniform(stream, shard.hashes[rows])
    inside = np.flatnonzero(np.isin(label_N, batch) & (number_N > above_K[label_N]))
    part = Members(label_N[inside], number_N[inside], shard.ids[rows[inside]], units_ND[torch.from_numpy(inside)])
    return part.highest(most_K)


class MergeMembers:
    """Merge rows of clusters: the highest numbers of each."""

    def __init__(self, most_K: Counts) -> None:
        self.most_K = most_K

    def __call__(self, parts: list[Members]) -> Members:
        return Members(
            np.concatenate([part.label_n for part in parts]),
            np.concatenate([part.number_n for part in parts]),
            np.concatenate([part.ids_n for part in parts]),
            torch.cat([part.units_nD for part in parts]),
        ).highest(self.most_K)


@dataclass(frozen=True)
class Typical:
    """Choose each cluster's most typical rows, one after the other."""

    picks_K: Counts
    neighbours: int

    def __call__(self, found: Members) -> dict[int, Ids]:
        out = {}
        for cluster in np.unique(found.label_n).tolist():
            rows = np.flatnonzero(found.label_n == cluster)
            rows = rows[np.argsort(found.ids_n[rows].astype(str), kind="stable")]
            units_nD = found.units_nD[torch.from_numpy(rows)]
            count = min(int(self.picks_K[cluster]), len(rows))
            out[cluster] = found.ids_n[rows[typicality.most_typical(units_nD, count, self.neighbours)]]
        return out


def _typical_rows(
    found: Candidates,
    centroids_KD: Centroids,
    batch: Counts,
    size_K: Counts,
    most_K: Counts,
    picks_K: Counts,
    neighbours: int,
) -> dict[int, Ids]:
    """Return the most typical rows of each cluster of a batch, in the order in which they are taken."""
    above_K = np.array([number_above(int(n), int(k)) if k else 1.0 for n, k in zip(size_K, most_K, strict=True)])
    stream = found.stream("typiclust")
    merge, finish = MergeMembers(most_K), Typical(picks_K, neighbours)
    shared = (found.scan, found.limit, centroids_KD, batch, above_K, most_K, stream)
    typical: dict[int, Ids] = found.held.reduce(members, merge, *shared, finish=finish)
    return typical
