"""The stages of a round: each returns what the ledger has, or does the work, commits it and returns it."""

from __future__ import annotations

import logging
from functools import partial
from types import TracebackType
from typing import Any, Self

from alray import storage
from alray.campaign import alignment, asking, budget, choosing, costs, delivery, outlook, readings, rounds, splits
from alray.campaign.alignment import Case
from alray.campaign.choosing import Choice
from alray.campaign.delivery import Model
from alray.campaign.given import given
from alray.campaign.ledger import Ledger
from alray.campaign.material import Material
from alray.campaign.opening import Opened
from alray.campaign.rounds import Round
from alray.campaign.settings import Settings
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.errors import LabelsError, nearest
from alray.labelling import Labels
from alray.log import note
from alray.models import Head
from alray.selection import Picks
from alray.strategies import Given
from alray.training.classifier import HEAD_FILE

log = logging.getLogger(__name__)


class Stages:
    """One attempt at a campaign."""

    def __init__(self, settings: Settings, ledger: Ledger, material: Material, opened: Opened, attempt: int) -> None:
        self.settings, self.ledger, self.material, self.opened = settings, ledger, material, opened
        self.place = Workplace(settings, ledger, material, attempt)
        self.ending: str | None = None  # why no round follows, in words

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.place.close()

    # The lines of the loop

    def next(self) -> Round | None:
        """Return the round that is open, or a new one; None when the budget is spent or a stopping rule holds."""
        done = rounds.closed(self.ledger)
        round = Round(self.ledger, len(done))
        self.place.round = round.number
        note(round=round.number)
        readings.show(self.ledger, self.settings.costs)
        self._stand(round.number - 1)
        if round.has(rounds.PICKS) or (not done and not self.settings.budget.initial):
            return round
        self.ending = (self._reason(done[-1]) if done else None) or self._spent(round.number)
        return None if self.ending else round

    def select(self, round: Round) -> Picks:
        """Return the round's picks: drawn at random in round 0, by the strategy and the last head after it."""
        if round.has(rounds.PICKS):
            return round.picks()
        wanted = self._allowance(round.number)
        if not wanted:
            return choosing.NONE
        choice = Choice(self.place.scan, self.settings, round, self._known(), partial(self._given, round))
        with self.place.meter.stage("select", round.number):
            picks = choice.picks(wanted)
            if len(picks):
                round.commit_picks(picks)
        return picks

    def ask(self, round: Round, picks: Picks) -> bool:
        """Ask for the picks' labels and collect; return whether all of them are answered."""
        if round.has(rounds.LABELS):
            return True
        before = len(self.ledger.outstanding())
        with self.place.meter.stage("labels", round.number):
            done = asking.ask(self.ledger, self.settings.labeller, round.number, [str(i) for i in picks.ids])
        readings.show(self.ledger, self.settings.costs)
        if len(self.ledger.outstanding()) < before:
            self.place.refusal = None  # what failed before was the labeller, and it answers now
        return done

    def label(self, round: Round) -> Labels:
        """Return all labelled rows up to this round: given, and paid for."""
        if not round.has(rounds.LABELS):
            labels = Labels.concat([self.material.given, self.ledger.answers()]).labelled().sorted()
            self._refuse_empty(labels, round)
            self._classes(labels)
            round.commit(rounds.LABELS, labels.to_bytes())
        return round.labels()

    def align(self, round: Round, labels: Labels) -> None:
        """Bring the features up to date with the labels, where the regime says so, and stand on them from here on."""
        if self.settings.regime != "svpp":
            classes = tuple(self._classes(labels))
            case = Case(self.place, round, self._split(labels), classes, last=self._last(round))
            alignment.every_round(case) if self.settings.regime == "standard" else alignment.when_it_pays(case)
        self._stand(round.number)

    def fit(self, round: Round, labels: Labels) -> Head:
        """Return the round's head: the proxy, fitted on the features in force, or that of the fine-tuned network."""
        if not round.has(rounds.HEAD):
            head = self._own_head(round) if self.settings.regime == "standard" else self._proxy(round, labels)
            round.commit(rounds.HEAD, head.to_bytes())
        return round.head()

    def look_ahead(self, round: Round, head: Head, labels: Labels) -> None:
        """Estimate how good the round's head is, and what more labels would buy."""
        if not round.has(rounds.FORECAST):
            found = outlook.estimate(self.place, round, self._split(labels), head)
            round.commit(rounds.FORECAST, outlook.look(self.ledger, self.settings, round, found))

    def train(self, round: Round, head: Head, labels: Labels) -> Model:
        """Return the model that the round delivers: its head, or what the recipe made of the labelled rows."""
        made = rounds.aligned(self.ledger, round.number)
        if self.settings.regime == "standard":
            assert made is not None
            return Model(round.json(rounds.ALIGNED)["recipe"], head, made[1])
        if round.has(rounds.TRAINED) or delivery.trains(self.place, last=self._last(round)):
            return delivery.train(self.place, round, head, self._split(labels), updated=made is not None)
        return Model("head", head)

    def test(self, round: Round, model: Model) -> None:
        """Measure the delivered model on the test rows, if there are any, and note what it stands on."""
        if round.has(rounds.METRICS):
            return
        test = self.material.test
        found = delivery.accuracy(self.place, round, model, test) if test else {"accuracy": None}
        standard = self.settings.regime == "standard"  # its head stands on the network that it was trained with
        features = None if standard else self.place.features.version
        about = {"model": model.name, "features": features, "hardware": self.place.runtime.hardware}
        round.commit(rounds.METRICS, {"schema": 1, **about, **found})

    def close(self, round: Round) -> None:
        """Add up what the round cost and write round.json, after which it is done."""
        if not round.has(rounds.COST):
            round.commit(rounds.COST, outlook.bill(self.ledger, self.settings.costs, round))
        round.commit(rounds.RECORD, self._record(round))
        done = round.json(rounds.RECORD)
        log.info("round %d: %d labels, accuracy %s", round.number, done["labels"], done["accuracy"])

    # When to stop

    def _reason(self, round: Round) -> str | None:
        """Return the stopping rule that holds after a round, in words; None while none does."""
        return outlook.reason_to_stop(self.ledger, self.settings, round.number)

    def _spent(self, number: int) -> str | None:
        """Return what is used up before a round, the budget or the pool, in words; None while neither is."""
        if not self._allowance(number):
            return "the budget is spent."
        if len(self._known()) >= self.material.pool.rows:
            return f"every row of the pool is labelled or asked for; {self._bought()}."
        return None

    def nothing_left(self) -> str:
        """Return why not one row could be picked while the budget is not spent, in words."""
        left, rules = self.material.pool.rows - len(self._known()), self.settings.selection
        if left <= len(self.place.scan.quarantine()):
            return f"the {left:,} rows that are left of the pool cannot be read; {self._bought()}."
        if not rules.has_rules:
            return f"`{self.settings.strategy.name}` has no score for any row that is left; {self._bought()}."
        ways = ["lower `selection.min_distance`"] * bool(rules.min_distance)
        ways += ["raise the `at_most` of `selection.quotas`"] * bool(rules.quotas)
        then = f"{' or '.join(ways).capitalize()}, and the same command goes on."
        return f"no row is left that `selection` lets in; {self._bought()}. {then}"

    def _bought(self) -> str:
        total = self.settings.budget.total
        of_all = "" if total is None else f" of {total:,}"
        return f"{self.ledger.balance().paid:,}{of_all} labels bought"

    def _last(self, round: Round) -> bool:
        """Say whether no round follows, as far as is known before the round's model is tested."""
        if round.has(rounds.FORECAST):
            return (self._reason(round) or self._spent(round.number + 1)) is not None
        return self.settings.stopping.rounds == round.number + 1 or self._spent(round.number + 1) is not None

    def _allowance(self, number: int) -> int:
        """Return how many labels a round may ask for: what earlier rounds asked for is spent."""
        closed, prices = [r.json(rounds.COST) for r in rounds.closed(self.ledger)], self.settings.costs
        dollars = costs.committed_dollars(self.ledger, closed, prices)
        sent, dearest = self.ledger.balance().committed, prices.dearest
        return budget.allowance(self.settings.budget, round=number, label_price=dearest, sent=sent, dollars=dollars)

    # What a round works with

    def _stand(self, number: int) -> None:
        """Work on the features that are in force after a round."""
        found = rounds.aligned(self.ledger, number)
        self.place.stand_on(found)

    def _known(self) -> set[str]:
        """Return the ids that may not be picked: labelled before, or asked for."""
        return {*self.material.given.paid_ids(), *(ask.id for ask in self.ledger.asks())}

    def _given(self, round: Round, wanted: int) -> Given:
        """Return what the strategy may look at: the labelled rows and the head of the round before."""
        if round.number == 0:
            return Given(budget=wanted, seed=self.settings.seed, round=0)
        before = Round(self.ledger, round.number - 1)
        labels = before.labels()
        paid = self.material.given.paid_ids().union(*(self.ledger.answers(n).paid_ids() for n in range(round.number)))
        return given(self.place, before, self._split(labels), paid - set(labels.ids), wanted)

    def _own_head(self, round: Round) -> Head:
        self.place.note_backbone()
        checkpoint = delivery.checkpoint(round, round.json(rounds.ALIGNED))
        return Head.load(storage.join(checkpoint, HEAD_FILE))

    def _proxy(self, round: Round, labels: Labels) -> Head:
        scan, train = self.place.scan, self._split(labels).train
        with self.place.meter.stage("fit", round.number):
            return self.place.proxy(scan.rows(train), train, self._classes(labels), stage="fit")

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
                f"{nearest(unknown[0], self.settings.classes)} Start a new run with all classes named, and give "
                f"it the labels that are paid for, in {self.ledger.uri('answers')}, as its `labels`."
            )
        return self.settings.classes

    def _refuse_empty(self, labels: Labels, round: Round) -> None:
        if not self._split(labels).train:
            raise LabelsError(
                f"Round {round.number} has no labelled row to train on ({len(labels)} are labelled, the others skipped "
                "or held out). Raise `budget.initial`, or lower `training.holdout`."
            )

    def _record(self, round: Round) -> dict[str, Any]:
        """Return round.json: what the round used and made."""
        tested, cost, picks = round.json(rounds.METRICS), round.json(rounds.COST), round.has(rounds.PICKS)
        return {
            "schema": 1,
            "round": round.number,
            "picks": len(round.picks()) if picks else 0,
            "picks_digest": round.picks().digest() if picks else None,
            "labels": cost["labels"],
            "label_dollars": cost["label_dollars"],
            "cost": cost,
            "model": tested["model"],
            "accuracy": tested["accuracy"],
            "estimate": round.json(rounds.FORECAST)["estimate"],
            "forecast": round.json(rounds.FORECAST),
            "aligned": round.json(rounds.ALIGNED)["accepted"] if round.has(rounds.ALIGNED) else None,
            "sha256": round.hashes(),
            "answers": self.ledger.files("answers"),
            "costs": cost["files"],
            "config": self.opened.digest,
            "config_file": self.opened.file,
            "features": tested["features"],
            "hardware": tested["hardware"],
        }
