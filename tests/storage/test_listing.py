"""Files, globs and folders are found, sorted, without unfinished work."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from alray import storage
from alray.errors import StoragePathError


def names(uris: list[str], root: str) -> list[str]:
    assert all(uri.startswith(root + "/") for uri in uris)
    return [uri.removeprefix(root + "/") for uri in uris]


def test_listings_are_sorted_and_shallow_and_skip_temporary_files(tree: str) -> None:
    assert names(storage.list_files(tree), tree) == [".hidden", "a.parquet", "b.parquet", "note.txt"]
    assert names(storage.list_folders(tree), tree) == ["sub", "sub2"]
    assert storage.list_files(tree + "/nothing") == [] == storage.list_folders(tree + "/nothing")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("", ["a.parquet", "b.parquet", "note.txt"]),
        ("/", ["a.parquet", "b.parquet", "note.txt"]),
        ("/a.parquet", ["a.parquet"]),
        ("/*.parquet", ["a.parquet", "b.parquet"]),
        ("/?.parquet", ["a.parquet", "b.parquet"]),
        ("/[b-z].parquet", ["b.parquet"]),
        ("/*/*.parquet", ["sub/c.parquet"]),
        ("/sub*/*", ["sub/c.parquet", "sub2/d.csv"]),
        ("/su[b]/c.parquet", ["sub/c.parquet"]),
    ],
)
def test_files_globs_and_folders_expand(tree: str, path: str, found: list[str]) -> None:
    assert names(storage.expand(tree + path), tree) == found


def test_several_paths_expand_to_each_file_once(tree: str) -> None:
    found = storage.expand([tree + "/*.parquet", tree + "/a.parquet", tree + "/sub"])
    assert names(found, tree) == ["a.parquet", "b.parquet", "sub/c.parquet"]


def test_a_file_whose_name_looks_like_a_glob_is_a_file(root: str) -> None:
    uri = storage.join(root, "part[1].parquet")
    storage.write_bytes(uri, b"x")
    assert storage.expand(uri) == [uri]


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("pool/a.parquet", b"x")
    assert storage.expand("pool/*.parquet") == [str(tmp_path / "pool" / "a.parquet")]
    assert storage.expand("*/a.parquet") == [str(tmp_path / "pool" / "a.parquet")]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/nothing", "There is no file or folder"),
        ("/*.zip", "matches no file"),
        ("/nothing/*.zip", "matches no file"),
        ("/deep", r"has no files\. It has sub-folders, which are not read: give .*/deep/\*/\*"),
    ],
)
def test_finding_nothing_is_the_users_mistake(root: str, path: str, message: str) -> None:
    storage.write_bytes(root + "/deep/er/x", b"x")
    with pytest.raises(StoragePathError, match=message):
        storage.expand([root + path])


def test_a_stamp_changes_with_the_content(root: str) -> None:
    uri = storage.join(root, "x")
    storage.write_bytes(uri, b"one")
    first = storage.stamp(uri)
    assert storage.stamp(uri) == first
    storage.write_bytes(uri, b"two")
    assert storage.stamp(uri) != first


def test_files_renamed_while_they_are_listed_do_not_disturb(tmp_path: Path) -> None:
    """A folder that other processes write to can be listed at any moment."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            storage.write_bytes(str(tmp_path / f"file-{number % 50}"), b"x")
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            assert all("/file-" in uri for uri in storage.list_files(str(tmp_path)))
    finally:
        stop.set()
        writer.join()
