"""What a strategy offers of the rows that a scan leaves open: its choice, the best of its shortlist, rows at random."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

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


class Extent(NamedTuple):
    """How many rows may be picked, how many of them score above a limit, these scores' extent, and how many are top."""

    rows: int
    inside: int
    low: float
    high: float
    top: int

    @property
    def flat(self) -> bool:
        """Whether all rows have the same score, which then says nothing of any of them."""
        return self.low >= self.high and self.inside in (0, self.rows)


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
    extents: dict[float, Extent] = field(default_factory=dict)  # by limit

    def choose(self, scan: Scan, count: int, before: Before | None = None) -> Chosen:
        """Return at most `count` rows as the strategy chooses them: its shortlist, diverse where that is longer.

        Under rules more are asked for than are missing. A shortlist of no more than that is chosen from all the same,
        down to its last row: its order says which are taken. Where all of it is missing, the order is a draw.
        """
        cut = self._cut(scan, count)
        if cut.best is not None:
            return self._leading(scan, cut.best, cut.above)
        limit, candidates = self._limit(scan, cut)
        self._note(cap=cut.cap, candidates=cut.count, candidates_per_pick=cut.count / count, shortlist=candidates)
        log.info("%s: %d candidates for %d picks (cap %s)", scan.strategy.name, candidates, count, cut.cap)
        missing = count if before is None else before.missing
        if isinstance(scan.strategy.diversity, Nothing) or (candidates <= missing and before is None):
            return self._leading(scan, min(candidates, count), cut.above)
        if candidates <= missing:
            return self._drawn(scan, limit, candidates)
        with timed(self.report, "diversify"):
            return self._diversify(scan, limit, candidates, min(count, candidates - 1), before)

    def best(self, scan: Scan, count: int) -> Chosen:
        """Return the best `count` rows of the strategy's shortlist by (score, id), best first."""
        cut = self._cut(scan, count)
        there = next(size for size in (cut.best, cut.most, cut.count) if size is not None)
        return self._leading(scan, min(there, count), cut.above)

    def fill(self, scan: Scan, count: int, taken: Ids = NONE) -> Chosen:
        """Return `count` rows drawn at random among those not `taken`, the highest number first."""
        with timed(self.report, "fill"):
            return at_random.fill(self.held, scan, count, self.given.seed, self.given.round, taken)

    def extent(self, scan: Scan, above: float = -math.inf) -> Extent:
        """Return the extent of all scores above a limit, whatever is shut out by now; looked at once."""
        if above not in self.extents:
            with timed(self.report, "score"):
                self.extents[above] = self.held.reduce(extent, widest, scan.open, above)
            self._note(available=self.extents[above].rows)
        return self.extents[above]

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
        if self._tied(scan, scores, cut.above):
            self._say_tied(scan, cut.above, f"the shortlist of {cut.most} goes by id")
        return Limit(cut.above, (float(scores[-1]), str(ids[-1]))), cut.most

    def _leading(self, scan: Scan, count: int, above: float) -> Chosen:
        """Return the best `count` rows by (score, id); drawn at random where no row has another score than the rest."""
        ids, scores = self._ranked(scan, count, above)
        if not self._tied(scan, scores, above):
            return ids, scores
        if self.extents[above].low < scores[0]:  # ties go by id, as promised, where any score differs
            self._say_tied(scan, above, "picks go by id")
            return ids, scores
        self._say_tied(scan, above, "picks are drawn at random")
        return self._drawn(scan, Limit(above), count)

    def _tied(self, scan: Scan, scores: npt.NDArray[np.float32], above: float) -> bool:
        """Whether the best rows were chosen among more that have the same, highest score. Mostly the best ones tell."""
        if not len(scores) or scores[0] != scores[-1] or not math.isfinite(scores[0]):
            return False
        found = self.extent(scan, above)
        few = self.given.budget == 1 and found.low < found.high  # one pick of two copies is worth no word
        return found.high == scores[0] and found.top > self.given.budget and not few

    def _say_tied(self, scan: Scan, above: float, so: str) -> None:
        if "tied" not in self.report:
            found = self.extent(scan, above)
            self._note(tied=found.top)
            which = "all" if found.top == found.inside else f"the best {found.top} of"
            log.warning("%s: the scores of %s %d candidates are equal: %s", scan.strategy.name, which, found.inside, so)

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


def extent(shard: Resident, scan: Scan, above: float) -> Extent:
    """Return the extent of the scores of the shard's rows that may be picked; (∞, −∞) where none is above."""
    scores_N = scores(shard, scan)
    scores_N = scores_N[~np.isnan(scores_N)]
    inside = scores_N[scores_N.astype(np.float64) > above]
    low, high = (float(inside.min()), float(inside.max())) if len(inside) else (np.inf, -np.inf)
    return Extent(len(scores_N), len(inside), low, high, int((inside == high).sum()))


def widest(parts: list[Extent]) -> Extent:
    """Merge extents."""
    rows, inside, low, high, _ = zip(*parts, strict=True)
    top = sum(part.top for part in parts if part.high == max(high))
    return Extent(sum(rows), sum(inside), min(low), max(high), top)
