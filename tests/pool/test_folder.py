"""Folders of pictures: ids are file names, and a listing that changed is noticed."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest

from alray import storage
from alray.errors import PoolError
from alray.pool import BadRow, Pool


def test_a_folder_is_a_pool_of_its_pictures(tmp_path: Path) -> None:
    path, names, _ = builders.picture_folder(tmp_path / "photos", 7)
    (tmp_path / "photos" / "notes.txt").write_text("not a picture")
    (tmp_path / "photos" / ".hidden.png").write_bytes(b"")
    (tmp_path / "photos" / "sub").mkdir()
    (tmp_path / "photos" / "Z.JPEG").write_bytes(b"z")
    pool = Pool.open(path, rows_per_shard=3)
    assert (pool.kind, pool.dim, pool.rows, len(pool.shards)) == ("folder", None, 8, 3)
    assert [i for s in pool.shards for i in s.ids()] == ["Z.JPEG", *names]
    pictures = [builders.picture(n, suffix=names[n][-3:])[0] for n in range(7)]
    assert [data for s in pool.shards for _, data in s.images()] == [b"z", *pictures]
    assert pool.locate(["Z.JPEG", names[6], "no"]) == {"Z.JPEG": (0, 0), names[6]: (2, 1)}
    pool.check_ids()


def test_a_glob_of_pictures_narrows_a_folder(tmp_path: Path) -> None:
    path, names, _ = builders.picture_folder(tmp_path, 6)
    pool = Pool.open(f"{path}/*.png")
    assert list(pool.shards[0].ids()) == [n for n in names if n.endswith("png")]


def test_the_same_name_in_two_folders_is_a_repeated_id(tmp_path: Path) -> None:
    paths = [builders.picture_folder(tmp_path / folder, 3)[0] for folder in "ab"]
    with pytest.raises(PoolError, match=r"3 id\(s\) stand more than once"):
        Pool.open(paths).check_ids()


def test_pictures_that_sort_last_make_the_folder_grow(tmp_path: Path) -> None:
    path, _, _ = builders.picture_folder(tmp_path, 5)
    first = Pool.open(path, rows_per_shard=4)
    _, late, _ = builders.picture_folder(tmp_path, 2, start=5)
    grown = Pool.open(path, rows_per_shard=4, known=first.manifest())
    assert grown.shards[:2] == first.shards and list(grown.shards[2].ids()) == late


@pytest.mark.parametrize("change", ["add", "remove", "rename", "rewrite"])
def test_a_changed_folder_is_refused(tmp_path: Path, change: str) -> None:
    path, names, _ = builders.picture_folder(tmp_path, 5)
    pool = Pool.open(path, rows_per_shard=3)
    if change == "add":
        (tmp_path / "picture-00001a.png").write_bytes(b"")
    elif change == "rewrite":
        (tmp_path / names[1]).write_bytes(b"other")
    elif change == "rename":
        (tmp_path / names[1]).rename(tmp_path / "picture-00001a.png")
    else:
        (tmp_path / names[1]).unlink()
    words = r"pictures 0 to 2 \(by name\) are not those that this pool was opened on.*second folder"
    with pytest.raises(PoolError, match=words):
        Pool.open(path, known=pool.manifest())
    with pytest.raises(PoolError, match=words):
        pool.shards[0].ids()
    with pytest.raises(PoolError, match=words):
        list(pool.shards[0].images([1]))


def test_a_picture_that_goes_while_being_read_is_a_bad_row(tmp_path: Path) -> None:
    path, names, _ = builders.picture_folder(tmp_path, 3)
    (shard,) = Pool.open(path).shards
    assert isinstance(dict(shard.images([0]))[0], bytes)
    (tmp_path / names[1]).unlink()
    assert dict(shard.images([1])) == {1: BadRow(f"{tmp_path / names[1]} does not exist")}


def test_pictures_and_parquet_together_are_refused(tmp_path: Path) -> None:
    builders.picture_folder(tmp_path, 2)
    builders.features_pool(tmp_path, (3,))
    with pytest.raises(PoolError, match=r"has Parquet files \(.*\) and loose pictures \(.*\)\. A pool is one or"):
        Pool.open(str(tmp_path))
    with pytest.raises(PoolError, match="is one picture"):
        Pool.open(str(tmp_path / "picture-00001.png"))


def test_a_folder_has_neither_columns_nor_features(tmp_path: Path) -> None:
    (shard,) = Pool.open(builders.picture_folder(tmp_path, 2)[0]).shards
    with pytest.raises(PoolError, match="has no column `label`"):
        shard.column("label")
    with pytest.raises(PoolError, match="holds pictures, not `features`"):
        shard.features()


def test_a_folder_on_object_storage(s3: str, tmp_path: Path) -> None:
    _, names, _ = builders.picture_folder(tmp_path, 5)
    for name in names:
        storage.write_bytes(f"{s3}/photos/{name}", (tmp_path / name).read_bytes())
    pool = Pool.open(f"{s3}/photos", rows_per_shard=3)
    assert pool.kind == "folder" and [i for s in pool.shards for i in s.ids()] == names
    assert dict(pool.shards[1].images([1])) == {1: (tmp_path / names[4]).read_bytes()}
    storage.delete(f"{s3}/photos/{names[3]}")
    with pytest.raises(PoolError, match=r"pictures 3 to 4 \(by name\) are not those"):
        pool.shards[1].ids()
