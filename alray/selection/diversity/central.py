"""The central regime: gather the shortlist's unit rows on one worker and run k-means there: the reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alray import seeds
from alray.ops import kmeans
from alray.runtime import Held
from alray.selection.resident import Resident, Scan
from alray.selection.shortlisted import Limit, names, unit_rows
from alray.table import Ids

ITERATIONS = 100
Gathered = tuple[Ids, Tensor]


def gather(shard: Resident, scan: Scan, limit: Limit) -> Gathered:
    """Return the ids and unit rows of a shard's part of the shortlist."""
    rows, units_ND = unit_rows(shard, scan, limit)
    return names(shard, rows), units_ND


def join(parts: list[Gathered]) -> Gathered:
    """Put parts together in the order of their ids, so that no trace of the shards is left."""
    ids = np.concatenate([part[0] for part in parts])
    order = np.argsort(ids, kind="stable")
    return ids[order], torch.cat([part[1] for part in parts])[torch.from_numpy(order)]


@dataclass(frozen=True)
class Solve:
    """k-means++ seeds and at most 100 Lloyd steps over the gathered rows."""

    clusters: int
    seed: int
    round: int

    def __call__(self, gathered: Gathered) -> Tensor:
        _, rows_ND = join([gathered])
        generator = seeds.generator(self.seed, "central", self.round)
        start_KD = kmeans.plus_plus(rows_ND, torch.ones(len(rows_ND)), self.clusters, generator)
        return kmeans.lloyd(rows_ND, start_KD, iterations=ITERATIONS)[0]


def centroids(held: Held, scan: Scan, limit: Limit, *, clusters: int, seed: int, round: int) -> Tensor:
    """Return `clusters` centroids of the shortlist, fp32 [K, H]."""
    found: Tensor = held.reduce(gather, join, scan, limit, finish=Solve(clusters, seed, round))
    return torch.as_tensor(found)
