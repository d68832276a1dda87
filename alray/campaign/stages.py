"""The stages of a round: each returns what the ledger has, or does the work, commits it and returns it.

Workers are asked for when a stage first needs them, so that a campaign that waits for labels or is done holds none.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from alray.campaign import asking, budget, costs, measure, rounds, splits
from alray.campaign.ledger import Ledger
from alray.campaign.material import Material
from alray.campaign.opening import Opened
from alray.campaign.rounds import Round
from alray.campaign.settings import Settings
from alray.campaign.splits import Split
from alray.errors import LabelsError, nearest
from alray.features import FeatureSet, build
from alray.labelling import Labels
from alray.models import Head
from alray.pool import Pool
from alray.pool.quarantine import Quarantine
from alray.runtime import Resources, Runtime, open_runtime
from alray.selection import Picks, ResidentPool, Selection
from alray.strategies import Given, find
from alray.table import as_ids
from alray.training.probe import fit_head

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Model:
    """What a round delivers: a head on features, or a checkpoint that a recipe trained."""

    name: str
    head: Head
    checkpoint: str | None


class Stages:
    """One attempt at a campaign: its material, its workers once there are any, and its meter."""

    def __init__(
        self, settings: Settings, ledger: Ledger, material: Material, opened: Opened, attempt: int
    ) -> None:
        self.settings, self.ledger, self.material, self.opened = settings, ledger, material, opened
        self._meter = costs.Meter(ledger, attempt, self._held)
        self._workers = ExitStack()
        self._round = 0
        self._opened: Runtime | None = None
        self._scan: ResidentPool | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()
        self._workers.close()

    # The lines of the loop

    def next(self) -> Round | None:
        """Return the round that is open, or a new one; None when the budget is spent or a stopping rule holds."""
        done = rounds.closed(self.ledger)
        round = Round(self.ledger, len(done))
        self._round = round.number
        if round.has(rounds.PICKS):
            return round
        stop = self.settings.stopping
        if stop.rounds is not None and len(done) >= stop.rounds:
            return None
        if done and stop.accuracy is not None and (done[-1].json(rounds.RECORD)["accuracy"] or 0) >= stop.accuracy:
            return None
        first = round.number == 0 and self.settings.budget.initial == 0
        return round if first or (self._allowance(round) and self._unasked()) else None

    def select(self, round: Round) -> Picks:
        """Return the round's picks: drawn at random in round 0, by the strategy and the last head after it."""
        if round.has(rounds.PICKS):
            return round.picks()
        wanted = self._allowance(round)
        if not wanted:
            return Picks(as_ids([]), np.zeros(0, dtype=np.float32), ())
        scan = self._scanned()
        with self._meter.stage("select", round.number):
            chosen = self._chosen(scan, round, wanted)
            if len(chosen.picks):
                round.commit_picks(chosen.picks)
        return chosen.picks

    def ask(self, round: Round, picks: Picks) -> bool:
        """Ask for the picks' labels and collect; return whether all of them are answered."""
        ids = [str(i) for i in picks.ids]
        if round.has(rounds.LABELS):
            return True
        with self._meter.stage("labels", round.number):
            return asking.ask(self.ledger, self.settings.labeller, round.number, ids)

    def label(self, round: Round) -> Labels:
        """Return all labelled rows up to this round: given, and paid for."""
        if not round.has(rounds.LABELS):
            labels = Labels.concat([self.material.given, self.ledger.answers()]).labelled().sorted()
            self._refuse_empty(labels, round)
            round.commit(rounds.LABELS, labels.to_bytes())
        return round.labels()

    def fit(self, round: Round, labels: Labels) -> Head:
        """Return the round's head, fitted on the features of the labelled rows that train."""
        if not round.has(rounds.HEAD):
            scan = self._scanned()
            with self._meter.stage("fit", round.number):
                train = self._split(labels).train
                rows = scan.rows(train)
                texts = [train[i] for i in rows.ids]
                head = scan.runtime.call(
                    fit_head, self.settings.head, rows["features"].numpy(), texts, self._classes(labels),
                    self.settings.seed, stage="fit",
                )
                round.commit(rounds.HEAD, head.to_bytes())
        return round.head()

    def train(self, round: Round, head: Head, labels: Labels) -> Model:
        """Return the model that the round delivers: its head, or what `training.recipe` made of the labelled rows."""
        return Model("head", head, None)

    def test(self, round: Round, model: Model) -> None:
        """Measure the delivered model on the test rows, if there are any, and note what it stands on."""
        if round.has(rounds.METRICS):
            return
        about = {"model": model.name, "features": self._features.version, "hardware": self._runtime.hardware}
        found = self._tested(round, model) if self.material.test else {"accuracy": None}
        round.commit(rounds.METRICS, {"schema": 1, **about, **found})

    def close(self, round: Round) -> None:
        """Add up what the round cost and write round.json, after which it is done."""
        if not round.has(rounds.COST):
            closed = costs.records(self.ledger, round.number)
            paid = self.ledger.balance(round.number).paid
            round.commit(rounds.COST, costs.summary(closed, self.settings.costs, labels=paid))
        round.commit(rounds.RECORD, self._record(round))
        done = round.json(rounds.RECORD)
        log.info("round %d: %d labels, accuracy %s", round.number, done["labels"], done["accuracy"])

    # What they share

    @property
    def _runtime(self) -> Runtime:
        if self._opened is None:
            with self._meter.stage("workers", self._round):
                self._opened = self._workers.enter_context(open_runtime(self.settings.runtime))
        return self._opened

    @cached_property
    def _features(self) -> FeatureSet:
        return self._built(self.material.pool)

    @cached_property
    def _test_features(self) -> FeatureSet:
        assert self.material.test is not None
        return self._built(self.material.test.pool)

    def _tested(self, round: Round, model: Model) -> dict[str, Any]:
        assert self.material.test is not None
        features = self._test_features
        with self._meter.stage("test", round.number):
            return measure.head_metrics(model.head, features, self.material.test.labels, self._runtime)

    def _built(self, pool: Pool) -> FeatureSet:
        runtime = self._runtime
        if pool.kind != "features":
            self._release()  # a stage owns the cluster
        with self._meter.stage("features", self._round):
            features = build(pool, self.settings.features, runtime, seed=self.settings.seed)
        features.quarantine.check(features.rows, self.settings.pool.max_quarantine)
        return features

    def _scanned(self) -> ResidentPool:
        """Return the resident pool, loading it if no stage before this one left it."""
        if self._scan is None:
            features, runtime = self._features, self._runtime
            with self._meter.stage("load", self._round):
                self._scan = ResidentPool(features, runtime)
                self._keep_quarantine(self._scan.quarantine())
        return self._scan

    def _release(self) -> None:
        if self._scan is not None:
            self._scan.__exit__(None, None, None)
            self._scan = None

    def _held(self) -> Resources:
        return self._opened.resources if self._opened is not None else Resources(cpus=0.0)

    def _chosen(self, scan: ResidentPool, round: Round, wanted: int) -> Selection:
        settings, excluded = self.settings, [*self.material.given.ids, *(a.id for a in self.ledger.asks())]
        if round.number == 0:
            given = Given(budget=wanted, seed=settings.seed, round=0)
            return scan.select(find("random"), given, excluded=excluded, config=settings.selection, reason="initial")
        given = self._given(scan, Round(self.ledger, round.number - 1), round.number, wanted)
        return scan.select(settings.strategy, given, excluded=excluded, config=settings.selection)

    def _given(self, scan: ResidentPool, last: Round, number: int, wanted: int) -> Given:
        """Return what the strategy may look at: the labelled rows and the head of the round before."""
        parts, head = self._split(last.labels()), last.head()
        labelled = scan.rows(parts.train)
        classes = {name: c for c, name in enumerate(head.classes)}
        return Given(
            budget=wanted, seed=self.settings.seed, round=number, head=head, labelled=labelled,
            label_M=torch.tensor([classes[parts.train[i]] for i in labelled.ids], dtype=torch.int64),
            holdout=scan.rows(parts.holdout) if parts.holdout else None, backbone=self.settings.features.backbone,
        )

    def _allowance(self, round: Round) -> int:
        """Return how many labels the round may ask for: what earlier rounds asked for is spent."""
        committed = self.ledger.balance().committed
        price = self.settings.costs.label
        paid = sum(r.json(rounds.COST)["label_dollars"] for r in rounds.closed(self.ledger))
        open_labels = committed - sum(r.json(rounds.COST)["labels"] for r in rounds.closed(self.ledger))
        return budget.allowance(
            self.settings.budget, round=round.number, label_price=price, sent=committed,
            dollars=paid + open_labels * price,
        )

    def _unasked(self) -> int:
        return self.material.pool.rows - len({*self.material.given.ids, *(a.id for a in self.ledger.asks())})

    def _split(self, labels: Labels) -> Split:
        return splits.split(labels.mapping(), self.settings.seed, self.settings.training.holdout)

    def _classes(self, labels: Labels) -> list[str]:
        """Return the classes in the head's order: as set, or those seen, sorted."""
        seen = sorted(set(labels.mapping().values()))
        if self.settings.classes is None:
            return seen
        unknown = [name for name in seen if name not in self.settings.classes]
        if unknown:
            raise LabelsError(
                f"The labels have {len(unknown)} classes that `classes` does not name, e.g. `{unknown[0]}`."
                f"{nearest(unknown[0], self.settings.classes)} Start a new run with all classes named."
            )
        return self.settings.classes

    def _refuse_empty(self, labels: Labels, round: Round) -> None:
        if not self._split(labels).train:
            raise LabelsError(
                f"Round {round.number} has no labelled row to train on ({len(labels)} are labelled, the others skipped "
                "or held out). Raise `budget.initial`, or lower `training.holdout`."
            )

    def _keep_quarantine(self, found: Quarantine) -> None:
        """Stop if too much of the pool is unreadable; else keep the list of what is."""
        pool = self.material.pool
        found.check(pool.rows, self.settings.pool.max_quarantine)
        if len(found):
            self.ledger.guard()
            found.write(self.ledger.uri("quarantine.parquet"))

    def _record(self, round: Round) -> dict[str, object]:
        """Return round.json: what the round used and made; its existence means that the round is done."""
        tested = round.json(rounds.METRICS)
        cost, picks = round.json(rounds.COST), round.has(rounds.PICKS)
        return {
            "schema": 1,
            "round": round.number,
            "picks": len(round.picks()) if picks else 0,
            "picks_digest": round.picks().digest() if picks else None,
            "labels": cost["labels"],
            "label_dollars": cost["label_dollars"],
            "model": tested["model"],
            "accuracy": tested["accuracy"],
            "sha256": round.hashes(),
            "answers": self.ledger.files("answers"),
            "costs": cost["files"],
            "config": self.opened.digest,
            "config_file": self.opened.file,
            "features": tested["features"],
            "hardware": tested["hardware"],
        }
