"""The manifest of a pool: its shards as JSON, so that a pool that grows keeps the numbers it gave out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from alray.errors import PoolError
from alray.pool.shard import Shard

SCHEMA = 1


def write(shards: Sequence[Shard], kind: str, dim: int | None, rows_per_shard: int) -> dict[str, Any]:
    """Return the manifest as a dict of JSON values."""
    listed = [{k: v for k, v in asdict(shard).items() if k != "roots"} for shard in shards]  # a setting, not content
    return {"schema": SCHEMA, "kind": kind, "dim": dim, "rows_per_shard": rows_per_shard, "shards": listed}


def read(known: dict[str, Any]) -> list[Shard]:
    """Return the shards of a manifest; PoolError when it is of a newer alray or no manifest."""
    schema = known.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise PoolError(
            f"The pool manifest has schema {schema!r}; this alray reads up to {SCHEMA}. Upgrade alray, or start a new "
            f"run."
        )
    try:
        shards = [Shard(**entry) for entry in known["shards"]]
    except (KeyError, TypeError) as error:
        raise PoolError(f"The pool manifest is damaged ({error}). Restore it, or start a new run.") from error
    if [shard.number for shard in shards] != list(range(len(shards))):
        raise PoolError("The pool manifest is damaged (shards not numbered 0, 1, 2 …). Restore it, or start a new run.")
    return shards
