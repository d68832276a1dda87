"""Ids: null, repeated within and across files, shared with a test set, and colliding hashes."""

from __future__ import annotations

import time
from pathlib import Path

import builders
import numpy as np
import pyarrow as pa
import pytest

from alray import seeds
from alray.errors import PoolError
from alray.pool import Pool
from alray.table import as_ids


def pool_of(folder: Path, *files: list[str | None], kind: pa.DataType | None = None, rows_per_shard: int = 3) -> Pool:
    for number, names in enumerate(files):
        columns = {"id": pa.array(names, kind or pa.string()), "image": [b"x"] * len(names)}
        builders.parquet(folder / f"pool-{number}.parquet", columns, row_group=2)
    return Pool.open(str(folder), rows_per_shard=rows_per_shard)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_ids_of_their_own_pass(tmp_path: Path, kind: pa.DataType) -> None:
    pool = pool_of(tmp_path, ["a", "b", "ü", "d"], ["e", " e"], kind=kind)
    pool.check_ids(other=[as_ids(["x", "y"]), as_ids([])])
    assert list(pool.shards[0].ids()) == ["a", "b", "ü"] and pool.shards[0].ids().dtype == object


def test_ids_that_stand_twice_are_named_with_their_places(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, ["a", "b", "a", "d"], ["e", "b", "g"])
    first = r"`a` \(.*pool-0\.parquet row 0, .*pool-0\.parquet row 2\)"
    second = r"`b` \(.*pool-0\.parquet row 1, .*pool-1\.parquet row 1\)"
    with pytest.raises(PoolError, match=rf"2 id\(s\) stand more than once in the pool: {first}; {second}\. Every"):
        pool.check_ids()


def test_five_of_many_repeated_ids_are_named(tmp_path: Path) -> None:
    names = builders.ids(40)
    with pytest.raises(PoolError, match=r"40 id\(s\) stand more than once.* and 35 more\.") as caught:
        pool_of(tmp_path, names, names).check_ids()
    assert str(caught.value).count("`") == 10


@pytest.mark.parametrize("missing", [None, ""])
def test_null_and_empty_ids_are_refused(tmp_path: Path, missing: str | None) -> None:
    pool = pool_of(tmp_path, ["a", "b", "c", "d", missing])
    with pytest.raises(PoolError, match=r"pool-0\.parquet: `id` is null or empty in 1 row\(s\) \(row 4\)"):
        pool.check_ids()


def test_ids_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    raw = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")])
    path = builders.parquet(tmp_path / "pool.parquet", {"id": raw, "image": [b"x"]})
    with pytest.raises(PoolError, match="`id` holds text that is not UTF-8"):
        Pool.open(path).shards[0].ids()


def test_ids_of_the_test_set_are_refused(tmp_path: Path) -> None:
    pool = pool_of(tmp_path, ["a", "b", "c", "d"], ["e"])
    with pytest.raises(PoolError, match=r"2 id\(s\) stand in both the pool and the test set: `b`, `e`\. A picture"):
        pool.check_ids(other=[as_ids(["e", "x"]), as_ids(["b"])])


def test_ids_whose_hashes_meet_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "hash_ids", lambda ids: np.array([len(i) for i in ids], dtype=np.uint64))
    pool = pool_of(tmp_path, ["a", "b", "cc", "dd"], ["e"])
    pool.check_ids(other=[as_ids(["x"])])
    with pytest.raises(PoolError, match=r"1 id\(s\) stand in both the pool and the test set: `dd`"):
        pool.check_ids(other=[as_ids(["dd"])])


def test_many_ids_are_checked_quickly(tmp_path: Path) -> None:
    names = pa.array(builders.ids(200_000))
    path = builders.parquet(
        tmp_path / "pool.parquet", {"id": names, "image": pa.array([None] * len(names), pa.binary())}, row_group=65_536
    )
    pool = Pool.open(path)
    begin = time.perf_counter()
    pool.check_ids()
    assert time.perf_counter() - begin < 10  # well under one second when nothing else runs
