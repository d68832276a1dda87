"""Picks under rules: rows are taken in the order they are offered, but for those that a quota or a near row forbids.

Minimums come first, the rows of highest score that fill one; then the rest, under the maximums. Where the budget has
no row for each minimum, rows that fill several at once come before them. What a strategy offers is offered again
without the rows that were refused, and twice as many of them each time, so that a pool of copies takes a few passes and
not one a pick. For a strategy that takes the best scores this is exact: the picks are those of one walk down the
ranking of the whole pool. A diverse strategy chooses anew for what is missing, which is an approximation, and after a
few times the best scores of its shortlist follow, if they say anything. What no strategy offers is filled at random.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alray.ops.kmeans import unit_rows
from alray.selection import near_duplicates, quotas
from alray.selection.diversity.candidates import Chosen
from alray.selection.near_duplicates import Near, blocks
from alray.selection.offers import Before, Offers, Row, timed
from alray.selection.picks import Reason
from alray.selection.quotas import Counts, Shut, Standing
from alray.selection.resident import Exclusion, Resident, Scan
from alray.selection.settings import SelectionConfig
from alray.strategies.diversity import DSquared, Finetuned, KCentre, MostTypical, Nothing
from alray.table import Ids, as_ids

DIVERSE_PASSES = 4
"""Times that a diverse strategy chooses anew before the best scores of its shortlist are taken."""

COUNTED, IN_SEQUENCE = (DSquared, MostTypical), (DSquared, MostTypical, KCentre, Finetuned)
"""Ways whose scores count down the order of picking, and all whose ranks are that order."""

MOST = 65_536
"""Rows offered at once, unless more are missing: their unit rows stand in memory."""

Offer = Callable[[Scan, int], Chosen]


class Looked(NamedTuple):
    """What the rules look at: the rows' ids, their values a column, and unit rows, fp16 [n, D]."""

    ids: Ids
    values: list[tuple[str, ...]]
    units_nD: Tensor


def look_up(shard: Resident, scan: Scan, wanted: Exclusion, columns: tuple[str, ...], units: bool) -> Looked:
    """Return what the rules look at, of the wanted rows that the shard has; without `units`, these have no columns."""
    rows = np.flatnonzero(wanted.mask(shard))
    found = [quotas.values(shard, scan, column) for column in columns]
    values = [tuple(v.names[v.number_N[row]] for v in found) for row in rows]
    dim = shard.features_ND.shape[1] if units else 0
    features_nD = torch.from_numpy(shard.features_ND[rows, :dim].astype(np.float32))
    return Looked(as_ids(shard.ids[rows]), values, unit_rows(features_nD))


def join(parts: list[Looked]) -> Looked:
    """Merge what was looked up."""
    ids = np.concatenate([part.ids for part in parts])
    return Looked(ids, [v for part in parts for v in part.values], torch.cat([part.units_nD for part in parts]))


