"""When a campaign stops before its budget is spent: for its rounds, its dollars, or an accuracy that is estimated.

The estimate is that of `training.crossval`, on labelled rows drawn at random. Nothing here sees the test set, which
would be used up by being looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import Field

from alray.config import Config

CONFIDENCE = 0.9
QUANTILE = 1.2815515594457414
"""Standard errors below an estimate that the true accuracy exceeds with `CONFIDENCE`."""

Records = Sequence[Mapping[str, Any]]


class PlateauConfig(Config):
    """More rounds that no longer help."""

    rounds: int = Field(3, ge=1)  # rounds that are looked at
    gain: float = Field(0.005, ge=0, lt=1)  # least that the best estimate has to rise in them; 0.01 is one point


class StoppingConfig(Config):
    """When to stop before the budget is spent: at the first rule that holds after a round."""

    rounds: int | None = Field(None, ge=1)  # stop after this many rounds
    dollars: float | None = Field(
        None, gt=0
    )  # stop once labels and compute have cost this much, up to a round's forecast
    accuracy: float | None = Field(None, gt=0, lt=1)  # stop once the estimate is this high with 90 % confidence
    dollars_per_point: float | None = Field(
        None, gt=0
    )  # most that a percentage point of accuracy may cost, as forecast
    plateau: PlateauConfig | None = None


def decide(config: StoppingConfig, records: Records) -> str | None:
    """Return why to stop after these closed rounds, as a sentence; None to go on.

    A record is a round's `round.json`: `cost` as by `costs.summary`; `estimate` as by `training.crossval` with the
    round `since` which the features are in force; `forecast` as by `campaign.forecast`. The last two may be missing.
    """
    rules: list[Callable[[StoppingConfig, Records], str | None]] = [_rounds, _dollars, _accuracy, _price, _plateau]
    return next((why for rule in rules if records and (why := rule(config, records)) is not None), None)


def _rounds(config: StoppingConfig, records: Records) -> str | None:
    if config.rounds is None or len(records) < config.rounds:
        return None
    return f"{_count(len(records), 'round')} done: `stopping.rounds` is {config.rounds}."


def _dollars(config: StoppingConfig, records: Records) -> str | None:
    spent = sum(record["cost"]["dollars"] for record in records)
    if config.dollars is None or spent < config.dollars:
        return None
    return f"Labels and compute cost ${spent:,.2f} so far: `stopping.dollars` is {config.dollars:g}."


def _accuracy(config: StoppingConfig, records: Records) -> str | None:
    """One-sided bound of the last estimate; it is looked at after every round, so 90 % is of one look."""
    estimate = records[-1].get("estimate")
    if config.accuracy is None or estimate is None:
        return None
    least = estimate["accuracy"] - QUANTILE * estimate["se"]
    if least < config.accuracy:
        return None
    return (
        f"The accuracy is estimated at {estimate['accuracy']:.1%}, and is at least {least:.1%} with {CONFIDENCE:.0%} "
        f"confidence ({_count(estimate['rows'], 'row')} drawn at random): `stopping.accuracy` is {config.accuracy:g}."
    )


def _price(config: StoppingConfig, records: Records) -> str | None:
    forecast = records[-1].get("forecast") or {}
    if config.dollars_per_point is None or forecast.get("next") is None:
        return None
    gain, dollars = forecast["next"]["gain"], forecast["next"]["dollars"]
    if 100 * gain * config.dollars_per_point >= dollars:
        return None
    return (
        f"The next round is forecast to buy {100 * gain:.2f} points of accuracy for ${dollars:,.2f}: "
        f"`stopping.dollars_per_point` is {config.dollars_per_point:g}."
    )


def _plateau(config: StoppingConfig, records: Records) -> str | None:
    """Estimates from before the features changed are of other heads, and do not count."""
    estimates = [record["estimate"] for record in records if record.get("estimate") is not None]
    since = estimates[-1]["since"] if estimates else 0
    values = [estimate["accuracy"] for estimate in estimates if estimate["since"] == since]
    if config.plateau is None or len(values) <= config.plateau.rounds:
        return None
    rise = max(values[-config.plateau.rounds :]) - max(values[: -config.plateau.rounds])
    if rise >= config.plateau.gain:
        return None
    return (
        f"In the last {_count(config.plateau.rounds, 'round')} the best estimate of the accuracy rose by "
        f"{100 * max(rise, 0.0):.2f} points: `stopping.plateau` asks for {100 * config.plateau.gain:.2f}."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
