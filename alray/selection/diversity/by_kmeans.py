"""Thin a shortlist out by k-means: the real row nearest to each of B centroids, in one of two regimes."""

from __future__ import annotations

import logging

from torch import Tensor

from alray.selection.diversity import central, coreset
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.clusters import medoids

log = logging.getLogger(__name__)

CENTRAL_BYTES = 256 * 2**20
"""Unit fp16 rows that one worker may gather: fp32 copies of them make three times as much."""

CENTRAL_WORK = 2e10
"""M·B·D of one central Lloyd step; a hundred of them take about a minute on one core."""

FEW_SHARDS = 4
"""Below this many shards the coreset regime has too few blocks to share its work."""


def by_kmeans(found: Candidates) -> Chosen:
    """Return `budget` rows: the medoids of k-means over the candidates' unit rows (decision 23)."""
    centroids_KD = centroids(found, found.budget)
    ids, scores, inertia = medoids(found.held, found.scan, found.limit, centroids_KD, found.budget)
    found.report["inertia"] = inertia
    return ids, scores


def centroids(found: Candidates, clusters: int) -> Tensor:
    """Return the centroids of k-means over the candidates' unit rows, fp32 [K, H]; the regime goes into the report."""
    found.report["regime"] = chosen = regime(found, clusters)
    held, scan, limit = found.held, found.scan, found.limit
    keyed = {"clusters": clusters, "seed": found.given.seed, "round": found.given.round}
    if chosen == "central":
        return central.centroids(held, scan, limit, **keyed)
    return coreset.centroids(held, found.runtime, found.numbers, scan, limit, **keyed)


def regime(found: Candidates, clusters: int) -> str:
    """Return the regime for so many candidates: by their bytes, and by the work of one k-means step.

    With few shards a block's share of the centres is so large that the coreset would be the slower one.
    """
    if found.regime != "auto":
        if found.regime == "coreset" and len(found.numbers) < FEW_SHARDS and not found.number:
            log.warning(
                "`selection.regime` is coreset and the pool has %d shards; below %d the central regime is several "
                "times as fast. Leave the setting out, or give the pool as more shards",
                len(found.numbers),
                FEW_SHARDS,
            )
        return found.regime
    size = found.points_dim
    fits = found.count * size * 2 <= CENTRAL_BYTES
    light = found.count * clusters * size <= CENTRAL_WORK
    return "central" if fits and (light or len(found.numbers) < FEW_SHARDS) else "coreset"
