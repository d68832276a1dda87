"""Opening a pool: how it is cut and numbered, how it grows, and what is refused with which words."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pyarrow as pa
import pytest

from alray import storage
from alray.errors import PoolError, StoragePathError
from alray.pool import Pool, PoolConfig
from alray.pool import parquet as reader


def cuts(pool: Pool) -> list[tuple[int, str, int, int]]:
    return [(s.number, Path(s.uri).name, s.start, s.stop) for s in pool.shards]


def test_shards_are_cut_inside_files_and_hold_every_row_once(tmp_path: Path) -> None:
    glob, features_ND, names, labels = builders.features_pool(tmp_path, (40, 25, 60))
    pool = Pool.open(glob, rows_per_shard=20)
    assert cuts(pool) == [
        (0, "pool-00.parquet", 0, 20),
        (1, "pool-00.parquet", 20, 40),
        (2, "pool-01.parquet", 0, 20),
        (3, "pool-01.parquet", 20, 25),
        (4, "pool-02.parquet", 0, 20),
        (5, "pool-02.parquet", 20, 40),
        (6, "pool-02.parquet", 40, 60),
    ]
    assert (pool.kind, pool.dim, pool.rows) == ("features", 8, 125)
    assert [i for s in pool.shards for i in s.ids()] == names
    assert np.array_equal(np.concatenate([s.features()[0] for s in pool.shards]), features_ND)
    assert [v for s in pool.shards for v in s.column("label").to_pylist()] == labels


def test_a_config_a_list_and_a_folder_open_the_same_pool(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (5, 6))
    files = [str(tmp_path / "pool-01.parquet"), str(tmp_path / "pool-00.parquet"), str(tmp_path / "pool-00.parquet")]
    same = [Pool.open(glob), Pool.open(files), Pool.open(str(tmp_path)), Pool.open(PoolConfig(path=glob))]
    assert len({pool.fingerprint() for pool in same}) == 1
    assert Pool.open(PoolConfig(path=glob, rows_per_shard=3)).fingerprint() != same[0].fingerprint()


def test_opening_reads_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    glob, *_ = builders.features_pool(tmp_path)

    def refuse(*_: Any) -> None:
        raise AssertionError("rows were read")

    monkeypatch.setattr(reader, "batches", refuse)
    monkeypatch.setattr(reader, "read_column", refuse)
    assert Pool.open(glob).rows == 125


def test_shards_are_tiny_and_travel(tmp_path: Path) -> None:
    glob, features_ND, *_ = builders.features_pool(tmp_path, (10,))
    (shard,) = Pool.open(glob).shards
    sent = pickle.dumps(shard)
    assert len(sent) < 600
    assert np.array_equal(pickle.loads(sent).features()[0], features_ND)


def test_files_of_one_name_in_two_folders_are_two_files(tmp_path: Path) -> None:
    for number, folder in enumerate("ab"):
        matrix, _ = builders.features(4, 3, seed=number)
        columns = {"id": builders.ids(4, start=4 * number), "features": builders.vectors(matrix)}
        builders.parquet(tmp_path / folder / "part.parquet", columns)
    pool = Pool.open(str(tmp_path / "*" / "part.parquet"))
    pool.check_ids()
    assert pool.rows == 8 and len({s.fingerprint() for s in pool.shards}) == 2


def test_manifest_keeps_the_numbers_of_a_pool_that_grows(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (10, 10))
    first = Pool.open(glob, rows_per_shard=6)
    known = json.loads(json.dumps(first.manifest()))
    assert known["schema"] == 1
    again = Pool.open(glob, rows_per_shard=6, known=known)
    assert again.shards == first.shards and again.fingerprint() == first.fingerprint()
    rewrite(tmp_path / "pool-00-late.parquet", 5)  # sorts before pool-00.parquet
    grown = Pool.open(glob, rows_per_shard=4, known=known)
    assert grown.shards[:4] == first.shards
    assert cuts(grown)[4:] == [(4, "pool-00-late.parquet", 0, 4), (5, "pool-00-late.parquet", 4, 5)]


def rewrite(path: Path, rows: int) -> None:
    matrix, _ = builders.features(rows, 8, seed=5)
    builders.parquet(path, {"id": builders.ids(rows, start=500), "features": builders.vectors(matrix)})


def test_a_file_that_is_replaced_while_its_footer_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rewrite(tmp_path / "p.parquet", 5)
    found = reader.content_of

    def replaced(*args: Any) -> Any:
        rewrite(tmp_path / "p.parquet", 9)
        return found(*args)

    monkeypatch.setattr(reader, "content_of", replaced)
    pool = Pool.open(str(tmp_path / "p.parquet"))
    with pytest.raises(PoolError, match="was written again since the pool was opened"):
        pool.shards[0].ids()


def test_a_known_file_that_changed_or_went_is_refused(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (10, 10))
    pool = Pool.open(glob)
    rewrite(tmp_path / "pool-01.parquet", 11)
    with pytest.raises(PoolError, match=r"pool-01\.parquet was written again since this run began"):
        Pool.open(glob, known=pool.manifest())
    with pytest.raises(PoolError, match=r"pool-01\.parquet was written again since the pool was opened"):
        pool.shards[1].features()
    (tmp_path / "pool-01.parquet").unlink()
    with pytest.raises(PoolError, match=r"pool-01\.parquet was in the pool and is not any more.*start a new run"):
        Pool.open(glob, known=pool.manifest())
    with pytest.raises(PoolError, match="gone since the pool was opened"):
        pool.shards[1].ids()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2; this alray reads up to 1"),
        ({"shards": [{"nonsense": 1}]}, "damaged"),
        ({"shards": 3}, "damaged"),
    ],
)
def test_a_manifest_that_is_newer_or_damaged_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    glob, *_ = builders.features_pool(tmp_path, (10,))
    with pytest.raises(PoolError, match=words):
        Pool.open(glob, known={**Pool.open(glob).manifest(), **change})


def test_locate(tmp_path: Path) -> None:
    glob, _, names, _ = builders.features_pool(tmp_path, (40, 25, 60))
    pool = Pool.open(glob, rows_per_shard=30)
    assert pool.locate([names[0], names[35], names[124], names[35], "nobody"]) == {
        names[0]: (0, 0),
        names[35]: (1, 5),
        names[124]: (4, 29),
    }
    assert pool.locate([]) == {}


MATRIX = np.ones((3, 4), dtype=np.float16)
IDS = ["a", "b", "c"]
NONE = pa.array([], pa.string())


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"ids": IDS, "features": builders.vectors(MATRIX)}, "no column `id`; its columns are `ids`, `features`. Did"),
        ({"id": IDS, "label": IDS}, "holds none of `image`, `uri` and `features`; its columns are `id`, `label`"),
        ({"id": IDS, "uri": IDS, "features": builders.vectors(MATRIX)}, "holds `features` and `uri` of .*exactly one"),
        ({"id": [1, 2, 3], "features": builders.vectors(MATRIX)}, "`id` is int64; it must be string"),
        ({"id": IDS, "features": [1.0, 2.0, 3.0]}, "`features` is double; it must be a FixedShapeTensor"),
        ({"id": IDS, "features": [[1], [2], [3]]}, r"`features` is list<.*int64>; it must be"),
        ({"id": IDS, "features": [[[1.0]]] * 3}, r"`features` is list<.*list<.*; it must be"),
        ({"id": IDS, "image": IDS}, "`image` is string; it must be binary"),
        ({"id": IDS, "uri": [1, 2, 3]}, "`uri` is int64; it must be string"),
        ({"id": NONE, "image": NONE.cast("binary")}, r"The pool has no rows: .*a\.parquet hold none"),
        ({"id": IDS, "features": pa.array([None, [], []], pa.list_(pa.float32()))}, "`features` has no values"),
    ],
)
def test_a_file_that_is_no_pool_is_refused(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    path = builders.parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(PoolError, match=words) as caught:
        Pool.open(path)
    assert path in str(caught.value) and caught.value.exit_code == 2


def test_tensors_of_two_dimensions_are_refused(tmp_path: Path) -> None:
    two = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.float16(), [2, 2]), builders.vectors(MATRIX))
    path = builders.parquet(tmp_path / "a.parquet", {"id": IDS, "features": two})
    with pytest.raises(PoolError, match=r"FixedShapeTensor of one dimension"):
        Pool.open(path)


def test_files_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (5,), dim=8)
    builders.parquet(tmp_path / "pool-01.parquet", {"id": IDS, "features": builders.vectors(MATRIX)})
    with pytest.raises(PoolError, match=r"pool-00\.parquet has 8 features a row and .*pool-01\.parquet has 4"):
        Pool.open(glob)
    builders.parquet(tmp_path / "pool-01.parquet", {"id": IDS, "image": [b"", b"", b""]})
    with pytest.raises(PoolError, match=r"pool-00\.parquet is a file of `features` and .*pool-01\.\w+ one of `image`"):
        Pool.open(glob)


@pytest.mark.parametrize("content", [b"", b"no parquet at all", b"cut"])
def test_a_file_without_a_footer_is_refused(tmp_path: Path, content: bytes) -> None:
    glob, *_ = builders.features_pool(tmp_path, (40,))
    path = tmp_path / "pool-00.parquet"
    path.write_bytes(path.read_bytes()[:-20] if content == b"cut" else content)
    with pytest.raises(PoolError, match=r"pool-00\.parquet cannot be read as Parquet: .*write it again"):
        Pool.open(glob)


def test_pages_that_are_damaged_are_refused(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (40,))
    path = tmp_path / "pool-00.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(PoolError, match=r"pool-00\.parquet cannot be read as Parquet"):
        Pool.open(glob).shards[0].ids()


def test_paths_that_name_no_pool_are_refused(tmp_path: Path) -> None:
    builders.labels_file(tmp_path / "labels.csv", ["a"], ["b"])
    with pytest.raises(PoolError, match=r"has no Parquet files and no pictures \(found labels\.csv\)"):
        Pool.open(str(tmp_path))
    with pytest.raises(StoragePathError, match=r"pool-\*\.parquet matches no file"):
        Pool.open(str(tmp_path / "pool-*.parquet"))
    with pytest.raises(PoolError, match=r"`pool.path` names no files"):
        Pool.open([])
    with pytest.raises(PoolError, match=r"`pool.rows_per_shard` is 0"):
        Pool.open(str(tmp_path), rows_per_shard=0)


def test_an_oracle_beside_the_pool_is_pointed_out(tmp_path: Path) -> None:
    _, _, names, labels = builders.features_pool(tmp_path, (5,))
    builders.labels_file(tmp_path / "oracle.parquet", names, labels)
    with pytest.raises(PoolError, match=r"oracle\.parquet holds none of .* name the pool by a glob"):
        Pool.open(str(tmp_path))


def test_other_float_types_are_rounded_and_it_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matrix = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    glob = builders.parquet(tmp_path / "pool.parquet", {"id": IDS, "features": builders.vectors(matrix)})
    with caplog.at_level("INFO", logger="alray"):
        pool = Pool.open(glob)
    assert "features are float32; they are rounded once to float16" in caplog.text
    assert np.array_equal(pool.shards[0].features()[0], matrix.astype(np.float16))


def test_locations_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builders.features_pool(tmp_path / "data", (5,))
    monkeypatch.chdir(tmp_path)
    (shard,) = Pool.open("data").shards
    assert shard.uri == str(tmp_path / "data" / "pool-00.parquet")
    assert storage.join(str(tmp_path), "data", "pool-00.parquet") == shard.uri


def test_a_pool_on_object_storage_is_the_same_pool(s3: str, tmp_path: Path) -> None:
    glob, features_ND, names, _ = builders.features_pool(tmp_path, (40, 25))
    for path in sorted(tmp_path.iterdir()):
        storage.write_bytes(f"{s3}/features/{path.name}", path.read_bytes())
    pool = Pool.open(f"{s3}/features/pool-*.parquet", rows_per_shard=30)
    assert cuts(pool) == cuts(Pool.open(glob, rows_per_shard=30))
    assert [s.uri for s in pool.shards[:1]] == [f"{s3}/features/pool-00.parquet"]
    assert np.array_equal(np.concatenate([s.features()[0] for s in pool.shards]), features_ND)
    pool.check_ids()
    assert pool.locate([names[64]]) == {names[64]: (2, 24)}
    rewrite(tmp_path / "other.parquet", 25)
    storage.write_bytes(f"{s3}/features/pool-01.parquet", (tmp_path / "other.parquet").read_bytes())
    with pytest.raises(PoolError, match=r"pool-01\.parquet was written again since this run began"):
        Pool.open(f"{s3}/features", known=pool.manifest())
    with pytest.raises(PoolError, match=r"pool-01\.parquet was written again since the pool was opened"):
        pool.shards[2].features()
    storage.write_bytes(f"{s3}/features/pool-01.parquet", b"short")
    with pytest.raises(PoolError, match=r"s3://.*/pool-01\.parquet cannot be read as Parquet"):
        Pool.open(f"{s3}/features")
