"""The report on groups of runs: accuracy at every budget, and what a target accuracy took and saved.

Every number that a group is judged by stands beside what it stands against: the reference that labels are saved from
(runs of the strategy `random`), and the baseline that the overall cost is compared with (the regime `standard`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from alray.errors import ConfigError
from alray.reports import alike, savings
from alray.reports.against import Against, baseline_of, reference_of
from alray.reports.break_even import BreakEvenMap, break_even_label_price, break_even_map
from alray.reports.curves import Hours
from alray.reports.groups import Group
from alray.reports.repeats import Estimate, Outside, estimate
from alray.reports.savings import Need, Prices
from alray.reports.wins import Wins, wins

SEEDS_ONLY = (
    "Intervals are over seeds only: what all seeds share is in no interval, as one pre-trained backbone, the pool and "
    "the test rows."
)
PROXY_MEASURED = (
    "Accuracies before a run's last budget are those of its proxy, and not of the model that is delivered: "
    "`training.when` is last."
)
SURE = 0.05
"""The target that is chosen where none is given is reached in all but this share of the draws of every group."""


@dataclass(frozen=True)
class BudgetRow:
    """One group at one budget: mean accuracy over seeds, its deviation, hours until the labels were asked for."""

    group: str
    labels: int
    seeds: int
    accuracy: float
    deviation: float | None
    hours: Hours
    saving: Estimate


@dataclass(frozen=True)
class TargetRow:
    """What the target took one group, and what that saved. Dollars are labels and sampling at the report's prices.

    `break_even` is the label price at which the group and its baseline cost the same. A number that the curves do not
    define is None, and the estimate beside it says why.
    """

    group: str
    reference: str | None
    baseline: str | None
    labels: Estimate
    hours: Hours | None
    label_dollars: float | None
    compute_dollars: float | None
    dollars: Estimate
    reduction: Estimate
    saving: Estimate
    equivalent: Estimate
    break_even: float | None


@dataclass(frozen=True)
class GroupRow:
    """One group: its runs and labels; its hours of sampling, of starting workers and in all, mean over seeds.

    `quicker` is the baseline's sampling hours over the group's, by the clock, at the last budget that both have.
    """

    group: str
    seeds: list[int]
    runs: list[str]
    labels: int
    sampling: Hours
    startup: Hours
    total: Hours
    baseline: str | None
    quicker: Estimate


@dataclass(frozen=True)
class Report:
    """Everything that `alray report` prints."""

    groups: list[GroupRow]
    budgets: list[BudgetRow]
    target: float | None
    prices: Prices
    targets: list[TargetRow]
    map: BreakEvenMap | None
    wins: Wins | None
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"schema": 1, **asdict(self)}


def report(
    groups: Sequence[Group],
    *,
    reference: str | None = None,
    baseline: str | None = None,
    target: float | None = None,
    prices: Prices | None = None,
) -> Report:
    """Compare groups. `reference` is a strategy or `regime/strategy`, `baseline` a regime or `regime/strategy`.

    Raises RunError where one is given that no run belongs to and where groups measure different models, ConfigError for
    a target that is no accuracy.
    """
    alike.refuse_other_measures(groups)
    goal, notes = _target(groups, target)
    priced = prices or charged(groups)
    references = {g.name: reference_of(g, groups, reference) for g in groups}
    baselines = {g.name: baseline_of(g, groups, baseline) for g in groups}
    needs = _needs(groups, goal)
    if goal is not None and not needs:
        notes.append(
            f"No curve has {goal:g} between its first and its last budget: there is no cost of it, and no map."
        )
    return Report(
        groups=[_group_row(g, baselines[g.name]) for g in groups],
        budgets=[row for g in groups for row in _budget_rows(g, references[g.name])],
        target=goal,
        prices=priced,
        targets=[_target_row(g, goal, priced, references[g.name], baselines[g.name]) for g in groups] if goal else [],
        map=break_even_map(needs, priced) if needs else None,
        wins=wins(groups),
        notes=[*notes, *_about(groups)],
    )


def _about(groups: Sequence[Group]) -> list[str]:
    """Return what is to be said about any comparison of these groups."""
    proxies = [PROXY_MEASURED] if alike.proxy_measured(groups[0].runs[0]) else []
    return [*proxies, *alike.differences(groups), SEEDS_ONLY]


def charged(groups: Sequence[Group]) -> Prices:
    """Return the prices that the runs were told: labels at what each run was charged, which is `label` on average.

    Raises ConfigError where runs were told different ones.
    """
    runs = [run for group in groups for run in group.runs]
    told = {str(run.settings["costs"]): run for run in runs}
    if len(told) > 1:
        one, other = list(told.values())[:2]
        raise ConfigError(
            f"{one.folder} and {other.folder} were told different prices in `costs`: {one.settings['costs']} and "
            f"{other.settings['costs']}. Say which count: give --label-price, --cpu-hour and --gpu-hour."
        )
    prices, labels = runs[0].prices, sum(run.labels for run in runs)
    paid = math.fsum(run.label_dollars for run in runs) / labels if labels else prices.label
    return Prices(round(paid, 9), prices.cpu_hour, prices.gpu_hour, as_paid=True)


# Rows


def _group_row(group: Group, baseline: Against) -> GroupRow:
    curve = group.repeats.mean
    return GroupRow(
        group=group.name,
        seeds=sorted(group.repeats.by_seed),
        runs=[run.folder for run in group.runs],
        labels=round(curve.labels_P[-1]),
        sampling=Hours(*curve.hours_P3[-1].tolist()),
        startup=_mean([run.startup for run in group.runs]),
        total=_mean([run.total for run in group.runs]),
        baseline=baseline.name,
        quicker=baseline.estimate(savings.quicker, group),
    )


def _mean(hours: Sequence[Hours]) -> Hours:
    return Hours(*np.mean([(one.wall, one.cpu, one.gpu) for one in hours], axis=0).tolist())


def _budget_rows(group: Group, reference: Against) -> list[BudgetRow]:
    curve, deviation_P = group.repeats.mean, group.repeats.deviation_P()
    return [
        BudgetRow(
            group=group.name,
            labels=round(labels),
            seeds=len(group.runs),
            accuracy=float(curve.accuracy_P[p]),
            deviation=None if deviation_P is None else float(deviation_P[p]),
            hours=Hours(*curve.hours_P3[p].tolist()),
            saving=reference.estimate(partial(savings.saving_at, labels), group),
        )
        for p, labels in enumerate(curve.labels_P.tolist())
    ]


def _target_row(group: Group, goal: float, prices: Prices, reference: Against, baseline: Against) -> TargetRow:
    mine = _need(group, goal)
    theirs = _need(baseline.group, goal) if baseline.group is not None and baseline.group is not group else None
    return TargetRow(
        group=group.name,
        reference=reference.name,
        baseline=baseline.name,
        labels=estimate(partial(savings.labels_for, goal), group.repeats),
        hours=mine.hours if mine else None,
        label_dollars=mine.label_dollars(prices) if mine else None,
        compute_dollars=mine.compute_dollars(prices) if mine else None,
        dollars=estimate(partial(savings.cost_for, goal, prices), group.repeats),
        reduction=baseline.estimate(partial(savings.cost_reduction, goal, prices), group),
        saving=reference.estimate(partial(savings.saving_for, goal), group),
        equivalent=reference.estimate(partial(savings.equivalent_saving, goal, prices), group),
        break_even=break_even_label_price(mine, theirs, prices) if mine and theirs else None,
    )


def _need(group: Group, goal: float) -> Need | None:
    try:
        return savings.need(goal, group.repeats.mean)
    except Outside:
        return None


def _needs(groups: Sequence[Group], goal: float | None) -> dict[str, Need]:
    found = {g.name: _need(g, goal) for g in groups} if goal is not None else {}
    return {name: one for name, one in found.items() if one is not None}


# What stands against what


def _target(groups: Sequence[Group], given: float | None) -> tuple[float | None, list[str]]:
    """Return the target, and what is to be said about it."""
    if given is not None:
        if not 0 < given <= 1:
            raise ConfigError(f"The target is {given:g}; expected an accuracy above 0 and up to 1, as in 0.9.")
        return given, []
    least = max(float(g.repeats.mean.fitted_P[0]) for g in groups)
    most = min(_surely(g) for g in groups)
    if most < least:
        return None, ["No accuracy is reached by all groups within their budgets. Give --target to compare some."]
    rounded = math.floor(most * 1000) / 1000
    return max(rounded, least), ["The target is the highest accuracy that every group reaches, surely enough."]


def _surely(group: Group) -> float:
    if len(group.runs) < 2:
        return group.repeats.mean.best
    return min(group.repeats.mean.best, float(np.quantile([curve.best for curve in group.repeats.resampled], SURE)))
