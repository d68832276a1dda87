"""One selection on its way through the five stages.

Prepare (once) → score (a map over shards) → shortlist (one global rule) → diversify (passes over the shards) → fill.
What a strategy does not say, this pipeline decides. Under rules (quotas, near-duplicates) shortlist, diversify and fill
are what `under_rules.py` asks for, several times.
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from alray.errors import StrategyError
from alray.features import FeatureSet
from alray.pool.quarantine import Quarantine, Unreadable
from alray.runtime import one_thread
from alray.selection import at_random, pictures
from alray.selection.losses import with_losses
from alray.selection.offers import Offers, Row, timed
from alray.selection.picks import Picks, Reason
from alray.selection.quotas import Counts
from alray.selection.resident import BadRows, Exclusion, Scan, unscored_rows
from alray.selection.settings import SelectionConfig
from alray.selection.under_rules import UnderRules
from alray.strategies import Given, Strategy
from alray.strategies.base import HEAD_NEEDS
from alray.strategies.diversity import DSquared, KCentre
from alray.strategies.random import Random
from alray.table import as_ids

if TYPE_CHECKING:
    from alray.selection.resident_pool import ResidentPool

log = logging.getLogger(__name__)


@dataclass
class Selection:
    """The answer: picks in rank order, what each stage saw and took, and the rows that could not be read."""

    picks: Picks
    report: dict[str, Any]
    quarantine: Quarantine = field(default_factory=Quarantine)
    head: Any = None


class Stages:
    """The stages of one selection."""

    def __init__(
        self, pool: ResidentPool, strategy: Strategy, given: Given, excluded: Exclusion, config: SelectionConfig
    ) -> None:
        if given.budget < 1:
            raise StrategyError(f"The budget is {given.budget}; expected at least 1 row to pick.")
        self.pool, self.config = pool, config
        self.report: dict[str, Any] = {"strategy": strategy.name, "budget": given.budget}
        with timed(self.report, "prepare"), one_thread():
            check_needs(strategy, given, pool.features)
            given = replace(self._with_sample(strategy, given, excluded), space=config.space)
            given = with_hidden(with_losses(given, strategy, pool.runtime))
            scan = Scan(
                token=uuid.uuid4().hex,
                version=pool.features.version,
                strategy=strategy,
                prepared=self._prepared(strategy, given),
                head=given.head,
                excluded=excluded,
                space=config.space,
                network=given.network,
            )
        self.given, self.scan = given, scan
        self.offers = Offers(
            pool.held,
            pool.runtime,
            pool.numbers,
            pool.features.dim,
            config.regime,
            given,
            self.report,
            pool.kept,
            pool.rows,
        )

    def _prepared(self, strategy: Strategy, given: Given) -> dict[str, Any]:
        """Return what the strategy makes of `given`: here, or on a worker when a network has to be run for it."""
        if pictures.NEED not in strategy.wants:
            return strategy.prepare(given)
        seen = pictures.beside(given, self.pool.held)
        found: dict[str, Any] = self.pool.runtime.call(_prepare, strategy, seen, stage="prepare")
        return found

    def _with_sample(self, strategy: Strategy, given: Given, excluded: Exclusion) -> Given:
        """Return `given` with as many rows drawn from the pool as the strategy asks to see while it prepares."""
        count = strategy.sample(given.budget)
        if not count:
            return given
        sample = at_random.sample(self.pool.held, excluded, count, given.seed, given.round)
        self.report["sample"] = len(sample)
        return replace(given, sample=sample)

    def run(self, reason: Reason, before: Counts) -> Selection:
        """Return the picks, those of the strategy marked with `reason`; quotas count those of `before` too."""
        rows = self._under_rules(reason, before) if self.config.has_rules else self._freely(reason)
        budget, available = self.given.budget, self.report["available"]
        if available < budget:
            log.warning("The pool has %d rows left to pick from; the budget is %d", available, budget)
        reasons = tuple(row[2] for row in rows)
        self._say_filled(reasons.count("fill"), len(rows))
        hardware = self.pool.runtime.hardware
        self.report |= {"picked": len(rows), "filled": reasons.count("fill"), "hardware": hardware}
        scores = np.array([row[1] for row in rows], dtype=np.float32)
        picks = Picks.ranked(as_ids([row[0] for row in rows]), scores, reasons)
        return Selection(picks, self.report, self._quarantine(), self.given.head)

    def _freely(self, reason: Reason) -> list[Row]:
        """Return the rows that the strategy chooses, filled up at random where these are too few."""
        offers, budget = self.offers, self.given.budget
        ids, scores = offers.choose(self.scan, budget)
        rows: list[Row] = [(i, float(score), reason) for i, score in zip(ids, scores, strict=True)]
        missing = min(budget, self.report["available"]) - len(rows)
        if missing > 0:
            ids, scores = offers.fill(self.scan, missing, ids)
            rows += [(i, float(score), "fill") for i, score in zip(ids, scores, strict=True)]
        return rows

    def _under_rules(self, reason: Reason, before: Counts) -> list[Row]:
        """Return the rows that the strategy offers and no rule forbids."""
        rules = UnderRules(self.offers, self.scan, self.config, before)
        rows = rules.run(reason)
        self.report |= rules.report()
        for sentence in rules.warnings():
            log.warning("%s", sentence)
        return rows

    def _say_filled(self, filled: int, picked: int) -> None:
        """Warn when at least half of what a strategy was asked for is drawn at random, and say why."""
        strategy, rules = self.scan.strategy, self.config
        if not filled or 2 * filled < picked or isinstance(strategy, Random):
            return
        copies = isinstance(strategy.diversity, KCentre | DSquared)
        why = "to it every other row is equal to one that is bought" if copies else "it has no use for any other row"
        apart = "" if rules.min_distance else "set `selection.min_distance` so that near copies are not bought, or "
        log.warning(
            "%s: %d of %d picks are drawn at random, because %s%s; %sgo on with another strategy",
            strategy.name, filled, picked, why, " that the rules let in" * rules.has_rules, apart,
        )  # fmt: skip

    def _quarantine(self) -> Quarantine:
        """Return the rows that could not be read, and those that the strategy could not score."""
        unscored = quarantine(self.pool.held.map(unscored_rows, self.scan))
        if len(unscored):
            log.warning("%d rows have no score and cannot be picked. %s", len(unscored), unscored.summary())
        found = self.pool.quarantine()
        found.extend(unscored)
        return found


def quarantine(parts: list[BadRows]) -> Quarantine:
    """Return the bad rows of all shards."""
    return Quarantine(Unreadable(*row) for rows in parts for row in rows)


def _prepare(strategy: Strategy, given: Given) -> dict[str, Any]:
    return strategy.prepare(given)


def with_hidden(given: Given) -> Given:
    """Return `given` with the hidden activations of its rows beside their features."""
    head = given.head
    if head is None:
        return given
    parts = ("labelled", "holdout", "skipped", "sample", "reference", "losses")
    tables = {name: getattr(given, name) for name in parts}
    wide = {n: t.with_columns(hidden=head.hidden(t["features"])) for n, t in tables.items() if t is not None}
    return replace(given, **wide)


def check_needs(strategy: Strategy, given: Given, features: FeatureSet) -> None:
    """Refuse a strategy whose needs are not met, and say what would meet them."""
    if pictures.NEED in strategy.wants:
        pictures.check(strategy, given.network, features)
    if strategy.wants & HEAD_NEEDS and given.head is None:
        raise StrategyError(
            f"`{strategy.name}` scores rows by a head's predictions, and there is neither a head nor labels to fit one."
            " Give `--labels` or `--head`, or use `random`, which needs none."
        )
