"""The two-round approximation of a choice in sequence: blocks of shards first, then their picks.

Each shard makes the whole budget's picks from its own rows, its block of shards from theirs, and the root from the
blocks'. For greedy k-centre the covering radius is at most 4 times the optimum with one shard a block, and 2 more with
each level, where the exact algorithm has 2 (Malkomes et al., NeurIPS 2015). In D² sampling a pick stands for the rows
that it is the nearest to, and their number multiplies its chance further up. Blocks are cut by the shards, never by the
workers: another cut of the pool gives other picks, another number of workers does not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from alray import seeds
from alray.ops.kmeans import CHUNK
from alray.selection.diversity.candidates import Candidates
from alray.selection.diversity.coreset import blocks
from alray.selection.diversity.front import F64, Advance, Front, Picked, Rows, Rule, first_pick
from alray.selection.diversity.points import placed
from alray.selection.resident import Resident, Scan
from alray.selection.shortlisted import Limit
from alray.table import Ids

TOGETHER = 1024
"""Rows that are looked at together for the next picks."""

Start = Rows | None


@dataclass(frozen=True)
class Proposed:
    """Rows that may become picks, in the order of their ids, and how many rows each stands for."""

    ids_n: Ids
    rows_nG: Rows
    weight_n: F64

    @staticmethod
    def joined(parts: list[Proposed]) -> Proposed:
        """Return all rows, sorted by id, so that no trace of their order is left."""
        ids_n = np.concatenate([part.ids_n for part in parts])
        order = np.argsort(ids_n.astype(str), kind="stable")
        rows_nG = np.concatenate([part.rows_nG for part in parts])
        return Proposed(ids_n[order], rows_nG[order], np.concatenate([part.weight_n for part in parts])[order])


def choose(found: Candidates, rule: Rule, start_KG: Start) -> Picked:
    """Return the picks of the approximation."""
    groups = blocks(found.numbers)
    level = Level(rule, start_KG, found.budget)
    local = (found.scan, found.limit, level.at("shard"))
    parts = found.held.reduce_groups(propose, Proposed.joined, groups, *local, finish=level.at("block"))
    picked: Picked = found.runtime.call(choose_among, parts, level.at("root"), stage="picks of the blocks")
    return picked


def propose(shard: Resident, scan: Scan, limit: Limit, level: Level) -> Proposed:
    """Return the shard's own picks."""
    rows, rows_nG = placed(shard, scan, limit, level.rule.metric)
    return level(Proposed(shard.ids[rows], rows_nG.cpu().numpy(), np.ones(len(rows))))


def choose_among(parts: list[Proposed], level: Level) -> Picked:
    """Return the picks of all blocks' picks."""
    return level.picks(Proposed.joined(parts))


@dataclass(frozen=True)
class Level:
    """Make the whole budget's picks of some rows, and weigh them by the rows that they stand for."""

    rule: Rule
    start_KG: Start
    wanted: int

    def at(self, name: str) -> Level:
        """Return the level with random numbers of its own: a row with a low one in a shard would win again above."""
        if self.rule.stream is None:
            return self
        return replace(self, rule=replace(self.rule, stream=seeds.key(self.rule.stream, name)))

    def __call__(self, rows: Proposed) -> Proposed:
        if len(rows.ids_n) <= self.wanted:
            return rows
        picked = self.picks(rows)
        return Proposed(picked.ids_K, picked.rows_KG, self._weights(rows, picked))

    def picks(self, rows: Proposed) -> Picked:
        """Return the picks of the one-by-one algorithm over these rows alone."""
        start_KG, picked = self.start_KG, Picked.none(rows.rows_nG)
        if start_KG is None:
            picked = first_pick(self.rule, rows.ids_n, rows.rows_nG, seeds.hash_ids(rows.ids_n)).as_first()
            start_KG = picked.rows_KG
        front = self._front(rows, start_KG)
        while left := self.wanted - len(picked):
            new = Advance(self.rule, left)(front.nominate(rows.ids_n, TOGETHER))
            if not len(new):
                break
            front, picked = front.meet(new), picked.then(new)
        return picked

    def _front(self, rows: Proposed, start_KG: Start) -> Front:
        hashes_n, weight_n = seeds.hash_ids(rows.ids_n), torch.from_numpy(rows.weight_n)
        return Front.of(self.rule, torch.from_numpy(np.array(rows.rows_nG)), hashes_n, start_KG, weight_n)

    def _weights(self, rows: Proposed, picked: Picked) -> F64:
        """Return the weight of the rows that each pick is the nearest centre of; none are counted for the start's."""
        rows_nG, picks_KG = torch.from_numpy(np.array(rows.rows_nG)), torch.from_numpy(np.array(picked.rows_KG))
        before_n = self._front(rows, self.start_KG).squared_N
        total_K = torch.zeros(len(picks_KG), dtype=torch.float64)
        for at in range(0, len(rows_nG) if len(picks_KG) else 0, CHUNK):
            part = slice(at, at + CHUNK)
            nearest = self.rule.metric.squared(picks_KG, rows_nG[part]).min(dim=0)
            inside_n = nearest.values < before_n[part]
            total_K.index_add_(0, nearest.indices[inside_n], torch.from_numpy(rows.weight_n)[part][inside_n])
        return total_K.numpy()
