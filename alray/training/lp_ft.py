"""LP-FT: fine-tuning that starts from the linear probe's weights, so that the features are not torn by a random layer.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
"""

from __future__ import annotations

from pydantic import Field, field_validator

from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import Runtime
from alray.training import fine_tune, linear_probe
from alray.training.base import Recipe, Trained
from alray.training.probe import HeadConfig
from alray.training.rows import TrainSet
from alray.training.settings import TuneSettings


class LpFt(TuneSettings, Recipe):
    """Put the linear head into the classification layer, then train everything.

    Two defaults keep the start what the probe made it. The head was fitted on features of the running statistics of
    batch norm; on a batch's own the same network has other features, of untrained weights wholly other ones. And the
    slope of the loss grows with the features, which are used as they are: unclipped, the first steps undo the probe.
    """

    lr: float = Field(1e-3, gt=0)  # lower than fine-tuning's: the start is good already
    clip_norm: float | None = Field(1.0, gt=0)  # largest length of a step's gradient, over all weights
    freeze_norms: bool = True  # batch norm keeps the statistics that the head's features were computed by
    probe: HeadConfig = HeadConfig()  # used when the round brings no linear head

    @field_validator("probe")
    @classmethod
    def _linear(cls, probe: HeadConfig) -> HeadConfig:
        if probe.kind != "linear":
            raise ValueError(f"LP-FT starts from a linear head, and `kind` is {probe.kind}: leave it out")
        return probe

    def fits(self, pool: Pool, head: HeadConfig) -> None:
        """A pool with pictures is needed. A head that is not linear is left aside, and a probe fitted."""
        fine_tune.check_pictures(pool)

    def train(
        self,
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
        """Fine-tune from `head` if it is linear, else from a probe fitted here."""
        fine_tune.check_pictures(rows.pool)
        start = head if head is not None and head.kind == "linear" else None
        if start is None:
            start = linear_probe.fit(self.probe, rows, backbone, runtime, seed)
        where = {"name": name, "folder": folder}
        return fine_tune.tune(self, rows, backbone, start, runtime, **where, seed=seed, holdout=holdout)
