"""What a strategy offers of the rows that a scan leaves open: its choice, the best of its shortlist, rows at random."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from alray.runtime import Held, Runtime
from alray.selection import at_random, shortlisted
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.diversify import diversify
from alray.selection.picks import Reason
from alray.selection.resident import Resident, Scan, scores
from alray.selection.shortlisted import Limit
from alray.strategies import Given
from alray.strategies.diversity import Nothing
from alray.strategies.shortlist import Cut
from alray.table import Ids, Table, as_ids

log = logging.getLogger(__name__)

NONE = as_ids([])
Row = tuple[str, float, Reason]
"""Id, score and reason of a pick."""


@dataclass(frozen=True)
class Before:
    """What a pass under rules follows: `number` passes, in which some rows were `taken`; so many are `missing` yet."""

    number: int
    taken: Collection[str]
    missing: int


@contextmanager
def timed(report: dict[str, Any], stage: str) -> Iterator[None]:
    """Add the seconds inside to those of the stage in the report."""
    start, seconds = time.perf_counter(), report.setdefault("seconds", {})
    yield
    seconds[stage] = round(seconds.get(stage, 0.0) + time.perf_counter() - start, 3)


@dataclass(frozen=True)
class Offers:
    """Offers of one selection; what the first one met goes into `report`, and the seconds of all of them.

    `numbers` are the held shards' own, `dim` the size of a row's features, `regime` what `selection.regime` says.
    """

    held: Held
    runtime: Runtime
    numbers: Sequence[int]
    dim: int
    regime: str
    given: Given
    report: dict[str, Any]
    kept: dict[Any, Any]  # by ways of selection, from round to round
    rows: Callable[[Collection[str]], Table]  # of the pool, by id

    def choose(self, scan: Scan, count: int, before: Before | None = None) -> Chosen:
        """Return at most `count` rows as the strategy chooses them: its shortlist, diverse where that is longer.

        Under rules more are asked for than are missing. A shortlist of no more than that is chosen from all the same,
        down to its last row: its order says which are taken. Where all of it is missing, the order is a draw.
        """
        cut = self._cut(scan, count)
        if cut.best is not None:
            return self._ranked(scan, cut.best, cut.above)
        limit, candidates = self._limit(scan, cut)
        self._note(cap=cut.cap, candidates=cut.count, candidates_per_pick=cut.count / count, shortlist=candidates)
        log.info("%s: %d candidates for %d picks (cap %s)", scan.strategy.name, candidates, count, cut.cap)
        missing = count if before is None else before.missing
        if isinstance(scan.strategy.diversity, Nothing) or (candidates <= missing and before is None):
            return self._ranked(scan, min(candidates, count), cut.above)
        if candidates <= missing:
            return self._drawn(scan, limit, candidates)
        with timed(self.report, "diversify"):
            return self._diversify(scan, limit, candidates, min(count, candidates - 1), before)

    def best(self, scan: Scan, count: int) -> Chosen:
        """Return the best `count` rows of the strategy's shortlist by (score, id), best first."""
        cut = self._cut(scan, count)
        there = next(size for size in (cut.best, cut.most, cut.count) if size is not None)
        return self._ranked(scan, min(there, count), cut.above)

    def fill(self, scan: Scan, count: int, taken: Ids = NONE) -> Chosen:
        """Return `count` rows drawn at random among those not `taken`, the highest number first."""
        with timed(self.report, "fill"):
            return at_random.fill(self.held, scan, count, self.given.seed, self.given.round, taken)

    def flat(self, scan: Scan) -> bool:
        """Whether all rows that may be picked have the same score, which then says nothing of any of them."""
        with timed(self.report, "score"):
            low, high = self.held.reduce(extent, widest, scan)
        return bool(low >= high)

    def _cut(self, scan: Scan, count: int) -> Cut:
        """Return the shortlist for `count` rows."""
        rule = scan.strategy.shortlist(count)
        with timed(self.report, "score"):
            total = self.held.reduce(shortlisted.statistic, shortlisted.add, scan, rule)
        cut = rule.decide(total[1:])
        self._note(available=int(total[0]), cap=cut.cap)
        return cut

    def _limit(self, scan: Scan, cut: Cut) -> tuple[Limit, int]:
        """Return the shortlist's limit, and how many rows are within it."""
        if cut.most is None:
            return Limit(cut.above), cut.count
        ids, scores = self._ranked(scan, cut.most, cut.above)
        return Limit(cut.above, (float(scores[-1]), str(ids[-1]))), cut.most

    def _ranked(self, scan: Scan, count: int, above: float) -> Chosen:
        if count == 0:
            return NONE, np.zeros(0, dtype=np.float32)
        with timed(self.report, "shortlist"):
            merge = shortlisted.MergeRanked(count)
            scores, ids = self.held.reduce(shortlisted.best, merge, scan, count, above)
        return ids, scores

    def _drawn(self, scan: Scan, limit: Limit, count: int) -> Chosen:
        if count == 0:
            return NONE, np.zeros(0, dtype=np.float32)
        with timed(self.report, "shortlist"):
            return at_random.draw(self.held, scan, limit, count, self.given.seed, self.given.round, "order")

    def _diversify(self, scan: Scan, limit: Limit, candidates: int, count: int, before: Before | None) -> Chosen:
        noted: dict[str, Any] = {}
        found = Candidates(
            held=self.held,
            runtime=self.runtime,
            numbers=self.numbers,
            dim=self.dim,
            scan=scan,
            limit=limit,
            count=candidates,
            given=replace(self.given, budget=count),
            diversity=scan.strategy.diversity,
            regime=self.regime,
            report=noted,
            kept=self.kept,
            taken=self.rows(before.taken) if before is not None and before.taken else None,
            number=0 if before is None else before.number,
        )
        chosen = diversify(found)
        self._note(**{"diversity": scan.strategy.diversity.name, "space": scan.space} | noted)
        return chosen

    def _note(self, **facts: Any) -> None:
        """Keep what the first offer met: what comes after it is for the few rows that were refused."""
        for name, fact in facts.items():
            self.report.setdefault(name, fact)


Extent = tuple[float, float]
"""The lowest and the highest score."""


def extent(shard: Resident, scan: Scan) -> Extent:
    """Return the extent of the scores of the shard's rows that may be picked; (∞, −∞) where there is none."""
    scores_N = scores(shard, scan)
    scores_N = scores_N[~np.isnan(scores_N)]
    return (float(scores_N.min()), float(scores_N.max())) if len(scores_N) else (np.inf, -np.inf)


def widest(parts: list[Extent]) -> Extent:
    """Merge extents."""
    return min(part[0] for part in parts), max(part[1] for part in parts)
