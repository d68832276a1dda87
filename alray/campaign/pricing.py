"""What an alignment would cost now, and what it would save: said before the money is spent.

Seconds are measured on a few of the pictures where the work would be done; labels saved are read off the learning
curve of the features in force. Until a trial has measured what new features gain, `switch.gain` is assumed, and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from alray.campaign import outlook
from alray.campaign.costs import HOUR_S
from alray.campaign.rounds import Round
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.models.backbone import plain
from alray.ops.learning_curve import LearningCurve
from alray.proxy.switch import SwitchRule
from alray.training import TrainSet, evaluate, speed
from alray.training import rows as rows_of

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

    def to_dict(self) -> dict[str, Any]:
        """Return the price as JSON values."""
        return asdict(self)

    def sentence(self) -> str:
        """Say it in words."""
        unit, hours = ("GPU", self.gpu_hours) if self.gpu_hours else ("CPU", self.cpu_hours)
        cost = f"Fine-tune and re-embed now: {hours:.2g} {unit}-hours = ${self.dollars:.2f}"
        if self.labels is None:
            return f"{cost}; labels saved: unknown before there is a learning curve"
        least, how = "at least " if self.at_least else "", "as a trial measured" if self.measured else "as assumed"
        saved = f"{least}{self.labels:,} labels = ${self.label_dollars:.2f}"
        return f"{cost}; expected to save {saved}, {how}: {self.gain:.0%} fewer errors"


def estimate(place: Workplace, round: Round, rows: Split, rule: SwitchRule, classes: Sequence[str]) -> Price:
    """Return what fine-tuning on the labels so far and embedding the pool again would cost and save."""
    seconds = _seconds(place, round, rows, rule, classes)
    held, prices = place.runtime.resources, place.settings.costs
    cpu, gpu = seconds * held.cpus / HOUR_S, seconds * held.gpus / HOUR_S
    dollars = cpu * prices.cpu_hour + gpu * prices.gpu_hour
    price = Price(seconds, cpu, gpu, dollars, rule.gain, False, None, None, False, None)
    return _with_savings(price, place, round, rows)


def again(before: Mapping[str, Any], gain: float | None, place: Workplace, round: Round, rows: Split) -> Price:
    """Return the price of a decision with the gain that a trial has measured."""
    price = Price(**before)
    return price if gain is None else _with_savings(replace(price, gain=gain, measured=True), place, round, rows)


def _seconds(place: Workplace, round: Round, rows: Split, rule: SwitchRule, classes: Sequence[str]) -> float:
    """Return the wall seconds that an alignment would take: the trial, the fine-tune, and embedding the pool."""
    runtime, recipe = place.runtime, place.settings.training.recipe.alignment()
    sample = dict(list(rows.train.items())[:SAMPLE])
    located = rows_of.locate(TrainSet(place.material.pool, list(sample), list(sample.values()), classes))
    model = evaluate.Model(plain(place.pretrained), place.settings.seed)
    with place.meter.stage("evidence", round.number):
        each: float = runtime.call(speed.seconds_per_picture, located, model, stage="price")
    passes = speed.TRAINED * recipe.epochs * len(rows.train) * (1.5 if rule.guard == "half" else 1.0)
    return each * (passes / (recipe.workers or runtime.workers) + place.material.pool.rows / runtime.workers)


def _with_savings(price: Price, place: Workplace, round: Round, rows: Split) -> Price:
    """Add the labels that the old features would need for what the new ones are expected to know at once."""
    curve = LearningCurve.fit(*outlook.series(round.ledger, round.number - 1))
    now = curve.predict(len(rows.train)) if curve else None
    if curve is None or now is None:
        return price
    errors, count = 1 - now.mid, len(rows.train) + len(rows.holdout)
    needed = curve.labels_for(1 - errors * (1 - price.gain)).mid
    wanted = None if needed is None else math.ceil(needed * count / max(1, len(rows.train)))
    total = place.settings.budget.total
    limits = [n for n in (wanted, total) if n is not None]
    saved = max(0, min(limits) - count) if limits else None
    at_least = wanted is None or (total is not None and wanted > total)
    dollars = None if saved is None else saved * place.settings.costs.price(None, None)
    return replace(price, errors=errors, labels=saved, at_least=at_least, label_dollars=dollars)
