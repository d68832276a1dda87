"""When to align: rules that say whether fine-tuning and re-embedding the pool is due, from the evidence so far.

A rule is a pure function of the evidence since the features in force began, so that a campaign that was killed decides
the same again. The ASVP paper (Wen et al., TMLR 2024) names the indicator and leaves its thresholds open; `LogmePed`
says how ours were chosen.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from pydantic import Field

from alray.config import Config, Family
from alray.proxy.evidence import Evidence
from alray.proxy.trend import Point, flat_rounds, growing, labels_until, slopes


@dataclass(frozen=True)
class Decision:
    """Whether to align now, a sentence that says why, and the numbers behind it (JSON values)."""

    fire: bool
    reason: str
    numbers: dict[str, Any] = field(default_factory=dict)


class SwitchRule(Config, ABC):
    """When the features in force are given up for fine-tuned ones, and how that is guarded."""

    name: str
    updates: int = Field(1, ge=1)  # alignments at most in a campaign; `always` has no such limit
    guard: Literal["half", "holdout", "none"] = "half"  # rows that judge a trial: half of the labels, or the holdout
    gain: float = Field(0.25, gt=0, lt=1)  # share of the errors that an alignment is taken to remove until one did

    @abstractmethod
    def decide(self, history: Sequence[Evidence], *, labels: int, classes: int) -> Decision:
        """Return the decision of this round.

        `history` is the evidence of every round since the features in force began, this round's last; `labels` counts
        all labelled rows so far, picked ones too; `classes` are all that there are.
        """


class Off(SwitchRule):
    """Never: the features stay."""

    name: Literal["off"] = "off"

    def decide(self, history: Sequence[Evidence], *, labels: int, classes: int) -> Decision:
        return Decision(False, "The switch is off.", {"labels": labels})


class Always(SwitchRule):
    """In every round, whatever `updates` says: what standard active learning does."""

    name: Literal["always"] = "always"

    def decide(self, history: Sequence[Evidence], *, labels: int, classes: int) -> Decision:
        return Decision(True, "The switch fires in every round.", {"labels": labels})


class At(SwitchRule):
    """In the first round with so many labels. `{at: 500}` is short for it."""

    name: Literal["at"] = "at"
    labels: int = Field(ge=1)  # labelled rows from which on it fires

    def decide(self, history: Sequence[Evidence], *, labels: int, classes: int) -> Decision:
        fire = labels >= self.labels
        reason = f"{labels} labels; the switch was set to {self.labels}."
        return Decision(fire, reason, {"labels": labels, "at": self.labels})


class LogmePed(SwitchRule):
    """When more labels no longer improve how well the frozen features fit them.

    The slope of the evidence is measured in nats per label and e-fold of labels: how much surer a linear model of each
    class gets of one label when there are e = 2.7 times as many of them. It is fitted by least squares over the latest
    rounds whose labels grew at least `window`-fold, since a few more labels say little beside their noise. A slope of
    `tau` or less adds one to a count, a slope above `tau` + `band` sets it to zero, and one in between leaves it as it
    is; the switch fires at `patience`. Rounds without new randomly drawn labels do not count.

    `tau` weighs labels against compute: a switch that fires too early costs a trial, which the guard ends; one that
    waits costs labels. At 0.2 the features of a small SimSiam network on digits fire at the second or third slope, and
    the target cost $0.17 more than with the best round chosen afterwards, against $0.58 at 0.1 and $0.36 without a
    switch (5 seeds, `tests/benchmarks/switch_regret.py`). At 0.1 raw pixels of digits, whose linear fit is done after a
    few hundred labels, fire between 200 and 600, and 512 random ReLU features of them, which still gain at 1,000, not
    before 1,300. Features that explain nothing are flat too: they fire as soon as they may. A fit over less than
    1.5-fold growth is mostly noise (its standard error is about 0.05 at 100 labels).
    """

    name: Literal["logme_ped"] = "logme_ped"
    tau: float = Field(0.2, gt=0)  # nats per label and e-fold of labels
    band: float = Field(0.05, ge=0)  # above `tau`, where the count stays
    patience: int = Field(2, ge=1)  # flat rounds before it fires
    window: float = Field(1.5, gt=1)  # how many times more labels the last round of a fit has than the first
    min_per_class: int = Field(5, ge=1)  # randomly drawn labels a class, on average, before it may fire
    measure: Literal["logme_ped", "logme"] = "logme_ped"  # with or without the potential-energy descent

    def decide(self, history: Sequence[Evidence], *, labels: int, classes: int) -> Decision:
        least = self.min_per_class * classes
        rounds = growing(self._rounds(history), least)
        found = slopes(rounds, self.window)
        numbers: dict[str, Any] = {
            "labels": labels,
            "drawn": history[-1].labels if history else 0,
            "least": least,
            "score": getattr(history[-1], self.measure) if history else None,
            "slope": found[-1] if found else None,
            "count": flat_rounds(found, tau=self.tau, band=self.band),
            "tau": self.tau,
            "band": self.band,
            "patience": self.patience,
        }
        if waiting := self._waits(history, rounds, numbers):
            return Decision(False, waiting, numbers)
        return Decision(numbers["count"] >= self.patience, self._said(numbers), numbers)

    def _rounds(self, history: Sequence[Evidence]) -> list[Point]:
        scores = [(record.labels, getattr(record, self.measure)) for record in history]
        return [Point(labels, score) for labels, score in scores if score is not None]

    def _waits(self, history: Sequence[Evidence], rounds: Sequence[Point], numbers: dict[str, Any]) -> str:
        """Return why this round has no slope of its own, or an empty string."""
        drawn, least = numbers["drawn"], numbers["least"]
        if not history or numbers["score"] is None:
            return f"No evidence: {history[-1].reason if history else 'no round was measured'}."
        if drawn < least:
            return f"{drawn} randomly drawn labels; evidence counts from {least} on ({self.min_per_class} a class)."
        if len(history) > 1 and drawn <= history[-2].labels:
            return f"No label was drawn at random since the last round; the evidence still stands on {drawn}."
        if numbers["slope"] is None:
            return (
                f"LogME {numbers['score']:.4f} on {drawn} randomly drawn labels; its slope is measured from "
                f"{labels_until(rounds, self.window)} on, {self.window:g} times the first {rounds[0].labels}."
            )
        return ""

    def _said(self, numbers: dict[str, Any]) -> str:
        """Return the sentence of a round that has a slope."""
        rate, count = numbers["slope"], numbers["count"]
        side = "at or below" if rate <= self.tau else "above" if rate > self.tau + self.band else "in the band above"
        return (
            f"The evidence grows by {rate:.4f} nats a label and e-fold of labels ({numbers['score']:.4f} on "
            f"{numbers['drawn']} randomly drawn), {side} the {self.tau:g} that counts as flat; "
            f"{count} flat rounds, {self.patience} make it fire."
        )


SWITCHES: Mapping[str, type[SwitchRule]] = {"always": Always, "at": At, "logme_ped": LogmePed, "off": Off}
"""The rules by name."""


def from_words(value: Any) -> Any:
    """Return what `switch:` says in the form that a family reads.

    YAML reads a bare `off` as false, and `{at: 500}` names its rule by its key; everything else is left as it is. A
    setting of this family calls it before validation, since settings refuse a false that is not meant as a boolean.
    """
    if value is False:
        return {"name": "off"}
    if not isinstance(value, Mapping):
        return value
    if value.get("name") is False:
        return {**value, "name": "off"}
    if "at" in value and "name" not in value:
        if "labels" in value:
            return {"name": "at", **value}  # said twice: `at` is then a key that no rule has
        rest = {key: inner for key, inner in value.items() if key != "at"}
        return {"name": "at", "labels": value["at"], **rest}
    return value


class _Rules(Family[SwitchRule]):
    """The family of rules, which finds them by the short words too: a mistake inside them then names its setting."""

    def build(self, value: object, *, at: str = "") -> SwitchRule:
        return super().build(from_words(value), at=at)

    def section(self, value: object) -> type[SwitchRule] | None:
        return super().section(from_words(value))

    def _validate(self, value: object) -> SwitchRule:
        return super()._validate(from_words(value))


SwitchFamily = _Rules(cast(Any, SwitchRule), SWITCHES, "name", None, {})
