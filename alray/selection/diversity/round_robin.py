"""In turns, a row of each cluster of the pool, drawn at random: clusters that are found once and used in every round.

The clusters depend on the features, the seed and the parameters alone: not on the round, nor on what is labelled. So a
pool that is loaded again finds the same ones again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alray import seeds
from alray.ops import kmeans, linkage, turns
from alray.selection import at_random, shortlisted
from alray.selection.diversity import clusters
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.clusters import Centroids
from alray.selection.resident import Exclusion, Resident, Scan, scores
from alray.selection.shortlisted import Limit
from alray.strategies import find
from alray.strategies.diversity import RoundRobin
from alray.strategies.shortlist import Counts
from alray.table import Ids, as_ids

REFINES = 3
"""Exact k-means steps from random rows to micro-clusters."""

EVERY = Limit(-np.inf)


@dataclass(frozen=True)
class PoolClusters:
    """Micro-centroids of a pool's unit features, fp32 [M, D], and the cluster of each, [M]."""

    centroids_MD: Centroids
    cluster_M: Counts


def round_robin(found: Candidates) -> Chosen:
    """Return `budget` candidates: turns of the clusters, the one with the fewest candidates first."""
    of_pool = pool_clusters(found)
    scan = dataclasses.replace(found.scan, space="features")
    stream = seeds.key(found.given.seed, "round-robin", found.given.round)
    shared = (scan, found.limit, of_pool.centroids_MD, of_pool.cluster_M, stream)
    members: Members = found.held.reduce(grouped, joined, *shared)
    found.report.update(
        space="features", clusters=int(of_pool.cluster_M.max()) + 1, groups=len(np.unique(members.cluster_n))
    )
    taken = in_turns(members, found.budget)
    return members.ids_n[taken], members.score_n[taken]


def pool_clusters(found: Candidates) -> PoolClusters:
    """Return the clusters of all rows of the pool that can be read; remembered with the resident pool."""
    way, seed = found.diversity, found.given.seed
    assert isinstance(way, RoundRobin)
    key = (found.scan.version, seed, way)
    if key not in found.kept:
        found.kept[key] = _pool_clusters(found, way, seed)
    kept: PoolClusters = found.kept[key]
    return kept


def _pool_clusters(found: Candidates, way: RoundRobin, seed: int) -> PoolClusters:
    held, nothing = found.held, Exclusion(frozenset())
    # A token that begins as no other one does: the scores of the selection under way are not these.
    scan = Scan(f"{found.scan.token}-pool".replace("/", "-"), found.scan.version, find("kmeans"), {}, None, nothing)
    stream = seeds.key(seed, "micro-clusters")
    drawn: at_random.Sampled = held.reduce(
        at_random.sampled, at_random.MergeSampled(way.micro), nothing, way.micro, stream
    )
    order = np.argsort(drawn.ids.astype(str), kind="stable")
    start_MD = kmeans.unit_rows(torch.from_numpy(drawn.features_ND[order].astype(np.float32))).float()
    centroids_MD = clusters.refine(held, scan, EVERY, start_MD, passes=REFINES).numpy()
    size_M: Counts = held.reduce(clusters.sizes, shortlisted.add, scan, EVERY, centroids_MD)
    full = np.flatnonzero(size_M)
    centroids_MD, size_M = centroids_MD[full], size_M[full]
    cluster_M = found.runtime.call(_linked, centroids_MD, size_M, way.clusters, way.distance, stage="clusters")
    return PoolClusters(centroids_MD, np.array(cluster_M))


def _linked(centroids_MD: Centroids, size_M: Counts, count: int, distance: float | None) -> Counts:
    return linkage.average(np.array(centroids_MD), size_M, clusters=count, distance=distance)


@dataclass(frozen=True)
class Members:
    """Candidates with their cluster and the random number they drew."""

    cluster_n: Counts
    number_n: npt.NDArray[np.float64]
    ids_n: Ids
    score_n: npt.NDArray[np.float32]


def grouped(
    shard: Resident, scan: Scan, limit: Limit, centroids_MD: Centroids, cluster_M: Counts, stream: int
) -> Members:
    """Return the shard's candidates."""
    rows = limit.rows(shard, scan)
    cluster_n = cluster_M[clusters.labels(shard, scan, limit, centroids_MD).numpy()]
    return Members(
        cluster_n, seeds.uniform(stream, shard.hashes[rows]), as_ids(shard.ids[rows]), scores(shard, scan)[rows]
    )


def joined(parts: list[Members]) -> Members:
    """Merge candidates; their order is settled when they take turns."""
    return Members(
        np.concatenate([part.cluster_n for part in parts]),
        np.concatenate([part.number_n for part in parts]),
        np.concatenate([part.ids_n for part in parts]),
        np.concatenate([part.score_n for part in parts]),
    )


def in_turns(members: Members, budget: int) -> Counts:
    """Return the rows that the clusters give in turns, smallest group first (then by number), highest number first."""
    order = np.lexsort((members.ids_n.astype(str), -members.number_n))
    cluster_n = members.cluster_n[order]
    place_n, size_n = turns.places(cluster_n), np.bincount(cluster_n)[cluster_n]
    taken: Counts = order[np.lexsort((cluster_n, size_n, place_n))[:budget]]
    return taken
