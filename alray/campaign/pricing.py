"""What an alignment would cost now, and what it would save: said before the money is spent.

Seconds are measured on a few of the pictures where the work would be done; labels saved are read off the learning
curve of the features in force. Until a trial has measured what new features gain, `switch.gain` is assumed, and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from alray.campaign import costs, forecast, outlook
from alray.campaign.costs import HOUR_S
from alray.campaign.rounds import Round
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.models.backbone import plain
from alray.proxy.switch import SwitchRule
from alray.training import TrainSet, evaluate, speed
from alray.training import rows as rows_of

REACH = 4.0
"""Multiple of the labels so far that a saving is looked for in."""

SAMPLE = 64
"""Pictures that the seconds of all are measured on."""


@dataclass(frozen=True)
class Price:
    """Compute of an alignment, and the labels that it is expected to save; None: nothing to say that from yet."""

    seconds: float
    cpu_hours: float
    gpu_hours: float
    dollars: float
    gain: float  # share of the errors that new features take away
    measured: bool  # that share, by a trial
    errors: float | None  # share of the pool that the proxy is expected to get wrong
    labels: int | None
    at_least: bool  # more labels than the curve can be followed to, or than the budget has left
    label_dollars: float | None
    embedding: float = 0.0  # of `seconds`, those of embedding the pool

    def to_dict(self) -> dict[str, Any]:
        """Return the price as JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """Say it in words."""
        unit, hours = ("GPU", self.gpu_hours) if self.gpu_hours else ("CPU", self.cpu_hours)
        cost = f"Fine-tune and re-embed now: {hours:.2g} {unit}-hours = {_said(self.dollars)}"
        if self.labels is None or self.label_dollars is None:
            return f"{cost}; labels saved: unknown before there is a learning curve"
        least, how = "at least " if self.at_least else "", "as a trial measured" if self.measured else "as assumed"
        saved = f"{least}{self.labels:,} labels = {_said(self.label_dollars)}"
        return f"{cost}; expected to save {saved}, if errors change by {-self.gain:+.0%}, {how}"


def _said(dollars: float) -> str:
    """Return dollars and cents, and what is less than a cent by its leading digits."""
    return f"${dollars:,.2f}" if dollars >= 0.01 or not dollars else f"${dollars:.1g}"


def estimate(place: Workplace, round: Round, rows: Split, rule: SwitchRule, classes: Sequence[str]) -> Price:
    """Return what fine-tuning on the labels so far and embedding the pool again would cost and save."""
    tuning, embedding = _seconds(place, round, rows, rule, classes)
    price = _priced(tuning + embedding, place)
    return _with_savings(replace(price, gain=rule.gain, embedding=embedding), place, round, rows)


def again(before: Mapping[str, Any], gain: float | None, place: Workplace, round: Round, rows: Split) -> Price:
    """Return the price of a decision with what fine-tuning has really taken, and the gain that a trial has measured."""
    told, bill = Price(**before), outlook.bill(round.ledger, place.settings.costs, round)
    took = costs.part(bill, ("align",)).seconds + told.embedding
    measured = gain is not None
    price = replace(_priced(took, place), gain=gain if gain is not None else told.gain, measured=measured)
    price = replace(price, embedding=told.embedding)  # not yet done; features that were there before took this run none
    return _with_savings(price, place, round, rows)


def _priced(seconds: float, place: Workplace) -> Price:
    """Return the price of so many seconds of what is held."""
    held, prices = place.runtime.resources, place.settings.costs
    cpu, gpu = seconds * held.cpus / HOUR_S, seconds * held.gpus / HOUR_S
    dollars = cpu * prices.cpu_hour + gpu * prices.gpu_hour
    return Price(seconds, cpu, gpu, dollars, 0.0, False, None, None, False, None)


def _seconds(
    place: Workplace, round: Round, rows: Split, rule: SwitchRule, classes: Sequence[str]
) -> tuple[float, float]:
    """Return the wall seconds that an alignment would take: the trial and the fine-tune, and embedding the pool."""
    runtime, recipe = place.runtime, place.settings.training.recipe.alignment()
    sample = dict(list(rows.train.items())[:SAMPLE])
    located = rows_of.locate(TrainSet(place.material.pool, list(sample), list(sample.values()), classes))
    model = evaluate.Model(plain(place.pretrained), place.settings.seed)
    with place.meter.stage("evidence", round.number):
        each: float = runtime.call(speed.seconds_per_picture, located, model, stage="price")
    passes = speed.TRAINED * recipe.epochs * len(rows.train) * (1.5 if rule.guard == "half" else 1.0)
    embedding = _embedding(place, round, each * place.material.pool.rows / runtime.workers)
    return each * passes / (recipe.workers or runtime.workers), embedding


def _embedding(place: Workplace, round: Round, estimated: float) -> float:
    """Return the seconds of embedding the pool: as it took in this run, or as estimated if that is more."""
    bills = outlook.bills_upto(round, place.settings.costs)
    return max(estimated, *(costs.part(bill, ("features",)).seconds for bill in bills))


def _with_savings(price: Price, place: Workplace, round: Round, rows: Split) -> Price:
    """Add the labels that the old features would need for what the new ones are expected to know at once."""
    estimates = outlook.estimates(round.ledger, round.number - 1)
    since = outlook.since(round.ledger, round.number - 1)
    curve = forecast.learning_curve(estimates, REACH) if estimates and estimates[-1]["since"] == since else None
    now = curve.predict(len(rows.train)) if curve else None
    if curve is None or now is None:
        return price
    errors, count = 1 - now.mid, len(rows.train) + len(rows.holdout)
    needed = curve.labels_for(1 - errors * (1 - price.gain)).mid
    wanted = None if needed is None else math.ceil(needed * count / max(1, len(rows.train)))
    more = None if wanted is None else wanted - count
    total, asked = place.settings.budget.total, round.ledger.balance().committed  # given labels are no part of these
    left = None if total is None else total - asked
    limits = [n for n in (more, left) if n is not None]
    saved = max(0, min(limits)) if limits else None
    at_least = more is None or (left is not None and more > left)
    dollars = None if saved is None else saved * place.settings.costs.price(None, None)
    return replace(price, errors=errors, labels=saved, at_least=at_least, label_dollars=dollars)
