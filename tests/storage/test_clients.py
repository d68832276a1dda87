"""Clients are built per process from the environment, and a failure names its URI soon."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable

import pytest

from alray import storage
from alray.errors import StorageError, StoragePathError
from alray.storage import clients


def test_a_missing_bucket_is_named(s3: str) -> None:
    with pytest.raises(StoragePathError, match=r"s3://nobody-has-this/x: .*NoSuchBucket"):
        storage.write_bytes("s3://nobody-has-this/x", b"")


@pytest.mark.parametrize(
    "use",
    [
        storage.read_bytes, storage.exists, storage.list_files, storage.stamp, storage.expand, storage.delete,
        lambda uri: storage.write_bytes(uri, b"x"), lambda uri: storage.put_once(uri, b"x"),
        lambda uri: storage.replace_if(uri, b"x", expected="0"),
    ],
)  # fmt: skip
def test_a_dead_endpoint_is_named_soon(s3: str, monkeypatch: pytest.MonkeyPatch, use: Callable[[str], object]) -> None:
    monkeypatch.setattr(clients, "ATTEMPTS", 2)
    monkeypatch.setattr(clients, "PYARROW_RETRIES", 4)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nothing listens on the discard port
    start = time.monotonic()
    with pytest.raises(StorageError, match=r"Cannot .* s3://bucket/x"):
        use("s3://bucket/x")
    assert time.monotonic() - start < 20


def test_configure_sets_what_workers_inherit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "")  # so that monkeypatch takes them away again
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "SECRET")
    storage.configure("http://127.0.0.1:9000", "eu-west-1")
    storage.configure(None, None)
    assert storage.environment() == {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9000",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [("127.0.0.1:9000", "must begin with http"), ("http://me:SECRET@host", "must not hold credentials")],
)
def test_a_bad_endpoint_is_refused(endpoint: str, message: str) -> None:
    with pytest.raises(StoragePathError, match=message) as caught:
        storage.configure(endpoint, None)
    assert "`storage.endpoint`" in str(caught.value) and "SECRET" not in str(caught.value)


def _write_and_read(uri: str) -> tuple[bytes, int]:
    before = clients._build_filesystem.cache_info().misses
    storage.write_bytes(uri, b"from a child")
    with storage.open_input(uri) as file:
        return file.read(), clients._build_filesystem.cache_info().misses - before


def test_a_forked_process_builds_its_own_clients(root: str) -> None:
    uri = storage.join(root, "x")
    storage.write_bytes(uri, b"from the parent")
    storage.sha256(uri)  # the parent's clients are built
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_write_and_read, (uri,)).get(timeout=60) == (b"from a child", 1)
    assert storage.read_bytes(uri) == b"from a child"


def test_functions_travel_by_reference() -> None:
    assert pickle.loads(pickle.dumps(storage.read_bytes)) is storage.read_bytes
