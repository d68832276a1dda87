"""Feature files: a view of the file, rows with reasons, and a refusal of any file that is not the right one."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import builders
import numpy as np
import pyarrow as pa
import pytest

from alray.errors import PoolError, StorageError
from alray.features import FeatureShard, from_pool, store
from alray.pool import Pool, Shard

DIM = 6


@pytest.fixture
def feature_shard(tmp_path: Path) -> FeatureShard:
    """Write the features of a made-up pool shard of five rows, the fourth of which is bad."""
    values_ND = np.arange(5 * DIM, dtype=np.float16).reshape(5, DIM)
    values_ND[3] = 0
    path = tmp_path / "shard.arrow"
    ids = pa.array(["a", "b", "ç", "d", "e"])
    meta = {"version": "v1", "key": "k1"}
    store.write_batch(path, store.make_batch(values_ND, {3: "not a picture"}, ids=ids, meta=meta))
    shard = Shard(2, "/pool.parquet", 10, 15, "image", "stamp")
    return FeatureShard(2, str(path), 10, 15, "store", "v1", "k1", DIM, shard)


def test_a_shard_reads_back_with_its_bad_row_blank(feature_shard: FeatureShard) -> None:
    rows = feature_shard.read()
    assert rows.ids.tolist() == ["a", "b", "ç", "d", "e"]
    assert rows.features_ND.dtype == np.float16
    assert rows.features_ND[4].tolist() == [24, 25, 26, 27, 28, 29]
    assert rows.ok_N.tolist() == [True, True, True, False, True]
    assert rows.reasons == {3: "not a picture"}
    assert not rows.features_ND[3].any()


def test_a_local_file_is_mapped_and_not_copied(feature_shard: FeatureShard) -> None:
    before = pa.total_allocated_bytes()
    features_ND = feature_shard.read().features_ND
    assert not features_ND.flags.owndata and not features_ND.flags.writeable
    assert pa.total_allocated_bytes() - before < 1000
    address = features_ND.__array_interface__["data"][0]
    with open("/proc/self/maps") as maps:
        ranges = [line.split("-")[:2] for line in maps if line.rstrip().endswith(feature_shard.uri)]
    assert any(int(low, 16) <= address < int(high.split()[0], 16) for low, high in ranges)


def test_it_is_small_to_send(feature_shard: FeatureShard) -> None:
    assert len(pickle.dumps(feature_shard)) < 1000
    assert pickle.loads(pickle.dumps(feature_shard)) == feature_shard


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "v2"}, r"has features of version 'v1', expected 'v2'\. Delete that file and run `alray features`"),
        ({"key": "k2"}, "has features of key 'k1', expected 'k2'"),
        ({"stop": 16}, r"shape \(5, 6\) and 5 ids, expected \(6, 6\) for shard 2"),
        ({"dim": 7}, r"expected \(5, 7\)"),
        ({"uri": "/nowhere/shard.arrow"}, "is gone. Run `alray features` again"),
    ],
)
def test_a_file_that_is_not_the_right_one_is_refused(feature_shard: FeatureShard, change: dict, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        replace(feature_shard, **change).read()


@pytest.mark.parametrize("keep", [0, 40, 700])
def test_a_file_cut_short_is_refused(feature_shard: FeatureShard, keep: int) -> None:
    path = Path(feature_shard.uri)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StorageError, match="cannot be read as a feature file"):
        feature_shard.read()


def test_a_file_of_a_newer_alray_is_refused(feature_shard: FeatureShard) -> None:
    batch = store.make_batch(np.zeros((5, DIM), np.float16), {}, meta={"schema": 2, "version": "v1", "key": "k1"})
    store.write_batch(Path(feature_shard.uri), batch)
    with pytest.raises(StorageError, match="has schema 2, this alray reads up to 1"):
        feature_shard.read()


def test_what_does_not_fit_fp16_becomes_a_blank_row_with_its_reason() -> None:
    values_ND = np.ones((6, 3), np.float32)
    values_ND[1:, 2] = np.nan, np.inf, 1e6, 65519, 65520
    half_ND, reasons = store.to_half(values_ND)
    assert reasons == {
        1: "embedding is NaN or infinite",
        2: "embedding is NaN or infinite",
        3: "embedding has a value of 1e+06, beyond what fp16 holds (65504)",
        5: "embedding has a value of 65520, beyond what fp16 holds (65504)",
    }
    assert np.isfinite(half_ND).all()
    assert half_ND[4, 2] == 65504
    assert not half_ND[[1, 2, 3, 5]].any()


def test_a_pool_that_brings_its_features_is_read_from_its_own_files(tmp_path: Path) -> None:
    path, matrix_ND, names, _ = builders.features_pool(tmp_path)
    features = from_pool(Pool.open(path, rows_per_shard=30))
    assert features.rows == len(names) and features.dim == matrix_ND.shape[1]
    rows = [shard.read() for shard in features.shards]
    assert [str(i) for r in rows for i in r.ids] == names
    np.testing.assert_array_equal(np.concatenate([r.features_ND for r in rows]), matrix_ND)
    assert all(shard.source == "pool" and shard.version == features.version for shard in features.shards)


def test_a_pool_with_features_that_changed_is_refused(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path)
    features = from_pool(Pool.open(path))
    builders.features_pool(tmp_path, files=(41, 25, 60), seed=1)
    with pytest.raises(PoolError, match="written again since the pool was opened"):
        features.shards[0].read()
