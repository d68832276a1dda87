"""Reading a shard's pictures: bytes in a file, or files that a `uri` column points to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import builders
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alray import storage
from alray.errors import PoolError, StorageError
from alray.pool import BadRow, Pool, PoolConfig, fetch, images
from alray.pool import parquet as reader
from alray.pool.shard import Shard


def test_images_come_by_row(tmp_path: Path) -> None:
    glob, *_ = builders.image_pool(tmp_path, (10, 6))
    pool = Pool.open(glob, rows_per_shard=7)
    assert pool.kind == "image" and len(pool.shards) == 3
    pictures = [builders.picture(n, suffix="png" if n % 2 else "jpg")[0] for n in (7, 8, 9)]
    assert list(pool.shards[1].images()) == list(enumerate(pictures))
    assert [row for row, _ in pool.shards[0].images([5, 0, 5, 6])] == [0, 5, 6]
    assert list(pool.shards[0].images([])) == []
    with pytest.raises(IndexError, match="rows 0 to 6, not 0 to 7"):
        list(pool.shards[0].images([0, 7]))


def test_a_null_image_is_a_bad_row(tmp_path: Path) -> None:
    path = builders.parquet(tmp_path / "p.parquet", {"id": ["a", "b"], "image": [None, b"x"]})
    assert dict(Pool.open(path).shards[0].images()) == {0: BadRow("`image` is null"), 1: b"x"}


def test_only_the_row_groups_touched_are_read(tmp_path: Path) -> None:
    glob, *_ = builders.image_pool(tmp_path, (40,), row_group=4)
    path = str(tmp_path / "pool-00.parquet")
    assert [at for at, _ in reader.batches(path, ["image"], range(9, 17), 100)] == [8, 12, 16]
    assert [at for at, _ in reader.batches(path, ["id"], range(10, 11), 2)] == [10]
    shard = Pool.open(glob, rows_per_shard=20).shards[1]
    assert [row for row, _ in shard.images([1, 19])] == [1, 19]


def test_row_groups_that_are_not_touched_may_be_damaged(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (40,), row_group=10)
    path = tmp_path / "pool-00.parquet"
    groups = pq.read_metadata(path)
    begin = groups.row_group(2).column(0).dictionary_page_offset  # of rows 20 to 29
    end = groups.row_group(3).column(0).dictionary_page_offset
    path.write_bytes(path.read_bytes()[:begin] + b"\xff" * (end - begin) + path.read_bytes()[end:])
    shards = Pool.open(glob, rows_per_shard=10).shards
    assert [len(shards[n].features()[0]) + len(shards[n].ids()) for n in (0, 1, 3)] == [20, 20, 20]
    with pytest.raises(PoolError, match="cannot be read as Parquet"):
        shards[2].features()


def test_extra_columns_are_kept(tmp_path: Path) -> None:
    glob, _, labels = builders.image_pool(tmp_path, (10,))
    shard = Pool.open(glob, rows_per_shard=6).shards[1]
    assert shard.column("label").to_pylist() == labels[6:]
    with pytest.raises(PoolError, match=r"has no column `labels`; it has `id`, `image`, `label`\. Did you mean"):
        shard.column("labels")


def test_uris_are_found_beside_their_file_and_nowhere_above(tmp_path: Path) -> None:
    (tmp_path / "data" / "img").mkdir(parents=True)
    (tmp_path / "data" / "img" / "a.png").write_bytes(b"A")
    (tmp_path / "outside.png").write_bytes(b"O")
    os.mkfifo(tmp_path / "data" / "pipe.png")
    outside = str(tmp_path / "outside.png")
    cells: list[str | None] = [
        "img/a.png", "./img/../img//a.png", outside, f"file://{outside}",
        "../outside.png", "img/../../outside.png", None, "", "img/none.png", "img", "pipe.png",
        "https://example.com/a.png", "s3://user:secret@bucket/a.png", "a\0.png", "..", "x" * 300,
    ]  # fmt: skip
    columns = {"id": builders.ids(len(cells)), "uri": pa.array(cells, pa.string())}
    path = builders.parquet(tmp_path / "data" / "p.parquet", columns, row_group=3)
    found = dict(Pool.open(PoolConfig(path=path, roots=[str(tmp_path)])).shards[0].images())
    assert [found[r] for r in range(4)] == [b"A", b"A", b"O", b"O"]
    reasons = [item.reason if isinstance(item, BadRow) else "" for item in found.values()]
    assert reasons[4] == "`uri` '../outside.png' leaves the folder of its Parquet file"
    assert "leaves the folder" in reasons[5] and "leaves the folder" in reasons[14]
    assert reasons[6:8] == ["`uri` is null", "`uri` is empty"]
    assert reasons[8].endswith("img/none.png does not exist") and reasons[9].endswith("img is no file")
    assert reasons[10].endswith("pipe.png is no file")
    assert "does not read `https://`" in reasons[11]
    assert "credentials" in reasons[12] and "secret" not in reasons[12]
    assert "null character" in reasons[13] and "cannot be read" in reasons[15]


@pytest.mark.parametrize("read", [Shard.features, Shard.ids, lambda shard: shard.column("label")])
def test_a_file_that_is_replaced_while_it_is_read_is_refused(
    read: Callable[[Shard], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard, found = Pool.open(builders.features_pool(tmp_path, [8])[0]).shards[0], reader.batches

    def replaced(*args: Any) -> Any:
        builders.features_pool(tmp_path, [9])
        return found(*args)

    read(shard)
    monkeypatch.setattr(reader, "batches", replaced)
    with pytest.raises(PoolError, match="was written again since the pool was opened"):
        read(shard)


def test_a_root_that_is_not_here_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = builders.parquet(tmp_path / "p.parquet", {"id": builders.ids(1), "uri": pa.array(["a.png"])})
    odd = f"/{'n' * 300}"
    Pool.open(PoolConfig(path=path, roots=[str(tmp_path), f"{tmp_path}/mispelled", odd, "s3://bucket/x"]))
    some = f"{tmp_path}/mispelled, {odd}"
    assert caplog.messages == [f"`pool.roots`: {some} is no folder of this machine; workers must have it"]


def test_a_picture_file_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    (tmp_path / "a.png").write_bytes(b"x" * 11)
    (tmp_path / "b.png").write_bytes(b"x" * 10)
    found = dict(Pool.open(str(tmp_path)).shards[0].images())
    assert found == {0: BadRow(f"{tmp_path / 'a.png'} has 11 bytes, more than 10"), 1: b"x" * 10}


def test_features_hold_no_pictures(tmp_path: Path) -> None:
    glob, *_ = builders.features_pool(tmp_path, (3,))
    with pytest.raises(PoolError, match="holds `features` and no pictures"):
        list(Pool.open(glob).shards[0].images())


def test_uris_on_object_storage(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        storage.write_bytes(f"{s3}/uris/img/{number}.png", str(number).encode())
    cells = [f"img/{number}.png" for number in range(40)]
    cells += [f"{s3}/uris/img/7.png", "img/none.png", "../uris/img/7.png"]
    path = builders.parquet(tmp_path / "p.parquet", {"id": builders.ids(len(cells)), "uri": cells})
    storage.write_bytes(f"{s3}/uris/p.parquet", Path(path).read_bytes())
    (shard,) = Pool.open(f"{s3}/uris/p.parquet").shards
    found = list(shard.images())
    assert [row for row, _ in found] == list(range(43))
    assert [data for _, data in found[:41]] == [str(n).encode() for n in [*range(40), 7]]
    assert "there is no such file" in found[41][1].reason and "leaves the folder" in found[42][1].reason

    def fail(message: str) -> None:
        def answer(uri: str) -> None:
            raise StorageError(message)

        monkeypatch.setattr(storage, "open_input", answer)

    fail("AWS Error ACCESS_DENIED during HeadObject operation")
    assert fetch.read(f"{s3}/uris/img/1.png") == fetch.BadRow(f"{s3}/uris/img/1.png cannot be read: access denied")
    fail("timed out")
    with pytest.raises(StorageError, match="timed out"):  # of the storage, so no row is blamed for it
        fetch.read(f"{s3}/uris/img/1.png")
