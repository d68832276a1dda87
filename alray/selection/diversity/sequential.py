"""Greedy k-centre and D² sampling over shards that stay where they are: the picks of one machine, in few rounds.

A round is one reduce: each shard sends its rows of highest merit, the root makes all picks that they decide
(`front.py` says why there are many), and the next call takes the new centres to the shards, in one GEMM.
Distances are the same bits wherever they are computed (`alray.ops.distances`), so no number of workers, no cut of the
pool and no number of rows sent changes a pick. A call carries all centres so far: a worker in a lost one's place
starts from nothing and is where the others are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from alray.ops.distances import metric
from alray.selection.diversity import two_round
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.front import Advance, Front, MergeNominees, Nominees, Picked, Rows, Rule, first_pick
from alray.selection.diversity.points import placed, placed_rows
from alray.selection.resident import Resident, Scan
from alray.selection.shortlisted import Limit
from alray.strategies.diversity import DSquared, KCentre

MOST = 1024
"""Rows at the root at most: more would decide more picks at once, and cost more to send."""

FEW = 64
"""Rows that a shard may always send, however many shards there are."""

SHARE = 4
"""Times its even share that a shard may send: rows of high merit need not be spread evenly."""


@dataclass(frozen=True)
class Centres:
    """What rows are far from: the rows that were there at the start [K, G], and the picks since."""

    start_KG: Rows
    picked: Picked

    def then(self, more: Picked) -> Centres:
        """Return these centres and more picks."""
        return replace(self, picked=self.picked.then(more))


def k_centre(found: Candidates) -> Chosen:
    """Return the picks of greedy k-centre; fewer than the budget when all rows left are equal to a centre."""
    way = found.diversity
    assert isinstance(way, KCentre)
    rule = Rule(metric(way.metric, len(found.given.classes)), first_stream=found.stream("first centre"))
    picked = _choose(found, rule, way)
    return picked.ids_K, np.array([rule.metric.length(s) for s in picked.squared_K], dtype=np.float32)


def d_squared(found: Candidates) -> Chosen:
    """Return the picks of D² sampling; fewer than the budget when all rows left are equal to a centre."""
    way = found.diversity
    assert isinstance(way, DSquared)
    streams = {"stream": found.stream("race"), "first_stream": found.stream("first centre")}
    rule = Rule(metric(way.metric, len(found.given.classes)), first=way.first, **streams)
    picked = _choose(found, rule, way)
    return picked.ids_K, np.arange(found.budget, found.budget - len(picked), -1, dtype=np.float32)


def _choose(found: Candidates, rule: Rule, way: KCentre | DSquared) -> Picked:
    known = found.bought(before=way.from_labelled)
    start_KG = None if known is None else placed_rows(found.scan, known, rule.metric).cpu().numpy()
    if way.rounds == "two_round":
        found.report["sequence"] = "two-round approximation"
        return two_round.choose(found, rule, start_KG)
    return exact(found, rule, start_KG)


def exact(found: Candidates, rule: Rule, start_KG: Rows | None) -> Picked:
    """Return the picks of the one-by-one algorithm. Notes the reduces, and how far rows are from the centres."""
    reduce = found.held.reduce
    first: Picked | None = None
    if start_KG is None:
        first = reduce(first_nominee, MergeNominees(1), found.scan, found.limit, rule, finish=Nominees.as_first)
        start_KG = first.rows_KG
    centres = Centres(start_KG, Picked.none(start_KG))
    wanted, reduces = found.budget - len(first or ()), 1 if first else 0
    while len(centres.picked) < wanted:
        left = wanted - len(centres.picked)
        most = max(min(MOST, SHARE * left), FEW)
        sent = min(most, max(FEW, math.ceil(SHARE * most / found.held.count)))
        arguments = (found.scan, found.limit, rule, centres, sent)
        new = reduce(nominees, MergeNominees(most), *arguments, finish=Advance(rule, left))
        reduces += 1
        if not len(new):
            break
        centres = centres.then(new)
    radius, potential = reduce(coverage, widest, found.scan, found.limit, rule, centres)
    seen = {"reduces": reduces + 1, "radius": rule.metric.length(radius), "potential": potential}
    found.report.update(sequence="exact", **seen)
    return first.then(centres.picked) if first else centres.picked


# passes over the shards


def first_nominee(shard: Resident, scan: Scan, limit: Limit, rule: Rule) -> Nominees:
    """Return the shard's row to start with when there is no centre."""
    rows, rows_NG = placed(shard, scan, limit, rule.metric)
    return first_pick(rule, shard.ids[rows], rows_NG.cpu().numpy(), shard.hashes[rows])


def nominees(shard: Resident, scan: Scan, limit: Limit, rule: Rule, centres: Centres, count: int) -> Nominees:
    """Return the shard's `count` rows of highest merit."""
    rows, _ = placed(shard, scan, limit, rule.metric)
    return front(shard, scan, limit, rule, centres).nominate(shard.ids[rows], count)


def coverage(shard: Resident, scan: Scan, limit: Limit, rule: Rule, centres: Centres) -> tuple[float, float]:
    """Return the largest squared distance of the shard's candidates to their nearest centre, and the sum of all."""
    squared_N = front(shard, scan, limit, rule, centres).squared_N
    return (float(squared_N.max()), float(squared_N.sum())) if len(squared_N) else (0.0, 0.0)


def widest(parts: list[tuple[float, float]]) -> tuple[float, float]:
    """Merge coverages."""
    return max(part[0] for part in parts), math.fsum(part[1] for part in parts)


def front(shard: Resident, scan: Scan, limit: Limit, rule: Rule, centres: Centres) -> Front:
    """Return the shard's rows as they stand towards these centres: from the last call's on, or from the first."""

    def begin() -> Front:
        rows, rows_NG = placed(shard, scan, limit, rule.metric)
        return Front.of(rule, rows_NG, shard.hashes[rows], centres.start_KG)

    last: list[Front] = shard.remember(scan.token, ("front", limit.above, limit.last, rule), lambda: [begin()])
    if last[0].met > len(centres.picked):  # a call that was sent again comes after its successor
        last[0] = begin()
    last[0] = last[0].meet(centres.picked.after(last[0].met))
    return last[0]
