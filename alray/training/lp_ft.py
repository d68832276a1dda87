"""LP-FT: fine-tuning that starts from the linear probe's weights, so that the features are not torn by a random layer.

Kumar et al., "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", ICLR 2022.
"""

from __future__ import annotations

from pydantic import Field

from alray.errors import ModelError
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
    """Put the linear head into the classification layer, then train everything."""

    lr: float = Field(1e-3, gt=0)  # lower than fine-tuning's: the start is good already
    probe: HeadConfig = HeadConfig()  # used when the round brings no head of its own

    def fits(self, pool: Pool, head: HeadConfig) -> None:
        """A pool with pictures is needed, and a linear head to start from."""
        fine_tune.check_pictures(pool)
        if head.kind != "linear":
            raise ModelError(
                f"LP-FT starts from a linear head, and `head.kind` is {head.kind}. Set it to linear, or use the recipe "
                "fine_tune."
            )

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
        """Fine-tune from `head`, or from a probe fitted here."""
        fine_tune.check_pictures(rows.pool)
        start = head if head is not None else linear_probe.fit(self.probe, rows, backbone, runtime, seed)
        where = {"name": name, "folder": folder}
        return fine_tune.tune(self, rows, backbone, start, runtime, **where, seed=seed, holdout=holdout)
