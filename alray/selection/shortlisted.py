"""Passes over the shards for the rows of the shortlist: counts, the best by score, their unit features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.ops import kmeans
from alray.selection.resident import Exclusion, Resident, Scan, scores
from alray.strategies.shortlist import Counts, Shortlist
from alray.table import Ids, as_ids

Ranked = tuple[npt.NDArray[np.floating[Any]], Ids]
"""Scores and ids, best first."""


class Limit:
    """The rows of a shortlist: score > `above`, and not behind `last` = (score, id) in rank order."""

    def __init__(self, above: float, last: tuple[float, str] | None = None) -> None:
        self.above, self.last = above, last

    def rows(self, shard: Resident, scan: Scan) -> npt.NDArray[np.int64]:
        """Return the row numbers, ascending."""
        scores_N = scores(shard, scan)
        inside_N = scores_N.astype(np.float64) > self.above
        if self.last is not None:
            score, last_id = self.last
            inside_N &= scores_N >= np.float32(score)
            for row in np.flatnonzero(inside_N & (scores_N == np.float32(score))):
                inside_N[row] = shard.ids[row] <= last_id
        return np.flatnonzero(inside_N)


def statistic(shard: Resident, scan: Scan, rule: Shortlist) -> Counts:
    """Return (rows that may be picked, the rule's statistic of their scores) as one array of counts."""
    scores_N = scores(shard, scan)
    scores_N = scores_N[~np.isnan(scores_N)]
    return np.concatenate([[len(scores_N)], rule.statistic(scores_N)])


def add(parts: list[Counts]) -> Counts:
    """Merge counts."""
    total: Counts = np.sum(parts, axis=0)
    return total


def best(shard: Resident, scan: Scan, count: int, above: float) -> Ranked:
    """Return the shard's best `count` rows with a score above `above`."""
    scores_N = scores(shard, scan)
    open_N = scores_N.astype(np.float64) > above if above > -np.inf else ~np.isnan(scores_N)
    rows = np.flatnonzero(open_N)
    return ranked(scores_N[rows], shard.ids[rows], count)


def ranked(scores_N: npt.NDArray[np.float32], ids: Ids, count: int) -> Ranked:
    """Return the best `count` by (score descending, id): the total order of all picks."""
    if len(scores_N) > count > 0:
        least = np.partition(scores_N, len(scores_N) - count)[len(scores_N) - count]
        keep = scores_N >= least  # ties at the cut stay in until ids decide
        scores_N, ids = scores_N[keep], ids[keep]
    order = np.lexsort((ids.astype(str), -scores_N))[:count]
    return scores_N[order], ids[order]


class MergeRanked:
    """Merge shards' best rows into the best `count`."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, parts: list[Ranked]) -> Ranked:
        return ranked(np.concatenate([s for s, _ in parts]), np.concatenate([i for _, i in parts]), self.count)


def drawn(
    shard: Resident, scan: Scan, limit: Limit | None, count: int, stream: int, taken: Exclusion
) -> tuple[Ranked, dict[str, float]]:
    """Return `count` rows drawn at random among those not `taken`: (their random numbers, ids), and their scores.

    From within `limit`; without one, from all that may be picked.
    """
    scores_N = scores(shard, scan)
    open_N = ~np.isnan(scores_N) & ~taken.mask(shard)
    free = np.flatnonzero(open_N) if limit is None else limit.rows(shard, scan)
    free = free[open_N[free]]
    numbers = seeds.uniform(stream, shard.hashes[free])
    order = np.argsort(-numbers, kind="stable")[:count]
    ids = shard.ids[free[order]]
    return (numbers[order], ids), {str(i): float(scores_N[r]) for i, r in zip(ids, free[order], strict=True)}


class MergeDrawn:
    """Merge random draws: the highest `count` numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, parts: list[tuple[Ranked, dict[str, float]]]) -> tuple[Ranked, dict[str, float]]:
        numbers = np.concatenate([part[0][0] for part in parts])
        ids = np.concatenate([part[0][1] for part in parts])
        known = {i: score for part in parts for i, score in part[1].items()}
        order = np.lexsort((ids.astype(str), -numbers))[: self.count]
        return (numbers[order], ids[order]), {i: known[i] for i in ids[order]}


def unit_rows(shard: Resident, scan: Scan, limit: Limit) -> tuple[npt.NDArray[np.int64], Tensor]:
    """Return the shortlist's row numbers and their unit fp16 points [n, H]: what diversity is measured on."""
    return shard.remember(scan.token, ("units", limit.above, limit.last), lambda: _unit_rows(shard, scan, limit))


def _unit_rows(shard: Resident, scan: Scan, limit: Limit) -> tuple[npt.NDArray[np.int64], Tensor]:
    rows = limit.rows(shard, scan)
    parts, at = [], 0
    for chunk, features_ND in shard.chunks():
        inside = rows[at : at + np.searchsorted(rows[at:], chunk.stop)]
        at += len(inside)
        if len(inside):
            parts.append(kmeans.unit_rows(scan.points(features_ND))[torch.from_numpy(inside - chunk.start)].cpu())
    size = scan.points_dim(shard.spec.dim)
    return rows, torch.cat(parts) if parts else torch.zeros(0, size, dtype=torch.float16)


def names(shard: Resident, rows: npt.NDArray[np.int64]) -> Ids:
    """Return the ids of the given rows."""
    return as_ids(shard.ids[rows])
