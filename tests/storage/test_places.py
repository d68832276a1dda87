"""A URI names one place, or is refused without repeating a secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from alray import storage
from alray.errors import StoragePathError


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", r"ftp://host/x: alray does not read `ftp://`"),
        ("s3a://bucket/x", r"Did you mean `s3`\?"),
        ("https://host/x", "does not read `https://`"),
        ("s3:bucket/x", "begins with `s3://`"),
        ("s3://", "is no bucket name"),
        ("s3://b/x", "'b' is no bucket name"),
        ("s3://bucket/a/../b", "has no meaning in a bucket"),
        ("s3://bucket/x?region=eu-west-1", r"`storage\.region`"),
        ("file://host/x", "absolute path of this machine"),
        ("", "empty"),
        ("a\0b", "null character"),
    ],
)
def test_other_uris_are_refused(uri: str, message: str) -> None:
    for use in (storage.exists, storage.read_bytes, storage.expand, lambda u: storage.put_once(u, b"")):
        with pytest.raises(StoragePathError, match=message):
            use(uri)


@pytest.mark.parametrize("uri", ["s3://KEY:SECRET@bucket/x", "gs://SECRET@bucket", "https://me:SECRET@host/x"])
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StoragePathError, match="must not hold credentials") as caught:
        storage.read_bytes(uri)
    assert "SECRET" not in str(caught.value) and "KEY:" not in str(caught.value)


def test_credentials_in_the_query_of_a_uri_are_not_repeated() -> None:
    with pytest.raises(StoragePathError, match="settings in a URI") as caught:
        storage.read_bytes("s3://bucket/x?secret_key=SECRET")
    assert "SECRET" not in str(caught.value)


def test_an_at_sign_in_a_key_is_no_credential(root: str) -> None:
    uri = storage.join(root, "me@home.txt")
    storage.write_bytes(uri, b"x")
    assert storage.list_files(root) == [uri]


def test_file_uris_name_local_files(tmp_path: Path) -> None:
    (tmp_path / "a b").write_bytes(b"x")
    assert storage.read_bytes(f"file://{tmp_path}/a%20b") == b"x"
    assert storage.local_path(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert storage.local_path("s3://bucket/x") is None
    assert storage.is_remote("s3://bucket/x") and not storage.is_remote("x")


def test_only_a_bare_local_path_is_relative() -> None:
    assert storage.is_relative("runs/a") and storage.is_relative("./a")
    assert not any(storage.is_relative(uri) for uri in ("/a", "~/a", "file:///a", "s3://bucket/a"))


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("s3://bucket", ("a", "b/c"), "s3://bucket/a/b/c"),
        ("run/", ("x",), "run/x"),
        ("/", ("x",), "/x"),
    ],
)
def test_join(base: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(base, *parts) == joined


@pytest.mark.parametrize("part", ["../x", "a/../../x", "/etc/passwd", ""])
def test_join_stays_inside(part: str) -> None:
    with pytest.raises(StoragePathError, match="names nothing inside 'run'"):
        storage.join("run", part)
