"""A pool resident on a runtime's workers: look rows up, and select the best of it with any strategy.

The five stages of every selection: prepare (once) → score (a map over shards) → shortlist (one global rule) → diversify
(passes over the shards) → fill. What a strategy does not say, this pipeline decides.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch

from alray.config import Config
from alray.errors import LabelsError, StrategyError
from alray.features import FeatureSet
from alray.ops.moments import Coordinates, Moments
from alray.pool.quarantine import Quarantine, Unreadable
from alray.runtime import Runtime, one_thread
from alray.selection import at_random, pictures, shortlisted, statistics
from alray.selection.candidates import Candidates, Chosen
from alray.selection.diversify import diversify
from alray.selection.losses import with_losses
from alray.selection.picks import Picks, Reason
from alray.selection.resident import BadRows, Exclusion, Part, Resident, Scan, Space, bad_rows, find_rows, unscored_rows
from alray.strategies import Given, Strategy
from alray.strategies.base import HEAD_NEEDS
from alray.strategies.diversity import Nothing
from alray.strategies.shortlist import Cut
from alray.table import Ids, Table, as_ids

log = logging.getLogger(__name__)


class SelectionConfig(Config):
    """How the shortlist becomes picks."""

    regime: Literal["auto", "central", "coreset"] = "auto"  # of k-means; auto goes by the shortlist's size
    space: Space = "activations"  # of diversity and of mixing: the head's hidden activations, or the features below


@dataclass
class Selection:
    """The answer: picks in rank order, what each stage saw and took, and the rows that could not be read."""

    picks: Picks
    report: dict[str, Any]
    quarantine: Quarantine = field(default_factory=Quarantine)
    head: Any = None


class ResidentPool:
    """The shards of one feature set on a runtime's workers. Use it as a context manager."""

    def __init__(self, features: FeatureSet, runtime: Runtime) -> None:
        self.features, self.runtime = features, runtime
        self.numbers = [shard.number for shard in features.shards]
        self.held = runtime.hold(Resident, features.shards, stage="scan")
        self._coordinates: Coordinates | None = None
        self.kept: dict[Any, Any] = {}  # by ways of selection, from round to round

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held.close()

    def quarantine(self) -> Quarantine:
        """Return the pool's unreadable rows, each with its reason."""
        return _gathered(self.held.map(bad_rows))

    def rows(self, ids: Collection[str]) -> Table:
        """Return the features of the given ids, fp32, sorted by id. Rows in quarantine are left out, with a warning.

        Raises LabelsError when an id is not in the pool.
        """
        parts = self.held.map(find_rows, Exclusion(frozenset(ids)))
        found = np.concatenate([part[0] for part in parts])
        if len(found) < len(set(ids)):
            missing = sorted(set(ids) - set(found))
            shown = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise LabelsError(
                f"{len(missing)} of {len(set(ids))} labelled ids are not in the pool: {shown}. Give the pool that the "
                "labels belong to, or remove these rows."
            )
        features_ND = np.concatenate([part[1] for part in parts]).astype(np.float32)
        fine = np.concatenate([part[2] for part in parts])
        if not fine.all():
            log.warning("%d labelled rows cannot be read and are not trained on", int((~fine).sum()))
        keep = np.argsort(found.astype(str), kind="stable")
        keep = keep[fine[keep]]
        return Table(found[keep], {"features": torch.from_numpy(features_ND[keep])})

    def moments(self, labels: Mapping[str, str], classes: Sequence[str]) -> Moments:
        """Return the moments of the labelled rows, their labels numbered by `classes`; rows in quarantine are left out.

        Raises LabelsError when an id is not in the pool, or a label not among the classes.
        """
        found, moments = statistics.labelled_moments(self.held, labels, classes)
        if found < len(labels):
            self.rows(labels)  # raises, and names the missing ids
        if moments.rows < found:
            log.warning("%d labelled rows cannot be read and are no evidence", found - moments.rows)
        return moments

    def coordinates(self) -> Coordinates:
        """Return the sums of each coordinate over every row that can be read; summed once, then remembered."""
        if self._coordinates is None:
            self._coordinates = statistics.pool_coordinates(self.held)
        return self._coordinates

    def select(
        self,
        strategy: Strategy,
        given: Given,
        *,
        excluded: Collection[str] = (),
        config: SelectionConfig | None = None,
        reason: Reason = "strategy",
        within: Part | None = None,
    ) -> Selection:
        """Return `given.budget` distinct rows, none `excluded`; fewer, with a warning, when there are fewer.

        `within` is the part of the pool that they come from; else all of it.
        """
        closed = Exclusion(frozenset(excluded), within)
        return _Round(self, strategy, given, closed, config or SelectionConfig()).run(reason)


