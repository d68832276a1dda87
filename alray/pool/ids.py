"""Ids of a whole pool: that no two rows share one, and where given ones are.

Only a 64-bit hash of each id is kept; ids whose hashes meet are then read again and compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alray import log, seeds
from alray.errors import PoolError
from alray.pool.shard import Shard
from alray.seeds import Hashes
from alray.table import Ids

SHOWN = 5


def check(shards: Sequence[Shard], other: Sequence[Ids]) -> None:
    """Raise PoolError when an id is null, stands twice in the pool, or stands in `other` (test ids) too.

    Takes 8 bytes a row and about a microsecond; the ids themselves are in memory one shard at a time.
    """
    hashes_N = _hashes(shards)
    _check_unique(shards, hashes_N)
    if any(len(ids) for ids in other):
        _check_apart(shards, hashes_N, np.concatenate(list(other)))


def locate(shards: Iterable[Shard], wanted: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return (shard number, row in the shard) of each wanted id that the shards have."""
    values = pa.array(sorted(set(wanted)), type=pa.large_string())
    found: dict[str, tuple[int, int]] = {}
    for shard in shards if len(values) else ():
        column = shard.id_column()
        rows = np.flatnonzero(pc.is_in(column, value_set=values).to_numpy(zero_copy_only=False))
        found.update(zip(column.take(rows).to_pylist(), ((shard.number, int(r)) for r in rows), strict=True))
    return found


def _hashes(shards: Sequence[Shard]) -> Hashes:
    hashes_N = np.empty(sum(s.rows for s in shards), dtype=np.uint64)
    at = 0
    for shard in log.progress(shards, len(shards), "checking ids"):
        hashes_N[at : at + shard.rows] = seeds.hash_ids(shard.ids())
        at += shard.rows
    return hashes_N


def _check_unique(shards: Sequence[Shard], hashes_N: Hashes) -> None:
    ordered_N = np.sort(hashes_N)
    suspects = np.unique(ordered_N[1:][ordered_N[1:] == ordered_N[:-1]])
    if not len(suspects):
        return
    places: dict[str, list[str]] = {}
    for shard, rows in _rows_among(shards, hashes_N, suspects):
        for row, name in zip(rows.tolist(), shard.id_column().take(rows).to_pylist(), strict=True):
            places.setdefault(name, []).append(f"{shard.uri} row {shard.start + row}")
    twice = {name: where for name, where in places.items() if len(where) > 1}
    if twice:
        some = "; ".join(f"`{name}` ({_listed(where)})" for name, where in list(twice.items())[:SHOWN])
        raise PoolError(
            f"{len(twice):,} id(s) stand more than once in the pool: {some}{_more(len(twice))}. Every row needs an id "
            f"of its own; rename or drop the repeated rows, and see that no file is in the pool twice."
        )


def _check_apart(shards: Sequence[Shard], hashes_N: Hashes, other: Ids) -> None:
    met = other[np.isin(seeds.hash_ids(other), hashes_N)]
    if not len(met):
        return
    owners = [shard for shard, _ in _rows_among(shards, hashes_N, seeds.hash_ids(met))]
    both = sorted(locate(owners, met))
    if both:
        some = ", ".join(f"`{name}`" for name in both[:SHOWN])
        raise PoolError(
            f"{len(both):,} id(s) stand in both the pool and the test set: {some}{_more(len(both))}. A picture that is "
            f"tested on must not be picked or trained on; take them out of `pool` or out of `test`."
        )


def _rows_among(
    shards: Sequence[Shard], hashes_N: Hashes, wanted: Hashes
) -> Iterable[tuple[Shard, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Yield each shard that has rows whose hash is `wanted`, with those rows."""
    among_N = np.isin(hashes_N, wanted)
    at = 0
    for shard in shards:
        rows = np.flatnonzero(among_N[at : at + shard.rows])
        at += shard.rows
        if len(rows):
            yield shard, rows


def _listed(where: Sequence[str]) -> str:
    return ", ".join(where[:3]) + (f" and {len(where) - 3} more places" if len(where) > 3 else "")


def _more(count: int) -> str:
    return f" and {count - SHOWN:,} more" if count > SHOWN else ""
