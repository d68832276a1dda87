"""Runs made by hand: what `read` would return for campaigns with these numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alray.reports.curves import Curve, Hours
from alray.reports.runs import Run
from alray.reports.savings import Prices

COSTS = {"label": 0.1, "cpu_hour": 0.5, "gpu_hour": 2.0}


def made(
    regime: str,
    strategy: str,
    seed: int,
    accuracy: Sequence[float],
    *,
    labels: Sequence[float] | None = None,
    gpu: float = 0.0,
    material: tuple[object, ...] = ("pool", "test", (), ()),
    **settings: Any,
) -> Run:
    """Return a run with a point every 100 labels, each of which took `gpu` GPU-hours and as many core-hours."""
    budgets = [100.0 * (n + 1) for n in range(len(accuracy))] if labels is None else list(labels)
    hours = [Hours(gpu * (n + 1), gpu * (n + 1), gpu * (n + 1)) for n in range(len(budgets))]
    told = {"seed": seed, "regime": regime, "strategy": {"name": strategy}, "switch": "off", "costs": COSTS}
    return Run(
        folder=f"runs/{regime}-{strategy}-{seed}",
        state="done",
        settings={**told, "run": f"runs/{regime}-{strategy}-{seed}", **settings},
        prices=Prices(**{**COSTS, **settings.get("costs", {})}),
        curve=Curve.of(budgets, accuracy, hours, paid=[0.1 * n for n in budgets]),
        startup=Hours(0.1, 0.2, 0.1),
        total=Hours(9, 9, 9),
        labels=int(budgets[-1]),
        label_dollars=0.1 * budgets[-1],
        material=material,
    )


def three_ways(seeds: Sequence[int] = (0, 1, 2)) -> list[Run]:
    """Return random to twice the budget, and margin by the three regimes: slow and good, quick and worse, between."""
    runs = []
    for seed in seeds:
        lift = 0.001 * seed
        slow = [0.5 + lift, 0.65 + lift, 0.75 + lift, 0.8 + lift]
        runs += [
            made("standard", "margin", seed, slow, gpu=2.0),
            made("svpp", "margin", seed, [a - 0.03 for a in slow], gpu=0.01),
            made("asvp", "margin", seed, [a - 0.004 for a in slow], gpu=0.3, switch="logme_ped"),
            made("standard", "random", seed, [0.44, 0.5, 0.57, 0.64, 0.7, 0.75, 0.78, 0.79 + lift]),
        ]
    return runs
