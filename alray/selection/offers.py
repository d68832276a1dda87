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
from alray.selection.resident import Scan
from alray.selection.shortlisted import Limit
from alray.strategies import Given
from alray.strategies.diversity import Nothing
from alray.strategies.shortlist import Cut
from alray.table import Ids, Table, as_ids

log = logging.getLogger(__name__)

NONE = as_ids([])
Row = tuple[str, float, Reason]
"""Id, score and reason of a pick."""


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

    def choose(self, scan: Scan, count: int, taken: Collection[str] = ()) -> Chosen:
        """Return at most `count` rows as the strategy chooses them: its shortlist, diverse where that is longer.

        Ways that keep picks apart from labelled rows keep them apart from rows `taken` before, too.
        """
        cut = self._cut(scan, count)
        if cut.best is not None:
            return self._ranked(scan, cut.best, cut.above)
        limit, candidates = self._limit(scan, cut)
        self._note(cap=cut.cap, candidates=cut.count, candidates_per_pick=cut.count / count, shortlist=candidates)
        log.info("%s: %d candidates for %d picks (cap %s)", scan.strategy.name, candidates, count, cut.cap)
        if candidates <= count or isinstance(scan.strategy.diversity, Nothing):
            return self._ranked(scan, min(candidates, count), cut.above)
        with timed(self.report, "diversify"):
            return self._diversify(scan, limit, candidates, self._beside(taken, count))

    def best(self, scan: Scan, count: int) -> Chosen:
        """Return the best `count` rows of the strategy's shortlist by (score, id), best first."""
        cut = self._cut(scan, count)
        there = next(size for size in (cut.best, cut.most, cut.count) if size is not None)
        return self._ranked(scan, min(there, count), cut.above)

    def fill(self, scan: Scan, count: int, taken: Ids = NONE) -> Chosen:
        """Return `count` rows drawn at random among those not `taken`, the highest number first."""
        with timed(self.report, "fill"):
            return at_random.fill(self.held, scan, count, self.given.seed, self.given.round, taken)

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

    def _beside(self, taken: Collection[str], count: int) -> Given:
        """Return what a way may look at: `count` is its budget, rows `taken` before stand with the labelled ones."""
        given = replace(self.given, budget=count)
        if not taken:
            return given
        rows = self.rows(taken)
        if given.head is not None:
            rows = rows.with_columns(hidden=given.head.hidden(rows["features"]))
        known = [] if given.labelled is None else [given.labelled.only(*rows.columns)]
        return replace(given, labelled=Table.concat([*known, rows]), label_M=None)

    def _diversify(self, scan: Scan, limit: Limit, candidates: int, given: Given) -> Chosen:
        noted: dict[str, Any] = {}
        found = Candidates(
            held=self.held,
            runtime=self.runtime,
            numbers=self.numbers,
            dim=self.dim,
            scan=scan,
            limit=limit,
            count=candidates,
            given=given,
            diversity=scan.strategy.diversity,
            regime=self.regime,
            report=noted,
            kept=self.kept,
        )
        chosen = diversify(found)
        self._note(**{"diversity": scan.strategy.diversity.name, "space": scan.space} | noted)
        return chosen

    def _note(self, **facts: Any) -> None:
        """Keep what the first offer met: what comes after it is for the few rows that were refused."""
        for name, fact in facts.items():
            self.report.setdefault(name, fact)
