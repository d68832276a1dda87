"""Auto: LP-FT while the features are the pre-trained ones, fine-tuning once they were updated.

Training alignment of Wen et al., "Feature Alignment: Rethinking Efficient Active Learning via Proxy in the Context of
Pre-trained Models", TMLR 2024: a model trained like the features that chose its labels makes the most of them.
"""

from __future__ import annotations

from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import Runtime
from alray.training.base import Recipe, Trained
from alray.training.fine_tune import FineTune
from alray.training.lp_ft import LpFt
from alray.training.probe import HeadConfig
from alray.training.rows import TrainSet


class Auto(Recipe):
    """Train by `lp_ft` before an update of the features, by `fine_tune` after one; updates are made by `fine_tune`."""

    lp_ft: LpFt = LpFt()
    fine_tune: FineTune = FineTune()

    def fits(self, pool: Pool, head: HeadConfig) -> None:
        """What both recipes need."""
        self.lp_ft.fits(pool, head)
        self.fine_tune.fits(pool, head)

    def choose(self, updated: bool) -> Recipe:
        """Return the recipe that fits features that were `updated`, or were not."""
        return self.fine_tune if updated else self.lp_ft

    def alignment(self) -> FineTune:
        """Return `fine_tune`."""
        return self.fine_tune

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
        """Train by `lp_ft`: who knows that the features were updated asks `choose` first, and trains by its answer."""
        chosen, where = self.choose(False), {"name": name, "folder": folder}
        return chosen.train(rows, backbone, head, runtime, **where, seed=seed, holdout=holdout)
