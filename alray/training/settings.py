"""The settings that fine-tuning and LP-FT share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alray.config import Config
from alray.models.transform import Augmentation
from alray.training.probe import ClassWeights
from alray.training.schedule import Schedule


class TuneSettings(Config):
    """How the whole model is trained."""

    epochs: int = Field(30, ge=1)
    batch: int = Field(64, ge=1)  # rows a step, over all workers together
    lr: float = Field(0.01, gt=0)  # first learning rate
    head_lr: float | None = Field(None, gt=0)  # of the classification layer; default: `lr`
    schedule: Schedule = "cosine"  # how rates fall: cosine to zero, cosine_7_16 to a fifth, steps, constant
    milestones: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)  # steps: epochs, after each of which
    gamma: float = Field(0.1, gt=0, le=1)  # steps: the rates are times this
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd
    nesterov: bool = False  # sgd
    weight_decay: float = Field(5e-4, ge=0)
    clip_norm: float | None = Field(None, gt=0)  # largest length of a step's gradient, over all weights
    freeze_norms: bool = False  # batch norm keeps the statistics it came with: those that features were computed by
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    class_weights: ClassWeights = "none"
    augmentation: Augmentation = "crop"  # none | crop | crop_flip; a digit, or any text, must not be flipped
    patience: int | None = Field(None, ge=1)  # epochs without a better holdout after which to stop; needs a holdout
    workers: int | None = Field(None, ge=1)  # processes; default: `runtime.workers`
    cache_bytes: int = Field(2 * 2**30, ge=0)  # of pictures that each worker keeps in memory
    max_failures: int = Field(2, ge=0)  # times that lost workers are started again

    @property
    def stops_early(self) -> bool:
        """Whether the holdout chooses the epoch that is delivered."""
        return self.patience is not None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.nesterov and (self.optimizer != "sgd" or self.momentum == 0):
            raise ValueError("`nesterov` needs `optimizer: sgd` and a `momentum` above 0: set those, or leave it out")
        if (self.schedule == "steps") != bool(self.milestones):
            raise ValueError(
                f"`schedule: steps` and `milestones` belong together; these are {self.schedule} and {self.milestones}: "
                "give both, or neither"
            )
        return self
