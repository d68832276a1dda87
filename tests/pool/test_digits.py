"""The bundled digits: a pool, its test set and its oracle, written once and always the same."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from alray import storage
from alray.pool import digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = str(tmp_path_factory.mktemp("digits"))
    digits.write(where)
    return where


def column(folder: str, file: str, name: str) -> list[str]:
    return list(storage.read_parquet(storage.join(folder, file))[name].to_pylist())


def test_every_picture_is_in_the_pool_or_in_the_test_set(folder: str) -> None:
    pool, test = column(folder, "pool.parquet", "id"), column(folder, "test.parquet", "id")
    assert (len(pool), len(test)) == (1438, 359)
    assert len({*pool, *test}) == 1797


def test_the_oracle_answers_for_every_row_of_the_pool(folder: str) -> None:
    assert column(folder, "oracle.parquet", "id") == column(folder, "pool.parquet", "id")
    assert {*column(folder, "oracle.parquet", "label")} == {*map(str, range(10))}


def test_the_pool_does_not_hold_its_labels(folder: str) -> None:
    assert storage.read_parquet(storage.join(folder, "pool.parquet")).column_names == ["id", "image"]


def test_pictures_are_real_pictures(folder: str) -> None:
    data = storage.read_parquet(storage.join(folder, "pool.parquet"))["image"][0].as_py()
    picture = Image.open(io.BytesIO(data))
    assert (picture.format, picture.size, picture.getextrema()) == ("PNG", (8, 8), (0, 239))


def test_a_pool_that_is_there_is_left_alone(folder: str) -> None:
    before = storage.stamp(storage.join(folder, "pool.parquet"))
    digits.write(folder)
    assert storage.stamp(storage.join(folder, "pool.parquet")) == before


def test_the_files_are_the_same_each_time(folder: str, tmp_path: Path) -> None:
    digits.write(str(tmp_path))
    for name in ("pool.parquet", "test.parquet", "oracle.parquet"):
        assert storage.sha256(storage.join(str(tmp_path), name)) == storage.sha256(storage.join(folder, name))
