"""What all trials share is made once, before the first of them starts: the pre-trained backbone, and the features.

A trial then finds them in `features.path` and pays for neither; what they took is noted apart.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alray.campaign import Settings
from alray.features import FeaturesConfig, build
from alray.models import backbone as backbones
from alray.models.backbone import plain
from alray.pool import Pool
from alray.runtime import Runtime, RuntimeConfig, open_runtime
from alray.sweeps.grid import Trial
from alray.training.pretrain import pretrain

log = logging.getLogger(__name__)


def pictures(settings: Settings) -> bool:
    """Say whether a campaign's pool holds pictures, so that features have to be computed."""
    return Pool.open(settings.pool).kind != "features"


@dataclass
class Shared:
    """The backbones and features of one sweep. `seed` is that of a pre-training, so that one serves all trials."""

    seed: int
    runtime: RuntimeConfig
    seconds: dict[str, float] = field(default_factory=lambda: {"pretrain": 0.0, "features": 0.0})
    _made: dict[str, FeaturesConfig] = field(default_factory=dict)
    _opened: Runtime | None = None

    def trials(self, trials: Sequence[Trial]) -> list[Trial]:
        """Make what is not there yet; return the trials with settings that find it."""
        try:
            return [self._trial(trial) for trial in trials]
        finally:
            if self._opened is not None:
                self._opened.close()

    def _trial(self, trial: Trial) -> Trial:
        settings = trial.settings
        if not pictures(settings):
            return trial
        key = _key(settings)
        if key not in self._made:
            self._made[key] = self._make(settings)
        return trial.using(features=self._made[key], pretrain=None)

    def _make(self, settings: Settings) -> FeaturesConfig:
        """Return the backbone in force of these settings, once its features of pool and test rows are there."""
        pool, runtime = Pool.open(settings.pool), self._runtime()
        features = settings.features
        weights = features.weights
        if settings.pretrain is not None:
            start = time.perf_counter()
            own = settings.pretrain.beside(features.path)
            weights = pretrain(own, pool, plain(features), runtime, seed=self.seed).checkpoint
            self.seconds["pretrain"] += time.perf_counter() - start
        features = features.model_copy(update={"weights": backbones.absolute(weights)})
        start = time.perf_counter()
        assert settings.test is not None
        for one in (pool, Pool.open(settings.test.path)):
            found = build(one, features, runtime, seed=settings.seed)
            found.quarantine.check(found.rows, settings.pool.max_quarantine)
        self.seconds["features"] += time.perf_counter() - start
        return features

    def _runtime(self) -> Runtime:
        if self._opened is None:
            self._opened = open_runtime(self.runtime)
        return self._opened


def _key(settings: Settings) -> str:
    """Return what decides the features: the seed too, where it draws the weights of a backbone without any."""
    drawn = settings.pretrain is None and settings.features.weights == "none"
    test = settings.test.path if settings.test else None
    told: list[Any] = [settings.pool.model_dump(), test, settings.features.model_dump()]
    told += [settings.pretrain.model_dump() if settings.pretrain else None, settings.seed if drawn else None]
    return json.dumps(told)
