"""What the next rounds would buy, and what a target would cost: the learning curve of a campaign's estimates, priced.

Estimates from before the features last changed belong to another curve: they say how steep curves are on this pool (the
exponent), and nothing else.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field, field_validator

from alray.config import Config
from alray.ops.learning_curve import Interval, LearningCurve, Needed
from alray.runtime.threads import one_thread

FURTHEST = 100
"""Rounds ahead at most: the curve is followed to a few times the labels so far."""

LOOSER = 1.5
"""An exponent seen on other features is known less well by this factor."""

FOLDS = 1.2
"""Standard errors of a cross-validation are this much larger than its rows say: all heads share most of their labels
(Bengio & Grandvalet, *No Unbiased Estimator of the Variance of K-Fold Cross-Validation*, JMLR 2004)."""

PICKED = 0.5
"""By which share of its errors a cross-validation is off (a deviation) where a strategy picked nearly all labels.

A strategy picks no neighbours of a row that has its label: leave that row out, and there is a hole that the strategy
would have filled. Seen with margin on digits: half more errors in the first rounds, none more in the tenth.
"""


class ForecastConfig(Config):
    """What is forecast after each round."""

    target: float | None = Field(None, gt=0, lt=1)  # accuracy whose price is forecast
    level: float = Field(0.9, gt=0, lt=1)  # chance that the accuracy is within the interval
    rounds: list[int] = Field([1, 2, 5])  # rounds ahead
    reach: float = Field(4.0, gt=1, le=20)  # say nothing beyond this multiple of the labels so far

    @field_validator("rounds")
    @classmethod
    def _ahead(cls, value: list[int]) -> list[int]:
        if not value or min(value) < 1 or max(value) > FURTHEST:
            raise ValueError(f"is {value} (expected numbers of rounds ahead, each from 1 to {FURTHEST})")
        return sorted(set(value))


class Rates(NamedTuple):
    """What things have cost so far: dollars of a label, and of the machines in a round."""

    label: float
    compute: float


def rates(costs: Sequence[Mapping[str, Any]], label: float) -> Rates:
    """Return the mean price of the labels so far and the median compute dollars of a round.

    `costs` are rounds' bills as by `costs.summary`; `label` is the price while no label is paid for. Round 0, which
    embeds the pool and may pre-train, counts only where it is alone.
    """
    labels = sum(cost["labels"] for cost in costs)
    paid = sum(cost["label_dollars"] for cost in costs)
    compute = [cost["compute"]["dollars"] for cost in (costs[1:] or costs)]
    return Rates(paid / labels if labels else label, statistics.median(compute) if compute else 0.0)


@dataclass(frozen=True)
class Outlook:
    """A learning curve in the campaign's own labels, and what they will cost."""

    curve: LearningCurve
    labels: int  # so far
    fitted: float  # share of the labels that a head is fitted on: the others are held out or skipped
    coming: tuple[int, ...]  # labels of each coming round; the last is repeated
    rates: Rates
    config: ForecastConfig

    def accuracy(self, more: float) -> Interval | None:
        """Return the accuracy after `more` labels."""
        return self.curve.predict((self.labels + more) * self.fitted, self.config.level)

    def after(self, rounds: int) -> int:
        """Return the labels of the next `rounds` rounds."""
        return sum(self.coming[min(i, len(self.coming) - 1)] for i in range(rounds))

    def dollars(self, more: float) -> float:
        """Return what `more` labels cost, and the rounds that it takes to ask for them."""
        rounds = next(i for i in itertools.count() if self.after(i) >= more)
        return more * self.rates.label + rounds * self.rates.compute

    def needed(self, target: float) -> list[int | None]:
        """Return how many more labels a target takes, low, mid and high; None beyond the reach."""
        found: Needed = self.curve.labels_for(target, self.config.level)
        return [None if n is None else max(0, math.ceil(n / self.fitted - 1e-6) - self.labels) for n in found]


def forecast(
    config: ForecastConfig,
    estimates: Sequence[Mapping[str, Any]],
    *,
    coming: Sequence[int],
    rates: Rates,
) -> dict[str, Any]:
    """Return forecast.json: the accuracy and the price of coming rounds and of the target, with sentences for people.

    `estimates` are those of the rounds so far, in order: `accuracy`, `se`, `rows`, `fitted` and `trained` as by
    `training.crossval`, `labels` in all, `since`, the round whose features are in force, and where no row of it was
    trained on, `on: holdout`. `coming` has the labels of
    each coming round, each above 0; the last holds for those after it.
    """
    if not coming or min(coming) < 1:
        raise ValueError(
            f"Coming rounds of {list(coming)} labels. Expected at least one round, each of 1 label or more."
        )
    with one_thread():  # a stopping rule may hang on the last bit
        return _forecast(config, estimates, tuple(coming), rates)


def _forecast(
    config: ForecastConfig, estimates: Sequence[Mapping[str, Any]], coming: tuple[int, ...], rates: Rates
) -> dict[str, Any]:
    curve = learning_curve(estimates, config.reach)
    if curve is None:
        why = "No forecast yet: it takes the estimates of two rounds with different numbers of labels."
        empty: dict[str, Any] = {"now": None, "next": None, "rounds": [], "target": None}
        return {"schema": 1, "level": config.level, **empty, "sentences": [why]}
    last = estimates[-1]
    outlook = Outlook(curve, last["labels"], last["fitted"] / last["labels"], coming, rates, config)
    found = {
        "schema": 1,
        "level": config.level,
        "labels": outlook.labels,
        "since": last["since"],
        "exponent": {"mean": curve.exponent[0], "deviation": curve.exponent[1]},
        "rates": rates._asdict(),
        "now": _interval(outlook.accuracy(0)),
        "rounds": [_ahead(outlook, rounds) for rounds in config.rounds],
        "next": _next(outlook),
        "target": None if config.target is None else _target(outlook, config.target),
    }
    return {**found, "sentences": _sentences(found, config)}


