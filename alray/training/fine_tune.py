"""Fine-tuning: the whole model on the labelled pictures, data-parallel, from a fresh classification layer."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence

import numpy as np

from alray.errors import ModelError
from alray.models.backbone import BackboneConfig, plain
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import Runtime
from alray.storage import join
from alray.training import rows as rows_of
from alray.training.base import Recipe, Trained
from alray.training.classifier import HEAD_FILE
from alray.training.loop import Job, loop
from alray.training.probe import HeadConfig
from alray.training.rows import TrainSet
from alray.training.settings import TuneSettings

log = logging.getLogger(__name__)


class FineTune(TuneSettings, Recipe):
    """Train the backbone and a fresh classification layer together."""

    def fits(self, pool: Pool, head: HeadConfig) -> None:
        """A pool with pictures is needed; the head is not used."""
        check_pictures(pool)

    def alignment(self) -> FineTune:
        """Return itself."""
        return self

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
        """Fine-tune; `head` is not used."""
        return tune(self, rows, backbone, None, runtime, name=name, folder=folder, seed=seed, holdout=holdout)


def tune(
    settings: TuneSettings,
    rows: TrainSet,
    backbone: BackboneConfig,
    start: Head | None,
    runtime: Runtime,
    *,
    name: str,
    folder: str,
    seed: int,
    holdout: TrainSet | None,
    trace: str | None = None,
) -> Trained:
    """Train the whole model by `runtime.train`, from the linear head `start` if there is one."""
    check_pictures(rows.pool)
    if settings.patience is not None and (holdout is None or not len(holdout.ids)):
        log.warning("`training.patience` is %d but there is no holdout yet: all epochs are trained", settings.patience)
    job = Job(
        settings=settings,
        backbone=plain(backbone),
        classes=tuple(rows.classes),
        rows=rows_of.locate(rows),
        holdout=rows_of.locate(holdout) if holdout is not None and len(holdout.ids) else None,
        start=_layer(start, rows.classes),
        seed=seed,
        trace=trace,
    )
    result = runtime.train(
        loop,
        {"job": job},
        workers=settings.workers or runtime.workers,
        name=f"{name}-{_digest(job)}",
        folder=folder,
        max_failures=settings.max_failures,
    )
    assert result.checkpoint is not None  # the loop commits one every epoch
    head = Head.load(join(result.checkpoint, HEAD_FILE))
    return Trained(head, result.checkpoint, result.metrics, result.history)


def check_pictures(pool: Pool) -> None:
    """Raise ModelError when the pool has features only: there is nothing to train a backbone on."""
    if pool.kind == "features":
        raise ModelError(
            "`training.recipe` trains the backbone, but the pool holds `features` and no pictures. Expected a pool "
            "with `image` or `uri`, or the recipe linear_probe."
        )


def _layer(head: Head | None, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray] | None:
    if head is None:
        return None
    if head.kind != "linear" or head.classes != tuple(classes):
        raise ModelError(
            f"LP-FT starts from a linear head over the classes {list(classes)[:5]}; this one is {head.kind} over "
            f"{list(head.classes)[:5]}. Give a head over these classes in this order, or none."
        )
    return head.weights["weight"], head.weights["bias"]


def _digest(job: Job) -> str:
    """Return what tells this run from another of the same name: a resume must never mix two."""
    settings = job.settings.model_dump(mode="json", exclude={"workers", "cache_bytes", "max_failures"})
    found = hashlib.sha256(json.dumps([settings, job.backbone.model_dump()]).encode())
    found.update("\0".join([job.rows.digest(), *job.classes, str(job.seed)]).encode())
    if job.holdout is not None:
        found.update(job.holdout.digest().encode())
    for array in job.start or ():
        found.update(array.tobytes())
    return found.hexdigest()[:10]