class UnderRules:
    """One selection under rules: what was taken, and what was refused because something near it is bought.

    `before` are the picks that its round has already, as far as quotas count them.
    """

    def __init__(self, offers: Offers, scan: Scan, config: SelectionConfig, before: Counts) -> None:
        self.offers, self.scan, self.config, self.budget = offers, scan, config, offers.given.budget
        self.before = before
        self.taken: list[Row] = []
        self.refused: set[str] = set()
        self.passes = 0
        self.diverse = not isinstance(scan.strategy.diversity, Nothing)
        extent = offers.extent(scan)  # before any gate closes: what could be picked without the rules
        self.flat = self.diverse and extent.flat
        self.competing = False
        with timed(offers.report, "rules"):
            self.standing: Standing = quotas.standing(offers.held, scan, config.quotas, before)
            self._check_minimums()
            self.near: Near | None = None
            if config.min_distance:
                self.near = near_duplicates.near(offers.held, config.min_distance, scan.excluded)

    def _check_minimums(self) -> None:
        """Raise StrategyError when minimums for every value of a column are more than a whole round's budget.

        Predicted classes grow in number with the labels: those that are too many compete, with a warning.
        """
        values = {column: names for column, names in self.standing.available.items() if column != quotas.PREDICTED}
        if not self.before:
            self.config.check(self.budget, values)

    def run(self, reason: Reason) -> list[Row]:
        """Return at most `budget` rows, marked with `reason` or as filled up."""
        for minimums in range(len(self.standing.short), -1, -1):
            if self.diverse:
                chosen = functools.partial(self._chosen, minimums)
                self._take(chosen, reason, minimums, DIVERSE_PASSES)
            if not self.flat:
                self._take(self.offers.best, reason, minimums)
            self._take(self._filled, "fill", minimums)
            if minimums == 1:
                self.competing = len(self.taken) == self.budget and self.standing.lacking > 0
        return self._in_sequence() if isinstance(self.scan.strategy.diversity, IN_SEQUENCE) else self.taken

    def _take(self, offer: Offer, reason: Reason, minimums: int, passes: int | None = None) -> None:
        """Take what is missing from what is offered, until nothing more is; each fills `minimums` at once, or more."""
        for number in itertools.count() if passes is None else range(passes):
            missing = self._missing(minimums)
            if not missing:
                return
            self.passes += 1
            ids, scores = offer(self._open(minimums), min(missing << number, max(missing, MOST)))
            if not len(ids):
                return
            with timed(self.offers.report, "rules"):
                for row in self._allowed(ids, minimums):
                    self.taken.append((ids[row], float(scores[row]), reason))

    def _chosen(self, minimums: int, scan: Scan, count: int) -> Chosen:
        """Return what the strategy chooses, best score first; rows of one score in the order in which it chose them."""
        before = Before(self.passes - 1, [row[0] for row in self.taken], self._missing(minimums))
        ids, scores = self.offers.choose(scan, count, before)
        order = np.argsort(-scores, kind="stable")
        return ids[order], scores[order]

    def _filled(self, scan: Scan, count: int) -> Chosen:
        """Return rows drawn at random: without a score where all rows have the same, which no pick was chosen by."""
        ids, scores = self.offers.fill(scan, count)
        return ids, np.full_like(scores, -np.inf) if self.flat else scores

    def _in_sequence(self) -> list[Row]:
        """Return the rows with scores that fall in the order of picking: each pass began to count anew."""
        counted = isinstance(self.scan.strategy.diversity, COUNTED)
        out, last = list[Row](), np.float32(np.inf)
        for number, (name, score, reason) in enumerate(self.taken):
            if reason != "fill":
                below = np.nextafter(last, np.float32(-np.inf)) if out else last
                last = np.float32(self.budget - number) if counted else min(np.float32(score), below)
                score = float(last)
            out.append((name, score, reason))
        return out

    def _missing(self, minimums: int) -> int:
        """Return how many rows are missing: of those that fill several minimums, what makes the budget last for all."""
        left, lacking = self.budget - len(self.taken), self.standing.lacking
        if minimums > 1:
            return min(left, max(0, math.ceil((lacking - left) / (minimums - 1))))
        return min(left, lacking) if minimums else left

    def _open(self, minimums: int) -> Scan:
        """Return the scan of the next pass: without the rows and values that no rule lets in any more."""
        gone = Exclusion(frozenset(self.refused.union(row[0] for row in self.taken)))
        needed = {c: frozenset(v) for c, v in self.standing.short.items()} if minimums else None
        return self.scan.behind(Shut(gone, self.standing.closed, needed, minimums), self.passes)

    def _allowed(self, ids: Ids, minimums: int) -> Iterator[int]:
        """Yield the positions of the rows that the rules let in, in the order of `ids`, each counted at once."""
        looked = self._looked_up(ids)
        at = {i: row for row, i in enumerate(looked.ids)}
        for block in blocks(len(ids)):
            rows = [at[i] for i in ids[block]]
            near = self.near and self.near.block(torch.as_tensor(looked.units_nD)[rows])
            for inside, row in enumerate(rows):
                if not self._missing(minimums):
                    return
                values = looked.values[row]
                if not self.standing.admits(values) or self.standing.helps(values) < minimums:
                    continue
                if near and not near.buy(inside):
                    self.refused.add(str(looked.ids[row]))
                    continue
                self.standing.take(values)
                yield block.start + inside

    def _looked_up(self, ids: Ids) -> Looked:
        wanted, columns = Exclusion(frozenset(ids)), self.standing.columns
        found: Looked = self.offers.held.reduce(look_up, join, self.scan, wanted, columns, self.near is not None)
        return found

    def report(self) -> dict[str, Any]:
        """Return what the rules did: passes, rows refused as near-duplicates, picks of each value."""
        out: dict[str, Any] = {"passes": self.passes}
        out |= {"near_duplicates": len(self.refused)} if self.near else {}
        return out | ({"quotas": self.standing.report()} if self.standing.columns else {})

    def warnings(self) -> list[str]:
        """Return a sentence for each minimum that was not reached, and one for rows that no rule lets in."""
        out = [] if self.before else self._unknown_classes()
        out += [f"`selection.quotas`: {sentence}." for sentence in self.standing.unmet()]
        if self.competing:
            out.append(f"`selection.quotas`: the minimums compete for the budget of {self.budget}; lower some of them.")
        could = min(self.budget, self.offers.report["available"])
        if len(self.taken) < could:
            near = f"{len(self.refused)} rows are closer than {self.config.min_distance:g} to one that is bought"
            full = ", ".join(f"{c}: {_some(v)}" for c, v in self.standing.closed.items())
            why = [near] * bool(self.refused) + [f"the quotas are full ({full})"] * bool(full)
            more = " more" if self.before else ""
            out.append(f"{len(self.taken)}{more} rows are picked where {could} could be: " + " and ".join(why) + ".")
        return out

    def _unknown_classes(self) -> list[str]:
        """Return a sentence if a quota names classes that the head does not know."""
        head = self.scan.head
        strange = quotas.strange_classes(self.config.quotas, head.classes) if head is not None else []
        if head is None or not strange:
            return []
        return [
            f"`selection.quotas.{quotas.PREDICTED}` names {quotas.some(strange)}: no class of the head, which knows "
            f"{quotas.some(head.classes)}. No row counts as one, and no minimum of it is met, until it has a label or "
            "stands in `classes`."
        ]


def _some(names: frozenset[str]) -> str:
    some = ", ".join(sorted(names)[:5])
    return some + (f" and {len(names) - 5} more" if len(names) > 5 else "")
