"""Files are read whole, by columns and at random; what cannot be read is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from alray import storage
from alray.errors import StorageError, StoragePathError
from alray.storage import reading


def test_an_input_is_read_at_random(root: str) -> None:
    uri = storage.join(root, "big.bin")
    data = bytes(range(256)) * 4000
    storage.write_bytes(uri, data)
    with storage.open_input(uri) as file:
        assert file.size() == len(data)
        assert file.read_at(10, 513_003) == data[513_003:513_013]


def test_json_text_and_parquet_come_back(root: str) -> None:
    value = {"schema": 1, "name": "größe", "parts": [1, 2.5, None]}
    storage.write_json(storage.join(root, "x.json"), value)
    assert storage.read_json(storage.join(root, "x.json")) == value
    assert "größe" in storage.read_text(storage.join(root, "x.json"))
    table = pa.table({"id": ["a", "b"], "x": [1.0, 2.0]})
    storage.write_parquet(storage.join(root, "x.parquet"), table)
    assert storage.read_parquet(storage.join(root, "x.parquet")).equals(table)
    assert storage.read_parquet(storage.join(root, "x.parquet"), ["x"]).column_names == ["x"]


def test_a_missing_file_is_the_users_mistake(root: str) -> None:
    uri = storage.join(root, "no.bin")
    for read in (storage.read_bytes, storage.size, storage.stamp, storage.sha256, storage.open_input):
        with pytest.raises(StoragePathError, match=r"no such file") as caught:
            read(uri)
        assert uri in str(caught.value)


def test_a_folder_cannot_be_read_as_a_file(tree: str) -> None:
    with pytest.raises(StoragePathError, match="it is a folder"):
        storage.size(tree + "/sub")


def test_broken_files_are_named(tmp_path: Path) -> None:
    for name, data, read, message in [
        ("x.json", b"{", storage.read_json, "is not JSON"),
        ("x.txt", b"\xff\xfe\x00", storage.read_text, "is not UTF-8"),
        ("x.parquet", b"PAR1 and no more", storage.read_parquet, "is not a readable Parquet file"),
    ]:
        uri = str(tmp_path / name)
        storage.write_bytes(uri, data)
        with pytest.raises(StoragePathError, match=message) as caught:
            read(uri)
        assert uri in str(caught.value)


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.parquet")
    storage.write_parquet(uri, pa.table({"id": ["a"], "label": ["b"]}))
    with pytest.raises(StoragePathError, match=r"has no column `lable`; it has: id, label\. Did you mean `label`\?"):
        storage.read_parquet(uri, ["id", "lable"])


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.json")
    (tmp_path / "x.json").write_text(json.dumps({"schema": 2}))
    with pytest.raises(StoragePathError, match="has schema 2; this alray reads schema 1"):
        storage.read_json(uri)
    assert storage.read_json(uri, schema=2) == {"schema": 2}


@pytest.mark.parametrize("name", ["x.gz", "x.bz2", "x.zst"])
def test_what_is_stored_is_read_whatever_its_name_promises(root: str, name: str) -> None:
    uri, data = storage.join(root, name), gzip.compress(b"packed")
    storage.write_bytes(uri, data)
    assert storage.read_bytes(uri) == data


def test_a_file_that_is_replaced_before_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, found = str(tmp_path / "x"), reading.open_input
    storage.write_bytes(uri, b"old")

    def replaced(uri: str) -> pa.NativeFile:
        storage.write_bytes(uri, b"newer")
        return found(uri)

    monkeypatch.setattr(reading, "open_input", replaced)
    with pytest.raises(StorageError, match="was replaced while it was being read"), storage.open_unchanged(uri) as file:
        file.read()
    monkeypatch.undo()
    with pytest.raises(StorageError, match=f"Cannot read {uri}: odd"), storage.open_unchanged(uri):
        raise OSError("odd")


def test_what_is_not_there_is_none_and_a_folder_is_an_error(root: str) -> None:
    uri = storage.join(root, "folder", "x")
    assert storage.read_if_there(uri) is None
    storage.write_bytes(uri, b"1")
    assert storage.read_if_there(uri) == b"1"
    if storage.local_path(root) is not None:  # object storage has no folders
        with pytest.raises(StoragePathError, match="it is a folder"):
            storage.read_if_there(storage.join(root, "folder"))