class _Round:
    """One selection on its way through the five stages."""

    def __init__(
        self, pool: ResidentPool, strategy: Strategy, given: Given, excluded: Exclusion, config: SelectionConfig
    ) -> None:
        self.pool, self.strategy, self.given, self.config = pool, strategy, given, config
        self.budget = given.budget
        self.seconds: dict[str, float] = {}
        self.report: dict[str, Any] = {"strategy": strategy.name, "budget": given.budget, "seconds": self.seconds}
        with self._stage("prepare"), one_thread():
            check_needs(strategy, given, pool.features)
            given = with_losses(replace(self._with_sample(given, excluded), space=config.space), strategy, pool.runtime)
            self.given = given = with_hidden(given)
            self.scan = Scan(
                token=uuid.uuid4().hex,
                version=pool.features.version,
                strategy=strategy,
                prepared=self._prepared(given),
                head=given.head,
                excluded=excluded,
                space=config.space,
                network=given.network,
            )

    def _prepared(self, given: Given) -> dict[str, Any]:
        """Return what the strategy makes of `given`: here, or on a worker when a network has to be run for it."""
        if pictures.NEED not in self.strategy.wants:
            return self.strategy.prepare(given)
        seen = pictures.beside(given, self.pool.held)
        found: dict[str, Any] = self.pool.runtime.call(_prepare, self.strategy, seen, stage="prepare")
        return found

    def _with_sample(self, given: Given, excluded: Exclusion) -> Given:
        """Return `given` with as many rows drawn from the pool as the strategy asks to see while it prepares."""
        count = self.strategy.sample(given.budget)
        if not count:
            return given
        sample = at_random.sample(self.pool.held, excluded, count, given.seed, given.round)
        self.report["sample"] = len(sample)
        return replace(given, sample=sample)

    def run(self, reason: Reason) -> Selection:
        if self.budget < 1:
            raise StrategyError(f"The budget is {self.budget}; expected at least 1 row to pick.")
        with self._stage("score"):
            rule = self.strategy.shortlist(self.budget)
            total = self.pool.held.reduce(shortlisted.statistic, shortlisted.add, self.scan, rule)
        available, cut = int(total[0]), rule.decide(total[1:])
        self.report |= {"available": available, "cap": cut.cap}
        ids, scores = self._choose(cut)
        reasons: list[Reason] = [reason] * len(ids)
        if len(ids) < min(self.budget, available):
            with self._stage("fill"):
                more, more_scores = self._fill(ids)
            ids, scores = np.concatenate([ids, more]), np.concatenate([scores, more_scores])
            reasons += ["fill"] * len(more)
        if len(ids) < self.budget:
            log.warning("The pool has %d rows left to pick from; the budget is %d", available, self.budget)
        self.report |= {"picked": len(ids), "filled": reasons.count("fill"), "hardware": self.pool.runtime.hardware}
        picks = Picks.ranked(ids, scores, tuple(reasons))
        return Selection(picks, self.report, self._quarantine(), self.given.head)

    def _quarantine(self) -> Quarantine:
        """Return the rows that could not be read, and those that the strategy could not score."""
        unscored = _gathered(self.pool.held.map(unscored_rows, self.scan))
        if len(unscored):
            log.warning("%d rows have no score and cannot be picked. %s", len(unscored), unscored.summary())
        found = self.pool.quarantine()
        found.extend(unscored)
        return found

    def _choose(self, cut: Cut) -> Chosen:
        """Shortlist, and diversify what is longer than the budget."""
        if cut.best is not None:
            with self._stage("shortlist"):
                return self._best(cut.best, cut.above)
        limit, candidates = shortlisted.Limit(cut.above), cut.count
        self.report |= {"candidates": candidates, "candidates_per_pick": candidates / self.budget}
        if cut.most is not None:
            candidates = cut.most
            scores, ids = self._ranked(candidates, cut.above)
            limit = shortlisted.Limit(cut.above, (float(scores[-1]), str(ids[-1])))
        self.report["shortlist"] = candidates
        log.info("%s: %d candidates for %d picks (cap %s)", self.strategy.name, candidates, self.budget, cut.cap)
        if candidates <= self.budget or isinstance(self.strategy.diversity, Nothing):
            with self._stage("shortlist"):
                return self._best(min(candidates, self.budget), cut.above)
        with self._stage("diversify"):
            return self._diversify(limit, candidates)

    def _ranked(self, count: int, above: float) -> shortlisted.Ranked:
        merge = shortlisted.MergeRanked(count)
        found: shortlisted.Ranked = self.pool.held.reduce(shortlisted.best, merge, self.scan, count, above)
        return found

    def _best(self, count: int, above: float) -> Chosen:
        if count == 0:
            return as_ids([]), np.zeros(0, dtype=np.float32)
        scores, ids = self._ranked(count, above)
        return ids, scores

    def _diversify(self, limit: shortlisted.Limit, candidates: int) -> Chosen:
        pool = self.pool
        found = Candidates(
            held=pool.held,
            runtime=pool.runtime,
            numbers=pool.numbers,
            dim=pool.features.dim,
            scan=self.scan,
            limit=limit,
            count=candidates,
            given=self.given,
            diversity=self.strategy.diversity,
            regime=self.config.regime,
            report=self.report,
            kept=pool.kept,
        )
        self.report |= {"diversity": self.strategy.diversity.name, "space": self.config.space}
        return diversify(found)

    def _fill(self, ids: Ids) -> Chosen:
        count, given = self.budget - len(ids), self.given
        return at_random.fill(self.pool.held, self.scan, count, given.seed, given.round, ids)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _gathered(parts: list[BadRows]) -> Quarantine:
    return Quarantine(Unreadable(*row) for rows in parts for row in rows)


def _prepare(strategy: Strategy, given: Given) -> dict[str, Any]:
    return strategy.prepare(given)


def with_hidden(given: Given) -> Given:
    """Return `given` with the hidden activations of its rows beside their features."""
    head = given.head
    if head is None:
        return given
    tables = {name: getattr(given, name) for name in ("labelled", "holdout", "sample", "reference", "losses")}
    wide = {n: t.with_columns(hidden=head.hidden(t["features"])) for n, t in tables.items() if t is not None}
    return replace(given, **wide)


def check_needs(strategy: Strategy, given: Given, features: FeatureSet) -> None:
    """Refuse a strategy whose needs are not met, and say what would meet them."""
    if pictures.NEED in strategy.wants:
        pictures.check(strategy.name, given.network, features)
    if strategy.wants & HEAD_NEEDS and given.head is None:
        raise StrategyError(
            f"`{strategy.name}` scores rows by a head's predictions, and there is neither a head nor labels to fit one."
            " Give `--labels` or `--head`, or use `random`, which needs none."
        )
