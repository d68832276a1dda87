"""What diversity is measured on, of the rows of a shortlist and of labelled rows alike."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.ops.distances import Metric, compact
from alray.selection.resident import Resident, Scan, columns
from alray.selection.shortlisted import Limit
from alray.table import Ids, Table


def points(scan: Scan, ids: Ids, features_ND: Tensor, hashes_N: seeds.Hashes) -> Tensor:
    """Return what the strategy measures rows on, fp32 [N, P]; if it does not say, what `selection.space` says."""
    table = Table(ids, columns(scan, features_ND, hashes_N))
    said_NP = scan.strategy.points(table, scan.prepared)
    return scan.points(features_ND) if said_NP is None else said_NP


def placed(shard: Resident, scan: Scan, limit: Limit, metric: Metric) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Return the shortlist's row numbers, ascending, and their points on the metric's grid, [n, G], on its device."""
    key = ("placed", limit.above, limit.last, metric)
    return shard.remember(scan.token, key, lambda: _placed(shard, scan, limit, metric))


def _placed(shard: Resident, scan: Scan, limit: Limit, metric: Metric) -> tuple[npt.NDArray[np.int64], Tensor]:
    rows = limit.rows(shard, scan)
    parts, at = [], 0
    for chunk, features_ND in shard.chunks():
        inside = rows[at : at + np.searchsorted(rows[at:], chunk.stop)]
        at += len(inside)
        points_NP = points(scan, shard.ids[chunk], features_ND, shard.hashes[chunk])
        # A chunk without candidates still says how wide points are.
        own_NP = points_NP[torch.from_numpy(inside - chunk.start).to(points_NP.device)]
        parts.append(compact(metric.place(own_NP)))
    return rows, torch.cat(parts)  # in fp16 if every part is


def placed_rows(scan: Scan, known: Table, metric: Metric) -> Tensor:
    """Return the points of rows with features, such as the labelled ones, on the metric's grid, [M, G]."""
    said_MP = points(scan, known.ids, known["features"], seeds.hash_ids(known.ids))
    return compact(metric.place(said_MP))
