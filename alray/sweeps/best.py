"""The Pareto front of cost and accuracy, and the best configuration by a rule that is said with it.

Only configurations count all of whose seeds ran to their end, by their mean over seeds. With a target the best is the
one whose mean accuracy comes to it at the lowest mean cost; without one, or if none comes to it, the one with the
highest mean accuracy at its end. What costs more than `dollars` is left out. Ties go to the cheaper, then to fewer
labels, then by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alray import config, storage
from alray.campaign import Settings
from alray.sweeps.outcome import Configuration, Outcome, Point
from alray.sweeps.settings import BestConfig

RUN = "best"
"""Folder of the run that `best.yaml` names, beside the trials: it is another campaign."""

CAVEAT = (
    "It was chosen by its accuracy on the test rows, which is therefore flattering: measure it on rows that no trial "
    "was tested on."
)


@dataclass(frozen=True)
class Best:
    """The best configuration, the point of its curve that it is judged by, and the rule in words."""

    configuration: Configuration
    point: Point
    rule: str


def front(points: Sequence[Point], *, priced: bool = True) -> list[Point]:
    """Return the points that no other one beats: none is as cheap and as accurate, and better in one; cheapest first.

    The cost is in dollars, or in labels where nothing is `priced`. Of equal points all are kept.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda p: (cost(p, priced), -p.accuracy)):
        last = found[-1] if found else None
        same = last is not None and (cost(last, priced), last.accuracy) == (cost(point, priced), point.accuracy)
        if last is None or same or point.accuracy > last.accuracy:
            found.append(point)
    return found


def cost(point: Point, priced: bool) -> float:
    """Return what a point costs."""
    return point.dollars if priced else point.labels


def best(outcome: Outcome, rule: BestConfig) -> Best | None:
    """Return the best configuration; None where none ran to its end, or all are too dear."""
    done = [one for one in outcome.configurations if one.done and one.points]
    limit = "" if rule.dollars is None else f", for at most ${rule.dollars:g} on average"
    missed = ""
    if rule.target is not None:
        reached = [(one, point) for one in done if (point := _first(one, rule)) is not None]
        if reached:
            one, point = min(reached, key=lambda pair: _cheap(pair[1], outcome.priced))
            what = "cost" if outcome.priced else "labels"
            return Best(one, point, f"lowest mean {what} to a mean accuracy of {rule.target:g} over seeds{limit}")
        missed = f" (no configuration comes to a mean accuracy of {rule.target:g}{limit})"
    ends = [(one, one.points[-1]) for one in done if _affordable(one.points[-1], rule)]
    if not ends:
        return None
    one, point = min(ends, key=lambda pair: (-pair[1].accuracy, *_cheap(pair[1], outcome.priced)))
    return Best(one, point, f"highest mean accuracy over seeds at the end{limit}{missed}")


def settings(found: Best, folder: str, seed: int) -> Settings:
    """Return the best configuration as a campaign with a run of its own below `folder`; its labels end at its point."""
    own = found.configuration.results[0].trial.settings
    budget = own.budget.model_copy(update={"total": round(found.point.labels)})
    return own.model_copy(update={"run": storage.join(folder, RUN), "seed": seed, "budget": budget})


def as_yaml(found: Best, folder: str, seed: int) -> str:
    """Return `best.yaml`: the campaign, below a comment that says what it is and why."""
    point, seeds = found.point, len(found.configuration.results)
    spread = "" if point.deviation is None else f" ± {point.deviation:.4f}"
    told = [
        f"The best configuration of the sweep in {folder}: {found.configuration.name}.",
        f"Chosen by: {found.rule}.",
        f"Mean of {seeds} seeds: {point.accuracy:.4f}{spread} at {point.labels:g} labels, ${point.dollars:.2f}.",
        CAVEAT,
    ]
    comment = "".join(f"# {' '.join(line.split())}\n" for line in told)
    return f"{comment}\n{config.dump(settings(found, folder, seed))}"


def _first(one: Configuration, rule: BestConfig) -> Point | None:
    assert rule.target is not None
    return next((p for p in one.points if p.accuracy >= rule.target and _affordable(p, rule)), None)


def _affordable(point: Point, rule: BestConfig) -> bool:
    return rule.dollars is None or point.dollars <= rule.dollars


def _cheap(point: Point, priced: bool) -> tuple[float, float, str]:
    return cost(point, priced), point.labels, point.configuration
