"""What is drawn is drawn anew for every seed and every round, and what is not drawn asks neither.

Each case leaves one draw to decide: pools, settings and budgets are such that another number means other picks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import builders
import numpy as np
import pytest
from variants import QUICK

from alray.models.head import Head
from alray.selection import select
from alray.strategies import STRATEGIES, find
from alray.strategies.base import HEAD_NEEDS

DIM = 6


class Case(NamedTuple):
    """A strategy's settings, how many picks, whether there are labels, and what else the selection is told."""

    strategy: dict[str, Any]
    budget: int = 15
    labelled: bool = True
    regime: str = "central"


DRAWS = {
    "uniform numbers": Case({"name": "random"}),
    "masks": Case({"name": "bald", "draws": 3}),
    "masks, then clusters": Case({"name": "drop_query"}),
    "chances": Case({"name": "power_bald", "beta": 0.0}),  # all chances are alike, whatever the masks
    "first centre": Case({"name": "coreset"}, 1, labelled=False),
    "first centre of probabilities": Case({"name": "cdal"}, 1, labelled=False),
    "first centre of a race": Case({"name": "kmeans_pp"}, 1, labelled=False),
    "first gradient": Case({"name": "badge", "first": "uniform"}, 1),
    "race": Case({"name": "kmeans_pp"}),
    "race of blocks": Case({"name": "kmeans_pp", "rounds": "two_round"}),
    "race of gradients": Case({"name": "badge"}),
    "rows of a large cluster": Case({"name": "typiclust", "clusters": 1, "most": 30}),
    "centroids": Case({"name": "kmeans"}),
    "centroids of blocks": Case({"name": "kmeans"}, regime="coreset"),
    "centroids of the best": Case({"name": "diverse"}),
    "centroids of candidates": Case({"name": "alfa_mix"}),
    "candidates": Case({"name": "alfa_mix", "diversify": "uniform"}),
    "mixing weights": Case({"name": "alfa_mix", "alpha": "random", "diversify": "norm"}),
    "fill": Case({"name": "alfa_mix", "cap_step": 0.002, "cap_max": 0.002}, 60),
    "rows of clusters in turn": Case({"name": "cluster_margin", "clusters": 4}),
    "rows to begin with": Case({"name": "active_ft", **QUICK["active_ft"]}),
    "ties": Case({"name": "prob_cover", "radius": 0.5}),
    "weights and dropout": Case({"name": "uncertain_gcn", **QUICK["uncertain_gcn"]}),
    "weights and dropout of a graph": Case({"name": "core_gcn", **QUICK["core_gcn"]}),
    "weights and pairs": Case({"name": "learning_loss", **QUICK["learning_loss"]}),
}
STILL = ["cdal", "coreset", "deepfool", "entropy", "least_confidence", "margin"]


def digests(case: Case, folder: Path, keys: list[tuple[int, int]]) -> list[str]:
    """Return the picks' digests for these seeds and rounds, all with one head."""
    path, _, names, truth = builders.features_pool(folder, files=(90, 110), dim=DIM)
    labels = {names[i]: truth[i] for i in range(0, 200, 9)} if case.labelled else None
    weight = np.random.default_rng(0).normal(size=(4, DIM))
    head = Head.linear(weight, np.zeros(4), [f"class-{c}" for c in range(4)])
    more: dict[str, Any] = {"budget": case.budget, "labels": labels, "regime": case.regime}
    more["head"] = head if find(case.strategy).wants & HEAD_NEEDS else None
    return [select(case.strategy, path, seed=seed, round=r, **more).picks.digest() for seed, r in keys]


@pytest.mark.parametrize("case", DRAWS)
def test_another_seed_and_another_round_draw_other_numbers(case: str, tmp_path: Path) -> None:
    found = digests(DRAWS[case], tmp_path, [(0, 0), (1, 0), (0, 1), (0, 2)])
    assert len(set(found)) == 4


@pytest.mark.parametrize("name", STILL)
def test_what_draws_nothing_gives_the_same_picks_for_any_seed_and_round(name: str, tmp_path: Path) -> None:
    assert len(set(digests(Case({"name": name}), tmp_path, [(0, 0), (1, 0), (0, 1)]))) == 1


def test_a_reference_set_is_the_seeds_and_not_the_rounds(tmp_path: Path) -> None:
    first, again, other = digests(Case({"name": "isal"}), tmp_path, [(0, 0), (0, 1), (1, 0)])
    assert first == again != other


def test_every_strategy_is_one_of_these() -> None:
    assert {case.strategy["name"] for case in DRAWS.values()} | {*STILL, "isal"} == set(STRATEGIES())
