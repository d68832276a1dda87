"""Training: from labelled rows to a head, or to a backbone and a head."""

from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.runtime import Runtime
from alray.training.auto import Auto
from alray.training.base import Recipe, Trained
from alray.training.fine_tune import FineTune
from alray.training.linear_probe import LinearProbe
from alray.training.lp_ft import LpFt
from alray.training.probe import HeadConfig, fit_head
from alray.training.rows import TrainSet

__all__ = [
    "RECIPES",
    "Auto",
    "FineTune",
    "HeadConfig",
    "LinearProbe",
    "LpFt",
    "Recipe",
    "TrainSet",
    "Trained",
    "fit_head",
    "run",
]

RECIPES: dict[str, type[Recipe]] = {
    "auto": Auto,
    "fine_tune": FineTune,
    "linear_probe": LinearProbe,
    "lp_ft": LpFt,
}


def run(
    recipe: Recipe,
    rows: TrainSet,
    backbone: BackboneConfig,
    head: Head | None,
    runtime: Runtime,
    *,
    name: str,
    folder: str,
    seed: int,
    holdout: TrainSet | None = None,
) -> Trained:
    """Train by a recipe; see `Recipe.train`."""
    return recipe.train(rows, backbone, head, runtime, name=name, folder=folder, seed=seed, holdout=holdout)
