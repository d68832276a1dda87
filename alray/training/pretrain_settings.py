"""The settings of self-supervised pre-training."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from alray import storage
from alray.training.views import ViewConfig


class PretrainConfig(ViewConfig):
    """How a backbone learns from the pool's pictures alone; the defaults are SimSiam's for small pictures."""

    method: Literal["simsiam"] = "simsiam"
    epochs: int = Field(200, ge=1)
    batch: int = Field(512, ge=2)  # pictures a step, over all workers together
    lr: float = Field(0.03, gt=0)  # at 256 pictures a step; used times batch / 256
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1)  # sgd
    weight_decay: float = Field(5e-4, ge=0)
    warmup: int = Field(0, ge=0)  # epochs in which the learning rate rises, and no collapse is judged
    dim: int = Field(2048, ge=2)  # of the projections
    hidden: int = Field(512, ge=1)  # of the predictor
    layers: int = Field(2, ge=1, le=4)  # of the projector; 3 for large pictures in the paper
    collapse: float = Field(
        0.5, ge=0, lt=1
    )  # spread below which an epoch counts as collapsed; a sound run stays above 0.9
    collapse_epochs: int = Field(5, ge=1)  # collapsed epochs in a row that stop the run
    checkpoint_every: int = Field(10, ge=1)  # epochs
    path: str | None = None  # folder outside the run, where results are kept; default: in `features.path`
    workers: int | None = Field(None, ge=1)  # processes; default: `runtime.workers`
    cache_bytes: int = Field(2 * 2**30, ge=0)  # of pictures that each worker keeps in memory
    max_failures: int = Field(2, ge=0)  # times that lost workers are started again

    @model_validator(mode="after")
    def _rises_to_its_peak(self) -> Self:
        if self.warmup >= self.epochs:
            raise ValueError(
                f"`warmup` is {self.warmup} and `epochs` is {self.epochs}: the learning rate would never come down. "
                "Give fewer epochs of warm-up than epochs"
            )
        return self

    def beside(self, features: str | None) -> Self:
        """Return these settings with a `path`: their own, else the folder `pretrained` where features are kept."""
        if self.path is not None or features is None:
            return self
        return self.model_copy(update={"path": storage.join(features, "pretrained")})
