"""Storage that is busy, cut off or silent: tried again after growing pauses, and in the end one clear error, soon."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import faulty_s3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ReadTimeoutError
from faulty_s3 import FaultyS3, How
from urllib3.exceptions import ProtocolError, SSLError

from alray import storage
from alray.errors import StorageError
from alray.storage import clients

DATA = bytes(range(256)) * 400
SHIPPED = clients.ATTEMPTS, clients.PYARROW_RETRIES, clients.ANSWER_S
AGAIN = "the same command goes on when storage answers again"


@pytest.fixture(scope="module")
def in_between(s3: str) -> Iterator[FaultyS3]:
    """Stand between alray and the S3 server, with pauses that a test can wait for."""
    with faulty_s3.between() as one:
        yield one


@pytest.fixture
def proxy(in_between: FaultyS3) -> Iterator[FaultyS3]:
    """Return the proxy; the next test finds it faultless."""
    yield in_between
    in_between.heal()


@pytest.fixture
def uri(s3: str, proxy: FaultyS3) -> str:
    """Return a file that is there, in a folder of its own."""
    uri = f"{s3}/faults/{uuid.uuid4().hex}/x"
    storage.write_bytes(uri, DATA)
    return uri


class Operation(NamedTuple):
    """One way to use storage: the requests that it makes, what it does, and what it returns."""

    which: str
    use: Callable[[str], Any]
    result: Any


OPERATIONS = {
    "look": Operation("HEAD .*/x$", storage.exists, True),
    "read": Operation("GET .*/x$", storage.read_bytes, DATA),
    "list": Operation("GET .*list-type=2", lambda uri: len(storage.list_files(uri.rpartition("/")[0])), 1),
    "delete folder": Operation("POST .*delete", lambda uri: storage.delete_folder(uri[:-2]), None),
    "write": Operation("PUT .*/x$", lambda uri: storage.write_bytes(uri, DATA), None),
    "put once": Operation("PUT .*/y$", lambda uri: storage.put_once(f"{uri[:-1]}y", DATA), True),
    "stamp": Operation("HEAD .*/x$", lambda uri: len(storage.stamp(uri)), 32),
    "delete": Operation("DELETE .*/x$", storage.delete, None),
}
HOWS: tuple[How, ...] = ("500", "SlowDown", "cut", "lost")
ALL = pytest.mark.parametrize("name", OPERATIONS)


LEAST = (0.0, 0.045, 0.09)
"""Seconds between one try and the next: each at least twice the one before, the first of pyarrow's at once."""


@ALL
def test_a_few_failures_are_tried_again(name: str, uri: str, proxy: FaultyS3) -> None:
    does = OPERATIONS[name]
    for how in HOWS:
        fault = proxy.fail(does.which, how, times=2)
        assert does.use(uri.replace("/x", f"-{how}/x") if name == "put once" else uri) == does.result
        assert len(fault.at) == 3, how
        proxy.heal()
        if name.startswith("delete"):
            storage.write_bytes(uri, DATA)


@ALL
def test_pauses_grow_and_the_end_is_a_clear_error(name: str, uri: str, proxy: FaultyS3) -> None:
    does = OPERATIONS[name]
    fault = proxy.fail(does.which, "SlowDown")
    with pytest.raises(StorageError, match=AGAIN) as caught:
        does.use(uri)
    assert caught.value.exit_code == 1 and uri[:-2] in str(caught.value)
    assert len(fault.at) == faulty_s3.TRIES
    assert all(pause >= least for pause, least in zip(fault.pauses, LEAST, strict=True)), fault.pauses
    proxy.heal()
    assert does.use(uri) == does.result


def test_a_silent_server_is_given_up(uri: str, s3: str) -> None:
    with faulty_s3.between(answer_s=0.1, tries=2, pause_s=0) as proxy:
        for name, does in OPERATIONS.items():
            if name == "delete folder":
                continue  # pyarrow gives such a request seven seconds more
            fault = proxy.fail(does.which, "hang")
            start = time.monotonic()
            with pytest.raises(StorageError, match=AGAIN):
                does.use(uri)
            assert time.monotonic() - start < 8, name
            assert 1 <= len(fault.at) <= 2, name
            proxy.heal()


