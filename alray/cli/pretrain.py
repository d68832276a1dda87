"""`alray pretrain`: a backbone for the pool's own kind of pictures, learned from the pictures alone."""

from __future__ import annotations

import shlex
from typing import Annotated, Any

import typer

from alray.campaign.settings import Settings
from alray.cli import show
from alray.cli.settings import load
from alray.errors import ConfigError
from alray.models.backbone import plain
from alray.pool import Pool
from alray.runtime import open_runtime
from alray.training.pretrain import PretrainConfig
from alray.training.pretrain import pretrain as train

SHOWN = 6
"""Epochs in the table: the first, the last, and some between."""


def pretrain(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a campaign with `pretrain`.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to change.")] = None,
) -> None:
    """Train a campaign's backbone on its pool's pictures, without labels; what is there is not trained again."""
    settings = load(config, words or ())
    own = _settings(settings)
    pool = Pool.open(settings.pool)
    with open_runtime(settings.runtime) as runtime:
        found = train(own, pool, plain(settings.features), runtime, seed=settings.seed)
    show.table(["epoch", "loss", "spread", "pictures/s", "seconds"], _rows(found.history))
    show.pairs(
        {
            "checkpoint": found.checkpoint,
            "pictures": f"{found.metrics['rows']:,} of {pool.rows:,} read",
            "seconds": f"{sum(epoch['seconds'] for epoch in found.history):.1f}",
            "other settings use it by": shlex.quote(f"features.weights={found.checkpoint}"),
        }
    )


def _settings(settings: Settings) -> PretrainConfig:
    if settings.pretrain is None:
        raise ConfigError(
            "`pretrain` is not set: there is nothing to train by. Add a section `pretrain:` to the settings, or the "
            "word pretrain.epochs=200; its other fields have defaults."
        )
    return settings.pretrain.beside(settings.features.path)


def _rows(history: list[dict[str, Any]]) -> list[list[str]]:
    last = len(history) - 1
    shown = sorted({round(i * last / (SHOWN - 1)) for i in range(SHOWN)})
    return [_row(history[i]) for i in shown]


def _row(epoch: dict[str, Any]) -> list[str]:
    spread = "–" if epoch["spread"] is None else f"{epoch['spread']:.3f}"
    speed, seconds = f"{epoch['pictures_per_second']:,.0f}", f"{epoch['seconds']:.1f}"
    return [str(epoch["epoch"]), f"{epoch['loss']:.3f}", spread, speed, seconds]
