"""What a round delivers, and how good it is: its head, or the model that `training.recipe` makes of its labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alray import storage, training
from alray.campaign import measure
from alray.campaign.material import Test
from alray.campaign.rounds import ALIGNED, TRAINED, Round
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.errors import TrainingError
from alray.models import Head
from alray.training import LinearProbe, Recipe, TrainSet, evaluate


@dataclass(frozen=True)
class Model:
    """A head on the campaign's features, or a checkpoint: a folder with a backbone and its own head."""

    name: str
    head: Head
    checkpoint: str | None = None


def trains(place: Workplace, *, last: bool) -> bool:
    """Say whether a round's recipe does more than fit the head that the round has already."""
    config = place.settings.training
    return not isinstance(config.recipe, LinearProbe) and (last or config.when == "every")


def train(place: Workplace, round: Round, head: Head, rows: Split, *, updated: bool) -> Model:
    """Train by the recipe, once; the checkpoint is in the round's folder, and trained.json says that it is whole.

    `updated`: the features in force are not the pre-trained ones. Training starts from the pre-trained backbone all the
    same, so that a head on other features is of no use to it.
    """
    recipe = place.settings.training.recipe.choose(updated)
    if not round.has(TRAINED):
        made = _made_already(round, recipe) or tune(
            place, round, recipe, rows.train, rows.holdout, None if updated else head, head.classes
        )
        round.commit(TRAINED, {"schema": 1, **made})
    made = round.json(TRAINED)
    return Model(made["recipe"], head, checkpoint(round, made))


def tune(
    place: Workplace,
    round: Round,
    recipe: Recipe,
    rows: Mapping[str, str],
    holdout: Mapping[str, str],
    head: Head | None,
    classes: tuple[str, ...],
    *,
    stage: str = "train",
    folder: str = "checkpoint",
) -> dict[str, Any]:
    """Train on `rows` from the pre-trained backbone; return recipe, folder, checkpoint within it, and history.

    The `holdout` is shown only to a recipe that stops by it: rows that have chosen an epoch flatter it.
    """
    backbone, watched = place.pretrained, holdout if recipe.stops_early else {}
    place.release()
    runtime = place.runtime
    with place.meter.stage(stage, round.number):
        made = training.run(
            recipe,
            _rows(place, rows, classes),
            backbone,
            head,
            runtime,
            name=f"{round.ledger.name()}-{round.number:04d}",
            folder=round.uri(folder),
            seed=place.settings.seed,
            holdout=_rows(place, watched, classes) if watched else None,
        )
    where = _within(made.checkpoint, round.uri(folder))
    told = {"recipe": name_of(recipe), "settings": recipe.model_dump(mode="json")}
    return {**told, "folder": folder, "checkpoint": where, "history": made.history}


def checkpoint(round: Round, made: Mapping[str, Any]) -> str:
    """Return where the checkpoint is that `tune` made."""
    return storage.join(round.uri(made["folder"]), made["checkpoint"])


def name_of(recipe: Recipe) -> str:
    """Return the name that settings call this recipe by."""
    return next(name for name, member in training.RECIPES.items() if type(recipe) is member)


def accuracy(place: Workplace, round: Round, model: Model, test: Test) -> dict[str, Any]:
    """Return the metrics of a model on the test rows; unreadable rows and unknown classes count as wrong."""
    if model.checkpoint is None:
        features, runtime = place.test_features, place.runtime
        with place.meter.stage("test", round.number):
            return measure.head_metrics(model.head, features, test.labels, runtime)
    place.release()
    rows = TrainSet(test.pool, list(test.labels), list(test.labels.values()), model.head.classes)
    runtime = place.runtime
    with place.meter.stage("test", round.number):
        return evaluate.accuracy(evaluate.Model.of_checkpoint(model.checkpoint), rows, runtime)


def _made_already(round: Round, recipe: Recipe) -> dict[str, Any] | None:
    """Return this round's alignment if it is what the recipe would make again: the same training on the same rows."""
    if not round.has(ALIGNED):
        return None
    made = round.json(ALIGNED)
    same = (name_of(recipe), recipe.model_dump(mode="json"))
    if not made["accepted"] or (made["recipe"], made["settings"]) != same:
        return None
    return {key: made[key] for key in ("recipe", "settings", "folder", "checkpoint", "history")}


def _rows(place: Workplace, labels: Mapping[str, str], classes: tuple[str, ...]) -> TrainSet:
    return TrainSet(place.material.pool, list(labels), list(labels.values()), classes)


def _within(checkpoint: str | None, folder: str) -> str:
    """Return the checkpoint's path within the round's folder of checkpoints, so that a run can be moved."""
    if checkpoint is None or not checkpoint.startswith(f"{folder}/"):
        raise TrainingError(f"The training run ended with the checkpoint {checkpoint}; expected one in {folder}.")
    return checkpoint.removeprefix(f"{folder}/")