def test_the_longest_wait_is_three_minutes() -> None:
    """What a silent server costs with the waits that are shipped: the tries of one request, and the pauses between."""
    tries, retries, answer_s = SHIPPED
    boto3 = tries * answer_s + sum(2.0**n for n in range(tries - 1))
    broken = clients.BROKEN_S + boto3 + answer_s  # answers that end in the middle, the last one late
    pyarrow = (retries + 1) * answer_s + 0.025 * 2**retries
    assert min(boto3, pyarrow) > 60 and max(boto3, pyarrow, broken) < 180


def test_many_failures_do_not_wear_out_the_tries(uri: str) -> None:
    """A driver that outlives an hour without storage tries as often afterwards as before."""
    with faulty_s3.between(tries=2, pause_s=0) as proxy:
        for name in ("list", "stamp"):
            for _ in range(110):  # of the 500 tries in reserve that each mode `standard` has, each spends five
                fault = proxy.fail(OPERATIONS[name].which, "SlowDown")
                with pytest.raises(StorageError):
                    OPERATIONS[name].use(uri)
                assert len(fault.at) == 2, name
                proxy.heal()


def test_an_answer_that_ends_in_the_middle_is_asked_for_again(uri: str, proxy: FaultyS3) -> None:
    table = f"{uri[:-1]}t.parquet"
    storage.write_parquet(table, pa.table({"id": [f"row-{n}" for n in range(5000)]}))
    proxy.fail("GET", "short", times=2)
    assert storage.read_bytes(uri) == DATA
    proxy.fail("GET", "short", times=2)
    assert storage.read_parquet(table).num_rows == 5000
    proxy.heal()
    fault = proxy.fail("GET", "short")
    with pytest.raises(StorageError, match=AGAIN):
        storage.read_bytes(uri)
    assert all(pause >= 0.1 * 2**n for n, pause in enumerate(fault.pauses)) and len(fault.at) == faulty_s3.TRIES
    for read in (lambda: storage.read_bytes(uri), lambda: storage.sha256(uri), lambda: storage.read_parquet(table)):
        with pytest.raises(StorageError, match=AGAIN):
            read()


