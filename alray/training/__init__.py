"""Training: from labelled rows to a head, or to a backbone and a head."""

from alray.config import family
from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.runtime import Runtime
from alray.training.base import Recipe, Trained
from alray.training.fine_tune import FineTune
from alray.training.linear_probe import LinearProbe
from alray.training.lp_ft import LpFt
from alray.training.probe import HeadConfig, fit_head
from alray.training.rows import TrainSet

__all__ = [
    "RECIPES",
    "FineTune",
    "HeadConfig",
    "LinearProbe",
    "LpFt",
    "Recipe",
    "TrainSet",
    "Trained",
    "fit_head",
    "recipes",
    "run",
]

RECIPES: dict[str, type[Recipe]] = {"linear_probe": LinearProbe, "fine_tune": FineTune, "lp_ft": LpFt}

recipes = family(Recipe, RECIPES, tag="recipe")
"""The recipes by name, for a settings field: `training: Annotated[Recipe, recipes]`."""


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