def learning_curve(estimates: Sequence[Mapping[str, Any]], reach: float) -> LearningCurve | None:
    """Return the curve of the estimates on the features in force, over rows that a head is fitted on.

    The exponent of the estimates before is its prior. None where there are too few; `reach` is a multiple of labels.
    """
    since = [one["since"] for one in estimates]
    exponent = None
    curve = None
    for version in dict.fromkeys(since):
        points = [one for one in estimates if one["since"] == version]
        curve = LearningCurve.fit(
            [one["trained"] for one in points],
            [_smooth(one) for one in points],
            [one["se"] if _held_out(one) else FOLDS * one["se"] for one in points],
            bias=[0.0 if _held_out(one) else PICKED * max(0.0, 1 - one["rows"] / one["fitted"]) for one in points],
            exponent=exponent,
            reach=reach * points[-1]["fitted"] / points[-1]["trained"],  # of labels, not of a fold's
        )
        if curve is not None:
            exponent = curve.exponent[0], LOOSER * curve.exponent[1]
    return curve


def _held_out(estimate: Mapping[str, Any]) -> bool:
    """Say whether the estimate was measured on rows that never train, which no strategy knows."""
    return estimate.get("on") == "holdout"


def _smooth(estimate: Mapping[str, Any]) -> float:
    """Return the accuracy as the mean of its posterior (Jeffreys' prior): all right does not mean without error."""
    rows: int = estimate["rows"]
    return float(estimate["accuracy"] * rows + 0.5) / (rows + 1)


def _ahead(outlook: Outlook, rounds: int) -> dict[str, Any]:
    """Return what the next `rounds` rounds buy, and cost."""
    more = outlook.after(rounds)
    dollars = round(outlook.dollars(more), 6)
    found = _interval(outlook.accuracy(more))
    return {"rounds": rounds, "more": more, "labels": outlook.labels + more, "dollars": dollars, "accuracy": found}


def _next(outlook: Outlook) -> dict[str, Any] | None:
    """Return what the next round gains, in accuracy and for a dollar; None beyond the reach."""
    more = outlook.after(1)
    now, then = outlook.accuracy(0), outlook.accuracy(more)
    if now is None or then is None:
        return None
    gain, dollars = then.mid - now.mid, outlook.dollars(more)
    return {
        "gain": gain,
        "dollars": round(dollars, 6),
        "gain_per_dollar": gain / dollars if dollars > 0 else None,
        "dollars_per_point": dollars / (100 * gain) if gain > 0 else None,
    }


def _target(outlook: Outlook, target: float) -> dict[str, Any]:
    """Return the labels and dollars that the target takes from now on, low, mid and high."""
    needed = outlook.needed(target)
    names = ("low", "mid", "high")
    dollars = [None if more is None else round(outlook.dollars(more), 6) for more in needed]
    beyond = math.floor(outlook.curve.labels * outlook.curve.reach / outlook.fitted) - outlook.labels
    return {
        "accuracy": target,
        "labels": dict(zip(names, needed, strict=True)),
        "dollars": dict(zip(names, dollars, strict=True)),
        "beyond": beyond,  # more labels than which nothing is said of
    }


def _interval(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {name: round(value, 6) for name, value in found._asdict().items()}


# In words


def _sentences(found: Mapping[str, Any], config: ForecastConfig) -> list[str]:
    """Return the forecast for people."""
    lines = [f"Now, with {found['labels']:,} labels: {_said(found['now'], config.level)}."] if found["now"] else []
    for ahead in found["rounds"]:
        what = f"{ahead['rounds']} more {_plural(ahead['rounds'], 'round')} ({ahead['more']:,} labels"
        if ahead["accuracy"] is None:
            far = f"more than {config.reach:g} times the labels so far, too far to say"
            lines.append(f"{what}): {far}.")
        else:
            lines.append(f"{what}, ${ahead['dollars']:,.2f}): {_said(ahead['accuracy'], config.level)}.")
    if found["next"] and found["next"]["dollars_per_point"] is not None:
        price = found["next"]["dollars_per_point"]
        lines.append(f"In the next round a point of accuracy costs ${price:,.2f}.")
    return lines + ([_said_target(found["target"])] if found["target"] else [])


def _said(accuracy: Mapping[str, float], level: float) -> str:
    return f"accuracy {accuracy['mid']:.1%} ({level:.0%} between {accuracy['low']:.1%} and {accuracy['high']:.1%})"


def _said_target(target: Mapping[str, Any]) -> str:
    labels, dollars = target["labels"], target["dollars"]
    if labels["mid"] == 0:
        return (
            f"The target of {target['accuracy']:.1%} is reached{'' if labels['high'] == 0 else ', as likely as not'}."
        )
    if labels["mid"] is None:
        lucky = f"; with luck {labels['low']:,} do" if labels["low"] is not None else ""
        return f"The target of {target['accuracy']:.1%} takes more than {target['beyond']:,} more labels{lucky}."
    high = f"more than {target['beyond']:,}" if labels["high"] is None else f"{labels['high']:,}"
    return (
        f"The target of {target['accuracy']:.1%} takes about {labels['mid']:,} more labels, ${dollars['mid']:,.2f} "
        f"(between {labels['low']:,} and {high} labels)."
    )


def _plural(number: int, what: str) -> str:
    return what if number == 1 else f"{what}s"