@pytest.mark.parametrize("error", [ReadTimeoutError(endpoint_url="x"), SSLError("bad record"), ProtocolError("cut")])
def test_an_answer_that_breaks_in_whatever_way_is_asked_for_again(
    error: Exception, uri: str, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ask = [], clients.s3

    def breaking(*words: str) -> dict[str, Any]:
        answer = ask(*words)
        asked.append(words)
        if len(asked) != 3:
            monkeypatch.setattr(answer["Body"], "read", lambda: throw(error))
        return answer

    monkeypatch.setattr(clients, "s3", breaking)
    assert storage.read_bytes(uri) == DATA and len(asked) == 3
    monkeypatch.setattr(clients, "BROKEN_S", 0)
    with pytest.raises(StorageError, match=f"Cannot read {uri}: .*{AGAIN}"):
        storage.read_bytes(uri)
    assert len(asked) == 4


def throw(error: Exception) -> None:
    """Raise it."""
    raise error


@pytest.mark.parametrize("other", [DATA[:-1], DATA + b"}"], ids=["shorter", "longer"])
def test_a_file_that_is_replaced_while_it_is_read_is_read_whole(uri: str, proxy: FaultyS3, other: bytes) -> None:
    """A heartbeat that is a digit longer than the one before must not look like a lease that is cut short."""
    fault = proxy.fail(OPERATIONS["read"].which, "SlowDown", times=1)
    fault.then = lambda: faulty_s3.put_behind(proxy, uri, other)
    assert storage.read_bytes(uri) == other
    proxy.heal()
    fault = proxy.fail(OPERATIONS["read"].which, "SlowDown", times=1)
    fault.then = lambda: faulty_s3.put_behind(proxy, uri, DATA)
    assert storage.sha256(uri) == hashlib.sha256(DATA).hexdigest()
    faulty_s3.put_behind(proxy, uri, other)
    proxy.heal()
    fault = proxy.fail(OPERATIONS["write"].which, "SlowDown", times=1)
    fault.then = lambda: faulty_s3.put_behind(proxy, uri, DATA)
    assert storage.replace_if(uri, b"mine", expected=hashlib.sha256(other).hexdigest()) is False
    assert storage.read_bytes(uri) == DATA


def test_a_table_that_is_replaced_while_it_is_read_is_refused(uri: str, proxy: FaultyS3) -> None:
    table = f"{uri[:-1]}t.parquet"
    storage.write_parquet(table, pa.table({"id": ["a", "b"]}))
    new = pa.BufferOutputStream()
    pq.write_table(pa.table({"id": ["c", "d"]}), new)
    fault = proxy.fail("GET .*t.parquet$", "SlowDown", times=1)
    fault.then = lambda: faulty_s3.put_behind(proxy, table, new.getvalue().to_pybytes())
    with pytest.raises(StorageError, match="was replaced while it was being read"):
        storage.read_parquet(table)
    assert storage.read_parquet(table)["id"].to_pylist() == ["c", "d"]


def test_without_credentials_what_is_public_is_read(
    uri: str, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    faulty_s3.put_behind(proxy, f"{uri}-public", DATA, ACL="public-read")
    for name in [name for name in os.environ if name.startswith("AWS_") and ("KEY" in name or "TOKEN" in name)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    clients._build_client.cache_clear()
    try:
        assert storage.read_bytes(f"{uri}-public") == DATA
        with pytest.raises(StorageError, match=r"There are no credentials here\. Give some in the environment"):
            storage.read_bytes(uri)
    finally:
        clients._build_client.cache_clear()


def test_a_put_that_was_stored_and_not_answered_is_known_as_ones_own(uri: str, proxy: FaultyS3) -> None:
    once = f"{uri[:-1]}once"
    fault = proxy.fail("PUT .*/once$", "lost", times=1)
    assert storage.put_once(once, b"mine") is True
    assert len(fault.at) == 2  # the second try was told that the file is there
    assert storage.put_once(once, b"another's") is False and storage.read_bytes(once) == b"mine"
    proxy.heal()
    fault = proxy.fail("PUT .*/once$", "lost", times=1)
    assert storage.replace_if(once, b"next", expected=storage.sha256(once)) is True
    assert len(fault.at) == 2 and storage.read_bytes(once) == b"next"


def test_a_put_of_another_in_between_is_not_ones_own(uri: str, proxy: FaultyS3) -> None:
    """The connection ends before the server has stored it, another writer is faster, and the retry must not win."""
    once = f"{uri[:-1]}once"
    fault = proxy.fail("PUT .*/once$", "cut", times=1)
    fault.then = lambda: faulty_s3.put_behind(proxy, once, b"another's")
    assert storage.put_once(once, b"mine") is False
    assert storage.read_bytes(once) == b"another's"


def test_a_put_that_is_never_answered_has_been_made(uri: str, proxy: FaultyS3) -> None:
    once = f"{uri[:-1]}once"
    proxy.fail("PUT .*/once$", "lost")
    with pytest.raises(StorageError, match=AGAIN):
        storage.put_once(once, b"mine")
    proxy.heal()
    assert storage.put_once(once, b"mine") is False and storage.read_bytes(once) == b"mine"


@pytest.mark.parametrize("name", ["look", "read", "list", "write", "stamp"])
def test_what_is_forbidden_is_not_tried_again(name: str, uri: str, proxy: FaultyS3) -> None:
    fault = proxy.fail(OPERATIONS[name].which, "403")
    with pytest.raises(StorageError, match=r"These credentials may not\. Give others in the environment"):
        OPERATIONS[name].use(uri)
    assert len(fault.at) == 1
