"""The pictures of a sweep: learning curves with bands over seeds, the front of cost and accuracy, who beats whom."""

from __future__ import annotations

from alray.sweeps import svg
from alray.sweeps.best import cost, front
from alray.sweeps.outcome import Configuration, Outcome
from alray.sweeps.svg import Series


def plots(outcome: Outcome) -> dict[str, str]:
    """Return file name → SVG of what can be drawn: nothing before a first round, no matrix without two seeds."""
    drawn = [one for one in outcome.configurations if one.points]
    if not drawn:
        return {}
    found = {"curves.svg": _curves(drawn), "pareto.svg": _pareto(outcome, drawn)}
    if (beats := outcome.wins()) is not None:
        about = f"Share of {len(beats.budgets)} budgets at which the row beats the column"
        found["wins.svg"] = svg.matrix(about, beats.groups, beats.matrix)
    return found


def _curves(drawn: list[Configuration]) -> str:
    seeds = max(len(one.results) for one in drawn)
    band = f"mean of {seeds} seeds ± one standard deviation" if seeds > 1 else "one seed"
    series = [Series(one.name, [(p.labels, p.accuracy) for p in one.points], _band(one)) for one in drawn]
    return svg.curves(f"Learning curves: {band}", "labels", "test accuracy", series)


def _band(one: Configuration) -> list[svg.Pair]:
    return [(p.accuracy - p.deviation, p.accuracy + p.deviation) for p in one.points if p.deviation is not None]


def _pareto(outcome: Outcome, drawn: list[Configuration]) -> str:
    priced = outcome.priced
    series = [Series(one.name, [(cost(p, priced), p.accuracy) for p in one.points]) for one in drawn]
    best = [(cost(p, priced), p.accuracy) for p in front(outcome.points, priced=priced)]
    across = "dollars: labels and computing" if priced else "labels (nothing has a price)"
    return svg.scatter("Cost and accuracy; the dashed line is not beaten", across, "test accuracy", series, best)
