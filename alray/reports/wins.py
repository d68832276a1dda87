"""How often each group beats each other one, budget by budget, on the seeds that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alray.reports.groups import Group
from alray.reports.significance import beaten, win_matrix


@dataclass(frozen=True)
class Wins:
    """Win matrices of the groups that have the same seeds, over the budgets that all of them have but the first.

    `matrix[i][j]` is the share of `budgets` at which group i is significantly better than group j (two-sided 5 %) by a
    paired t with the sample's deviation, `lax` the same with the population's, as published win matrices have it.
    `beaten` is the mean of a column over the others: lower is better.
    """

    groups: list[str]
    seeds: list[int]
    budgets: list[int]
    matrix: list[list[float]]
    beaten: list[float]
    lax: list[list[float]]
    lax_beaten: list[float]


def wins(groups: Sequence[Group]) -> Wins | None:
    """Return the win matrices; None where fewer than two groups share two seeds or more, and a later budget."""
    seeds = [tuple(sorted(g.repeats.by_seed)) for g in groups]
    common = max(dict.fromkeys(seeds), key=seeds.count)
    alike = [g for g, mine in zip(groups, seeds, strict=True) if mine == common]
    budgets = sorted(set.intersection(*(set(g.repeats.mean.labels_P.tolist()) for g in alike)))[1:]
    if len(common) < 2 or len(alike) < 2 or not budgets:
        return None
    cells = {g.name: _scores(g, common, budgets) for g in alike}
    names, strict = win_matrix([cells])
    _, lax = win_matrix([cells], ddof=0)
    counts = [round(labels) for labels in budgets]
    both = [strict.tolist(), beaten(strict).tolist(), lax.tolist(), beaten(lax).tolist()]
    return Wins(names, list(common), counts, *both)


def _scores(group: Group, seeds: Sequence[int], budgets: Sequence[float]) -> np.ndarray:
    """Return the accuracy at each budget with each seed, [R, S]."""
    at = np.searchsorted(group.repeats.mean.labels_P, budgets)
    return np.stack([group.repeats.by_seed[seed].accuracy_P[at] for seed in seeds], axis=1)
