"""ActiveFT over shards: centroids fitted to a sample on one worker, and the real row most similar to each.

Each shard names a few rows a centroid, the most similar first. The root lets the centroids take theirs in order; when
one finds all of its rows taken, the shards are asked again for those that have none, each time for more rows.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from alray.ops import active_ft, kmeans
from alray.ops.active_ft import Recipe
from alray.selection import at_random
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.clusters import Centroids, MergeNearest, Nearest
from alray.selection.resident import Exclusion, Resident, Scan, scores
from alray.selection.shortlisted import Limit, unit_rows
from alray.strategies.diversity import Finetuned
from alray.table import Ids, as_ids

FIRST, MORE = 4, 8
"""Rows a centroid that a shard names at first, and by how many times more each time it is asked again."""


def finetuned(found: Candidates) -> Chosen:
    """Return `budget` candidates: the rows most similar to the centroids, each with its similarity."""
    way = found.diversity
    assert isinstance(way, Finetuned)
    scan = dataclasses.replace(found.scan, space="features")
    found.report["space"] = "features"
    count = max(way.most, found.budget)
    stream = found.stream("active-ft")
    drawn: at_random.Sampled = found.held.reduce(
        at_random.sampled, at_random.MergeSampled(count), scan.excluded, count, stream
    )
    found.report["sample"] = len(drawn.ids)
    known = found.bought()
    fixed_LD = np.zeros((0, found.dim), dtype=np.float32) if known is None else known["features"].numpy()
    recipe = Recipe(way.temperature, way.balance, way.learning_rate, way.iterations)
    arguments = (drawn.features_ND, fixed_LD, found.budget, recipe)
    centroids_KD: Centroids = found.runtime.call(fit, *arguments, stage="centroids")
    return matched(dataclasses.replace(found, scan=scan), np.array(centroids_KD))


def fit(
    sample_SD: npt.NDArray[np.float16], labelled_LD: npt.NDArray[np.float32], count: int, recipe: Recipe
) -> Centroids:
    """Return `count` centroids for the sampled rows, which come in random order; labelled rows are fixed ones."""
    units_SD = kmeans.unit_rows(torch.from_numpy(np.array(sample_SD)))
    fixed_LD = kmeans.unit_rows(torch.from_numpy(np.array(labelled_LD)))
    return active_ft.optimised(units_SD, units_SD[:count], fixed_LD, recipe).numpy()


def matched(found: Candidates, centroids_KD: Centroids) -> Chosen:
    """Return the row that each centroid takes, in their order, and its similarity: the most similar not yet taken."""
    taken: dict[str, float] = {}
    most = FIRST
    while len(taken) < len(centroids_KD):
        left_KD = centroids_KD[len(taken) :]
        most = min(most, len(left_KD))  # each of those before it takes one row at most
        shared = (found.scan, found.limit, left_KD, Exclusion(frozenset(taken)), most)
        near: Nearest = found.held.reduce(similar, MergeNearest(most), *shared)
        before = len(taken)
        taken |= settle(near, len(left_KD))
        if len(taken) == before:
            break
        most *= MORE
    return as_ids(list(taken)), np.array(list(taken.values()), dtype=np.float32)


def settle(near: Nearest, centroids: int) -> dict[str, float]:
    """Return what the centroids take in order, with similarities, up to the first that finds all of its rows taken."""
    first_K = np.searchsorted(near.label_n, np.arange(centroids + 1))
    out: dict[str, float] = {}
    for k in range(centroids):
        own = range(int(first_K[k]), int(first_K[k + 1]))
        at = next((i for i in own if near.ids_n[i] not in out), None)
        if at is None:
            break
        out[str(near.ids_n[at])] = -float(near.squared_n[at])
    return out


def similar(shard: Resident, scan: Scan, limit: Limit, centroids_KD: Centroids, taken: Exclusion, most: int) -> Nearest:
    """Return each centroid's `most` most similar candidates of the shard that are not `taken`.

    In place of a distance stands minus the similarity, by which nearest is most similar.
    """
    rows, units_ND = unit_rows(shard, scan, limit)
    free = np.flatnonzero(~taken.mask(shard)[rows])
    rows, units_ND = rows[free], units_ND[torch.from_numpy(free)]
    centroids = torch.from_numpy(np.array(centroids_KD))
    labels, values, picked = [], [], []
    for start in range(0, len(rows), kmeans.CHUNK):
        chunk = slice(start, start + kmeans.CHUNK)
        rank_N = torch.from_numpy(ranks(as_ids(shard.ids[rows[chunk]])))
        rows_Km, similarity_Km = active_ft.most_similar(units_ND[chunk], centroids, rank_N, most)
        labels.append(np.repeat(np.arange(len(centroids)), rows_Km.shape[1]))
        values.append(-similarity_Km.double().numpy().ravel())
        picked.append(rows[start + rows_Km.numpy().ravel()])
    at = np.concatenate([*picked, np.zeros(0, dtype=np.int64)])
    none = np.zeros(len(centroids), dtype=np.int64)
    label_n, value_n = np.concatenate([*labels, none[:0]]), np.concatenate([*values, np.zeros(0)])
    return Nearest(label_n, value_n, as_ids(shard.ids[at]), scores(shard, scan)[at], none, 0.0).keep(most)


def ranks(ids: Ids) -> npt.NDArray[np.int64]:
    """Return each id's place in their order, [n]."""
    place = np.empty(len(ids), dtype=np.int64)
    place[np.argsort(ids.astype(str), kind="stable")] = np.arange(len(ids))
    return place
