"""How good the selecting model is by labels alone, and what more labels would buy: an estimate a round, and a forecast.

The test set has no say in what a campaign does (decision 26), so accuracy is estimated on labelled rows: on those that
were drawn at random, since rows picked by a strategy are harder than the pool, and that the model was not trained on.
A proxy on frozen features is cross-validated; a fine-tuned network is too dear for that and is asked about its holdout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from alray.campaign import costs, delivery, rounds, stopping
from alray.campaign import forecast as forecasts
from alray.campaign.costs import CostsConfig
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import ALIGNED, FORECAST, SWITCH, Round
from alray.campaign.settings import Settings
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.models import Head
from alray.training import TrainSet, crossval, evaluate
from alray.training.crossval import Estimate


def estimate(place: Workplace, round: Round, rows: Split, head: Head) -> dict[str, Any] | None:
    """Return `training.crossval`'s numbers, `on` what they were measured, and `since` which round the features stand.

    None where no labelled row was both drawn at random and kept from training.
    """
    labels = {**rows.train, **rows.holdout}
    scored = rounds.unseen(round.ledger, round.number, rows.train, sorted(labels))
    if not scored:
        return None
    standard = place.settings.regime == "standard"
    found = _held_out(place, round, rows, scored, head) if standard else _crossed(place, round, labels, scored, head)
    if found is None:
        return None
    on = "holdout" if standard else "cross-validation"
    about = {"labels": len(labels), "fitted": len(rows.train), "on": on, "since": since(round.ledger, round.number)}
    return {**found.to_dict(), **about}


def look(ledger: Ledger, settings: Settings, round: Round, found: dict[str, Any] | None) -> dict[str, Any]:
    """Return forecast.json: the round's estimate, and what the next rounds and the target are expected to cost."""
    bills = bills_upto(round, settings.costs)
    coming = [settings.budget.wanted(round.number + ahead) for ahead in range(1, max(settings.forecast.rounds) + 1)]
    known = estimates(ledger, round.number - 1) + ([found] if found else [])
    rates = forecasts.rates(bills, settings.costs.price(None, None))
    said = forecasts.forecast(settings.forecast, known, coming=coming, rates=rates)
    return {**said, "estimate": found, "spent": sum(one["dollars"] for one in bills)}


def bill(ledger: Ledger, prices: CostsConfig, round: Round) -> dict[str, Any]:
    """Return what a round has cost so far."""
    paid, dollars = ledger.balance(round.number).paid, costs.label_dollars(ledger.answers(round.number), prices)
    return costs.summary(costs.records(ledger, round.number), prices, labels=paid, label_dollars=dollars)


def bills_upto(round: Round, prices: CostsConfig) -> list[dict[str, Any]]:
    """Return the bills of the rounds before, which are closed, and that of this one so far."""
    closed = [Round(round.ledger, number).json(rounds.COST) for number in range(round.number)]
    return [*closed, bill(round.ledger, prices, round)]


def reason_to_stop(ledger: Ledger, settings: Settings, upto: int) -> str | None:
    """Return which stopping rule holds after round `upto`, closed or about to be, as a sentence; None: go on.

    Its dollars are those at its forecast: were training and testing among them, a campaign could end on a round that
    was not known to be the last when it was to be trained, and leave nothing but a head.
    """
    records = [Round(ledger, number).json(rounds.RECORD) for number in range(upto)]
    before = sum(record["cost"]["dollars"] for record in records)
    return stopping.decide(settings.stopping, [*records, _last(Round(ledger, upto), settings, before)])


def _last(round: Round, settings: Settings, before: float) -> dict[str, Any]:
    """Return what is known of a round at its forecast; an older alray's rounds have none, or one without dollars."""
    if not round.has(FORECAST):
        return round.json(rounds.RECORD)
    said = round.json(FORECAST)
    spent = said["spent"] - before if "spent" in said else bill(round.ledger, settings.costs, round)["dollars"]
    return {"cost": {"dollars": spent}, "estimate": said["estimate"], "forecast": said}


def since(ledger: Ledger, upto: int) -> int:
    """Return the first round on the features in force; standard active learning begins no new series."""
    made = rounds.aligned(ledger, upto)
    return made[0] if made is not None and Round(ledger, made[0]).has(SWITCH) else 0


def estimates(ledger: Ledger, upto: int) -> list[dict[str, Any]]:
    """Return the estimates of the rounds up to one, in order; those that had none are left out."""
    numbers = (Round(ledger, number) for number in range(upto + 1))
    found = [round.json(FORECAST)["estimate"] for round in numbers if round.has(FORECAST)]
    return [one for one in found if one is not None]


def _crossed(
    place: Workplace, round: Round, labels: dict[str, str], scored: Sequence[str], head: Head
) -> Estimate | None:
    scan, settings, wanted = place.scan, place.settings, set(scored)
    with place.meter.stage("estimate", round.number):
        known = scan.rows(labels)
        ids = [str(i) for i in known.ids]
        texts, scored_M = [labels[i] for i in ids], np.array([i in wanted for i in ids])
        arguments = (settings.head, known["features"].numpy(), texts, list(head.classes), settings.seed, ids, scored_M)
        found: Estimate | None = scan.runtime.call(crossval.cross_validated, *arguments, stage="estimate")
        return found


def _held_out(place: Workplace, round: Round, rows: Split, scored: Sequence[str], head: Head) -> Estimate:
    texts = [rows.holdout[i] for i in scored]
    given = TrainSet(place.material.pool, list(scored), texts, head.classes)
    model = evaluate.Model.of_checkpoint(delivery.checkpoint(round, round.json(ALIGNED)))
    place.release()
    runtime = place.runtime
    with place.meter.stage("estimate", round.number):
        share = evaluate.accuracy(model, given, runtime)["accuracy"]
    se = crossval.standard_error(int(share * len(scored) + 0.5), len(scored))
    return Estimate(share, se, len(scored), len(rows.train) + len(rows.holdout), len(rows.train))
