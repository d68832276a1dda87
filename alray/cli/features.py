"""`alray features`: compute or refresh the embeddings that a campaign's pool and test rows need."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from alray.cli import show
from alray.cli.settings import load
from alray.features import build
from alray.pool import Pool
from alray.runtime import open_runtime


def features(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a campaign.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to change.")] = None,
) -> None:
    """Compute or refresh the features of a campaign's pool; what is there is not computed again."""
    settings = load(config, words or ())
    pools = {"pool": Pool.open(settings.pool)}
    if settings.test:
        pools["test"] = Pool.open(settings.test.path, rows_per_shard=settings.pool.rows_per_shard)
    rows = []
    with open_runtime(settings.runtime) as runtime:
        for name, pool in pools.items():
            pool.check_ids()
            start = time.perf_counter()
            made = build(pool, settings.features, runtime, seed=settings.seed)
            seconds = time.perf_counter() - start
            rows.append([name, f"{made.rows:,}", str(len(made.shards)), str(made.dim), f"{seconds:.1f}", made.version])
    show.table(["", "rows", "shards", "dim", "seconds", "version"], rows)
