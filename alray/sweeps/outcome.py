"""What came of a sweep: how each trial stands, and the mean curve of each configuration over its seeds.

Everything is read from the trials' ledgers; what cannot be there is given: who was stopped early, and what failed now.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from alray.campaign import Status
from alray.reports.groups import Group
from alray.reports.runs import read
from alray.reports.wins import Wins, wins
from alray.sweeps import trial as trials
from alray.sweeps.grid import Trial

State = Literal["done", "stopped", "waiting", "failed", "cut", "not begun"]


@dataclass(frozen=True)
class Result:
    """How one trial stands. `stopped`: early, since it was behind; `cut`: in the middle, the same command goes on."""

    trial: Trial
    state: State
    status: Status | None = None
    error: str = ""

    @property
    def reports(self) -> list[trials.Report]:
        """The sums after each of its rounds."""
        return trials.reports(self.status) if self.status else []

    def row(self) -> dict[str, Any]:
        """Return the trial's row in the table."""
        last = self.reports[-1] if self.reports else {}
        return {
            "trial": self.trial.name,
            **self.trial.varied,
            "seed": self.trial.seed,
            "state": self.state,
            "rounds": len(self.reports),
            "labels": last.get(trials.LABELS, 0),
            "accuracy": last.get(trials.ACCURACY),
            "dollars": last.get("dollars", 0.0),
            "seconds": last.get("seconds", 0.0),
            "error": self.error,
        }


@dataclass(frozen=True)
class Point:
    """A configuration after so many labels: means over seeds, and the deviation of the accuracy (None: one seed)."""

    configuration: str
    labels: float
    accuracy: float
    deviation: float | None
    dollars: float


@dataclass(frozen=True)
class Configuration:
    """The trials that differ in their seed alone."""

    name: str
    results: tuple[Result, ...]

    @property
    def done(self) -> bool:
        """Whether all its seeds ran to their end: the mean over those that did is one of the lucky ones."""
        return all(one.state == "done" for one in self.results)

    @property
    def even(self) -> bool:
        """Whether all its seeds were tested at the same labels."""
        return len({tuple(report[trials.LABELS] for report in one.reports) for one in self.results}) == 1

    @functools.cached_property
    def points(self) -> list[Point]:
        """The mean curve, at the labels that all its seeds came to."""
        by_seed = [{report[trials.LABELS]: report for report in one.reports} for one in self.results]
        common = set.intersection(*(set(one) for one in by_seed))
        return [self._point(labels, [one[labels] for one in by_seed]) for labels in sorted(common)]

    def _point(self, labels: int, found: Sequence[Mapping[str, Any]]) -> Point:
        accuracy = np.array([report[trials.ACCURACY] for report in found], dtype=np.float64)
        spread = float(accuracy.std(ddof=1)) if len(found) > 1 else None
        dollars = float(np.mean([report["dollars"] for report in found]))
        return Point(self.name, labels, float(accuracy.mean()), spread, dollars)


@dataclass(frozen=True)
class Outcome:
    """All trials of a sweep as they stand. `shared` are the seconds that were spent before any of them, for all."""

    home: str
    results: list[Result]
    shared: Mapping[str, float] = field(default_factory=dict)

    @functools.cached_property
    def configurations(self) -> list[Configuration]:
        """The configurations, in the order of the grid."""
        names = dict.fromkeys(one.trial.configuration for one in self.results)
        return [Configuration(n, tuple(r for r in self.results if r.trial.configuration == n)) for n in names]

    @property
    def points(self) -> list[Point]:
        """Every point of every mean curve."""
        return [point for one in self.configurations for point in one.points]

    @property
    def failed(self) -> list[Result]:
        """The trials that failed, each with its error."""
        return [one for one in self.results if one.state == "failed"]

    @property
    def priced(self) -> bool:
        """Whether anything costs dollars; if nothing does, labels are what a configuration costs."""
        return any(point.dollars for point in self.points)

    def wins(self) -> Wins | None:
        """Return which configuration beats which, of those that ran to their end; None where that cannot be said."""
        groups = [_group(one) for one in self.configurations if one.done and one.even]
        return wins(groups) if groups else None


def collect(
    home: str,
    planned: Sequence[Trial],
    stopped: Collection[str],
    failed: Mapping[str, str],
    shared: Mapping[str, float],
) -> Outcome:
    """Read how all trials stand; `failed` are the errors of this command, by trial."""
    return Outcome(home, list(_results(planned, stopped, failed)), shared)


def _results(planned: Sequence[Trial], stopped: Collection[str], failed: Mapping[str, str]) -> Iterator[Result]:
    for one in planned:
        found = trials.existing(one.settings.run)
        error = failed.get(one.name) or (found.message if found and found.state == "failed" else "")
        yield Result(one, state_of(found, one.name in stopped, error), found, error)


def state_of(status: Status | None, stopped: bool, error: str) -> State:
    """Return how a trial stands: what its ledger says first, then what was decided of it."""
    if status is not None and status.state == "done":
        return "done"
    if stopped:
        return "stopped"
    if error:
        return "failed"
    if status is None:
        return "not begun"
    return "waiting" if status.state == "waiting" else "cut"


def _group(one: Configuration) -> Group:
    return Group(one.name, tuple(read(result.trial.settings.run) for result in one.results))
