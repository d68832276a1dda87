"""The settings that fine-tuning and LP-FT share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from alray.config import Config
from alray.models.transform import Augmentation
from alray.training.probe import ClassWeights


class TuneSettings(Config):
    """How the whole model is trained; the learning rate falls from `lr` to zero by a cosine."""

    epochs: int = Field(30, ge=1)
    batch: int = Field(64, ge=1)  # rows a step, over all workers together
    lr: float = Field(0.01, gt=0)
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: ClassWeights = "none"
    augmentation: Augmentation = "crop"  # none | crop | crop_flip; a digit, or any text, must not be flipped
    patience: int | None = Field(None, ge=1)  # epochs without a better holdout after which to stop; needs a holdout
    workers: int | None = Field(None, ge=1)  # processes; default: `runtime.workers`
    cache_bytes: int = Field(2 * 2**30, ge=0)  # of pictures that each worker keeps in memory
    max_failures: int = Field(2, ge=0)  # times that lost workers are started again
