"""Settings of strategies that the contract is checked on: the plain ones, made quick, and those that take other paths.

Add a line when a field makes a strategy compute something else; all of tests/strategies/test_contract.py runs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alray.strategies import STRATEGIES, Strategy, find
from alray.training.probe import HeadConfig

QUICK: Mapping[str, dict[str, Any]] = {
    "active_ft": {"iterations": 20},
    "core_gcn": {"epochs": 10, "hidden": 16},
    "learning_loss": {"epochs": 5, "width": 16},
    "uncertain_gcn": {"epochs": 10, "hidden": 16},
}
"""Fewer steps of the same work: the contract is about rows and workers, not about how well a module is trained."""

PLAIN: dict[str, dict[str, Any]] = {name: {"name": name, **QUICK.get(name, {})} for name in sorted(STRATEGIES())}
"""Every strategy as it is without settings, but for what would only take time."""

VARIANTS: dict[str, dict[str, Any]] = {
    "alfa_mix random": {"name": "alfa_mix", "alpha": "random"},
    "alfa_mix learned": {"name": "alfa_mix", "alpha": "learned", "diversify": "norm"},
    "alfa_mix kept": {"name": "alfa_mix", "alpha": "learned", "keep_optimizer": True, "diversify": "uniform"},
    "alfa_mix k-centre": {"name": "alfa_mix", "diversify": "kcenter", "absent_class": "skip"},
    "alfa_mix divergence": {"name": "alfa_mix", "diversify": "symmetric_kl", "freeze_equal": True},
    "alfa_mix one cap": {"name": "alfa_mix", "cap_step": 0.05, "cap_max": 0.05, "shortlist_multiple": 2.0},
    "alfa_mix mlp": {"name": "alfa_mix", "head": "mlp"},
    "badge first at random": {"name": "badge", "first": "uniform"},
    "badge two rounds": {"name": "badge", "rounds": "two_round"},
    "badge mlp": {"name": "badge", "head": "mlp"},
    "bald features": {"name": "bald", "where": "features", "draws": 4, "head": "mlp"},
    "cdal twice": {"name": "cdal", "double_softmax": True},
    "cluster_margin few": {"name": "cluster_margin", "multiple": 2, "clusters": 10, "micro": 40},
    "cluster_margin distance": {"name": "cluster_margin", "distance": 0.4},
    "coreset two rounds": {"name": "coreset", "rounds": "two_round"},
    "deepfool walked": {"name": "deepfool", "where": "features", "head": "mlp", "iterations": 10},
    "diverse bald": {"name": "diverse", "base": {"name": "bald", "draws": 4}},
    "diverse random": {"name": "diverse", "base": "random", "multiple": 3},
    "drop_query few": {"name": "drop_query", "multiple": 2, "draws": 2},
    "isal exact": {"name": "isal", "curvature": "exact", "damping": 0.1, "top_k": 2},
    "isal lissa": {"name": "isal", "solver": "lissa", "lissa": {"depth": 20, "repetitions": 1}, "weighted": True},
    "kmeans_pp two rounds": {"name": "kmeans_pp", "rounds": "two_round"},
    "power_bald flat": {"name": "power_bald", "beta": 0.0, "draws": 4},
    "prob_cover sample": {"name": "prob_cover", "radius": 0.3, "most": 100},
    "typiclust few": {"name": "typiclust", "clusters": 7, "most": 30, "neighbours": 3},
}
"""Settings that take other paths. `head: mlp` has an MLP fitted in place of a linear head."""

CASES = PLAIN | VARIANTS


def built(case: str) -> Strategy:
    """Return the strategy of a case."""
    return find({field: value for field, value in CASES[case].items() if field != "head"})


def exact(case: str) -> bool:
    """Whether any cut of the pool has to give the same picks."""
    strategy = built(case)
    return strategy.exact and strategy.diversity.exact


def head_of(case: str) -> HeadConfig:
    """Return the settings of the head that is fitted for a case."""
    mlp = HeadConfig(kind="mlp", hidden=8, epochs=10)
    return mlp if CASES[case].get("head") == "mlp" else HeadConfig()
