"""Thin a shortlist out by one more number a row: those for which the strategy's points say the most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.resident import Resident, Scan, columns, scores
from alray.selection.shortlisted import Limit
from alray.table import Ids, Table, as_ids


@dataclass(frozen=True)
class Pointed:
    """Rows with their points and their scores."""

    points_n: npt.NDArray[np.float32]
    ids_n: Ids
    scores_n: npt.NDArray[np.float32]

    def highest(self, count: int) -> Pointed:
        """Return the `count` rows with the highest points, ties by id."""
        order = np.lexsort((self.ids_n.astype(str), -self.points_n))[:count]
        return Pointed(self.points_n[order], as_ids(self.ids_n[order]), self.scores_n[order])


def by_points(found: Candidates) -> Chosen:
    """Return the `budget` candidates with the highest points, and their scores."""
    best: Pointed = found.held.reduce(pointed, MergePointed(found.budget), found.scan, found.limit, found.budget)
    return best.ids_n, best.scores_n


def pointed(shard: Resident, scan: Scan, limit: Limit, count: int) -> Pointed:
    """Return the shard's candidates with the highest points."""
    rows, parts, at = limit.rows(shard, scan), [np.zeros(0, dtype=np.float32)], 0
    for chunk, features_ND in shard.chunks():
        inside = rows[at : at + np.searchsorted(rows[at:], chunk.stop)]
        at += len(inside)
        if len(inside):
            own = features_ND[torch.from_numpy(inside - chunk.start).to(features_ND.device)]
            table = Table(shard.ids[inside], columns(scan, own, shard.hashes[inside]))
            points_n1 = scan.strategy.points(table, scan.prepared)
            assert points_n1 is not None, f"`{scan.strategy.name}` has no points"
            parts.append(points_n1[:, 0].float().cpu().numpy())
    return Pointed(np.concatenate(parts), shard.ids[rows], scores(shard, scan)[rows]).highest(count)


class MergePointed:
    """Merge the highest of several shards."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, parts: list[Pointed]) -> Pointed:
        points = np.concatenate([part.points_n for part in parts])
        ids = np.concatenate([part.ids_n for part in parts])
        return Pointed(points, ids, np.concatenate([part.scores_n for part in parts])).highest(self.count)
