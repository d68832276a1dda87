"""`alray features`: compute or refresh the embeddings that a campaign's pool and test rows need."""

from __future__ import annotations

import logging
import time
from typing import Annotated

import typer

from alray.cli import show
from alray.cli.settings import load
from alray.features import build
from alray.pool import Pool
from alray.pool.quarantine import Quarantine
from alray.runtime import open_runtime

log = logging.getLogger(__name__)

EXAMPLES = 5


def features(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="YAML file of a campaign.")],
    words: Annotated[list[str] | None, typer.Argument(metavar="[key=value …]", help="Settings to change.")] = None,
) -> None:
    """Compute or refresh the features of a campaign's pool; what is there is not computed again."""
    settings = load(config, words or ())
    pools = {"pool": Pool.open(settings.pool)}
    if settings.test:
        pools["test"] = Pool.open(settings.test.path, rows_per_shard=settings.pool.rows_per_shard)
    rows: list[list[str]] = []
    unreadable: dict[str, Quarantine] = {}
    with open_runtime(settings.runtime) as runtime:
        for name, pool in pools.items():
            pool.check_ids()
            start = time.perf_counter()
            made = build(pool, settings.features, runtime, seed=settings.seed)
            seconds = time.perf_counter() - start
            bad = "–" if pool.kind == "features" else f"{len(made.quarantine):,}"  # its own are read by a run
            shards = str(len(made.shards))
            rows.append([name, f"{made.rows:,}", shards, str(made.dim), bad, f"{seconds:.1f}", made.version])
            unreadable[name] = made.quarantine
    show.table(["", "rows", "shards", "dim", "unreadable", "seconds", "version"], rows)
    for name, found in unreadable.items():
        for one in list(found)[:EXAMPLES]:
            log.warning("%s: `%s` cannot be read: %s", name, one.id, one.reason)
    unreadable["pool"].check(pools["pool"].rows, settings.pool.max_quarantine)
