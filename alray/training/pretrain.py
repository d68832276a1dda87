"""Pre-training: a backbone for the pool's own kind of pictures, from the pictures alone, kept for all later campaigns.

A run is named by what it is (the pool's content, the backbone, the settings), in a folder outside any campaign's. So
the same call finds what is finished, goes on with what was cut, and never mixes two; and what it made is a folder that
`features.weights` takes. Every readable row of the pool is used, labelled or not; test rows are a pool of their own.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field
from typing import Any

from alray import storage
from alray.errors import ConfigError, ModelError, TrainingError
from alray.models import backbone as backbones
from alray.models.backbone import BackboneConfig, plain
from alray.pool import Pool
from alray.runtime import Runtime
from alray.training.pretrain_loop import Job, loop
from alray.training.pretrain_settings import PretrainConfig

__all__ = ["PretrainConfig", "Pretrained", "pretrain"]

log = logging.getLogger(__name__)

RESULT = "pretrained.json"
"""Written last: where it is, the run is over."""

SCHEMA = 1
NOT_THE_RESULT = {"path", "workers", "cache_bytes", "max_failures", "checkpoint_every"}
"""Settings that do not change what a run makes, or when it ends."""


@dataclass(frozen=True)
class Pretrained:
    """What pre-training made: the folder that `weights:` takes, the last epoch's metrics, and those of all epochs.

    An epoch's metrics are `loss` (−1 at best), `spread` (1: evenly spread, 0: collapsed), `lr`, `seconds`,
    `pictures_per_second`, `rows`, `steps` and `unreadable`.
    """

    checkpoint: str
    metrics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def pretrain(
    config: PretrainConfig,
    pool: Pool,
    backbone: BackboneConfig,
    runtime: Runtime,
    *,
    seed: int,
    trace: str | None = None,
) -> Pretrained:
    """Train `backbone` on all pictures of `pool`, or return what the same call has made before.

    Raises ModelError for a pool without pictures, ConfigError without a `path`, TrainingError after a collapse. With
    `trace`, a local folder, each worker notes there which rows it used in which step.
    """
    _check(config, pool)
    job = Job(config, plain(backbone), pool.shards, seed, trace)
    name = f"{config.method}-{backbone.backbone.rsplit(':', 1)[-1]}-{_digest(job, pool)}"
    folder = storage.join(str(config.path), name)
    if not storage.exists(storage.join(folder, RESULT)):
        log.info(
            "pre-training %s on %d pictures for %d epochs: %s", backbone.backbone, pool.rows, config.epochs, folder
        )
        _run(job, runtime, folder)
    history = storage.read_json(storage.join(folder, RESULT))["history"]
    return Pretrained(folder, history[-1], history)


def _check(config: PretrainConfig, pool: Pool) -> None:
    if pool.kind == "features":
        raise ModelError(
            "`pretrain` trains a backbone on pictures, but the pool holds `features` and none. Expected a pool with "
            "`image` or `uri`, or a folder of pictures; leave `pretrain` out to use the features as they are."
        )
    if config.path is None:
        raise ConfigError(
            "`pretrain.path` is not set, and neither is `features.path`. Set one of them to a folder outside the run: "
            "what is learned there serves other runs too."
        )


def _run(job: Job, runtime: Runtime, folder: str) -> None:
    """Train to the end and commit the result beside the checkpoints; TrainingError if there is none worth it."""
    settings = job.settings
    result = runtime.train(
        loop,
        {"job": job},
        workers=settings.workers or runtime.workers,
        name="epochs",
        folder=folder,
        max_failures=settings.max_failures,
    )
    assert result.checkpoint is not None  # the last epoch is always one
    history = [epoch for commit in result.history for epoch in commit["epochs"]]
    _check_trained(settings, history[-1])
    for file in (backbones.BACKBONE_FILE, backbones.META):
        storage.write_bytes(storage.join(folder, file), storage.read_bytes(storage.join(result.checkpoint, file)))
    found = {"schema": SCHEMA, "settings": settings.model_dump(mode="json"), "backbone": job.backbone.model_dump()}
    storage.write_json(storage.join(folder, RESULT), {**found, "history": history})


def _check_trained(settings: PretrainConfig, metrics: dict[str, Any]) -> None:
    epoch, low = metrics["epoch"], metrics["low_epochs"]
    advice = (
        f"Lower `pretrain.lr` ({settings.lr:g}), raise `pretrain.warmup` ({settings.warmup}) or `pretrain.batch` "
        f"({settings.batch}), or change `pretrain.weight_decay` ({settings.weight_decay:g})."
    )
    if metrics["rows"] == 0:
        raise TrainingError(f"Pre-training found no picture that can be read among {metrics['unreadable']} rows.")
    if metrics["loss"] is None:
        raise TrainingError(f"Pre-training diverged in epoch {epoch}: its loss is not a number. {advice}")
    if low >= settings.collapse_epochs:
        raise TrainingError(
            f"Pre-training collapsed: the spread of the projections is {metrics['spread']:.3f} after epoch {epoch} and "
            f"was below `pretrain.collapse` = {settings.collapse:g} for {low} epochs (1 is evenly spread, 0 is all "
            f"pictures in one point). {advice}"
        )


def _digest(job: Job, pool: Pool) -> str:
    """Return what tells this run from any other: a resume must never mix two."""
    settings = job.settings.model_dump(mode="json", exclude=NOT_THE_RESULT)
    start = backbones.load(job.backbone, job.seed).fingerprint
    what = [SCHEMA, settings, start, pool.fingerprint(), job.seed]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:12]
