"""What a round delivers, and how good it is: its head, or the model that `training.recipe` makes of its labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alray import storage, training
from alray.campaign import measure
from alray.campaign.material import Test
from alray.campaign.rounds import TRAINED, Round
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.errors import TrainingError
from alray.models import Head
from alray.training import LinearProbe, TrainSet, evaluate


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


def train(place: Workplace, round: Round, head: Head, rows: Split) -> Model:
    """Train by the recipe, once; the checkpoint is in the round's folder, and trained.json says that it is whole."""
    settings, recipe = place.settings, place.settings.training.recipe
    name = next(n for n, member in training.RECIPES.items() if type(recipe) is member)
    if not round.has(TRAINED):
        place.release()
        runtime = place.runtime
        with place.meter.stage("train", round.number):
            made = training.run(
                recipe,
                _rows(place, rows.train, head),
                settings.features,
                head,
                runtime,
                name=f"{round.ledger.name()}-{round.number:04d}",
                folder=round.uri("checkpoint"),
                seed=settings.seed,
                holdout=_rows(place, rows.holdout, head) if rows.holdout else None,
            )
            where = _within(made.checkpoint, round.uri("checkpoint"))
            round.commit(TRAINED, {"schema": 1, "recipe": name, "checkpoint": where, "history": made.history})
    return Model(name, head, storage.join(round.uri("checkpoint"), round.json(TRAINED)["checkpoint"]))


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


def _rows(place: Workplace, labels: dict[str, str], head: Head) -> TrainSet:
    return TrainSet(place.material.pool, list(labels), list(labels.values()), head.classes)


def _within(checkpoint: str | None, folder: str) -> str:
    """Return the checkpoint's path within the round's folder of checkpoints, so that a run can be moved."""
    if checkpoint is None or not checkpoint.startswith(f"{folder}/"):
        raise TrainingError(f"The training run ended with the checkpoint {checkpoint}; expected one in {folder}.")
    return checkpoint.removeprefix(f"{folder}/")
