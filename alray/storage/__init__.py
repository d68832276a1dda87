"""Read and write local paths, `s3://` and `gs://` alike, so that a file is there whole or not at all.

Every write is a commit: locally a temporary file, fsync and a rename; on S3 one PUT through boto3, because
pyarrow's S3 writer overwrites silently and publishes a short file when an exception leaves its `with`. A whole read
on S3 is one GET through boto3, because pyarrow asks for the size first, and the file may be replaced in between.
Everything else goes through pyarrow. A URI never carries a secret, since URIs are stored and logged.

The commits are here; `places` says what a URI names, `clients` how it is reached, `listing` and `reading` what is
there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alray.errors import StorageError, StoragePathError
from alray.storage import clients, places
from alray.storage.clients import configure, environment
from alray.storage.listing import TEMPORARY, exists, expand, is_folder, list_files, list_folders, size, stamp
from alray.storage.places import is_relative, is_remote, join, local_path
from alray.storage.reading import (
    open_input,
    open_unchanged,
    read_bytes,
    read_if_there,
    read_json,
    read_parquet,
    read_text,
    sha256,
)

__all__ = [
    "TEMPORARY", "configure", "delete", "delete_folder", "environment", "exists", "expand", "is_folder",
    "is_relative", "is_remote", "join", "list_files", "list_folders", "local_path", "open_input", "open_unchanged",
    "put_once", "read_bytes", "read_if_there", "read_json", "read_parquet", "read_text", "replace_if", "sha256", "size",
    "staged", "stamp", "write_bytes", "write_json", "write_parquet",
]  # fmt: skip

LOCK_S = 30
"""How long to wait for another process that compares and swaps the same file."""


def write_bytes(uri: str, data: bytes) -> None:
    """Write a file atomically, in place of whatever was there."""
    _write(uri, data)


def write_json(uri: str, value: Any) -> None:
    """Write an object as indented UTF-8 JSON, keys in their own order; NaN is refused with a ValueError."""
    _write(uri, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def write_parquet(uri: str, table: pa.Table) -> None:
    """Write a table as one Parquet file, atomically."""
    with staged(uri) as temp:
        pq.write_table(table, temp)


def put_once(uri: str, data: bytes) -> bool:
    """Create a file if nothing is there, and return whether this call did: of many callers, one gets True."""
    return _write(uri, data, once=True)


def replace_if(uri: str, data: bytes, *, expected: str | None) -> bool:
    """Replace a file only if the SHA-256 of its content is `expected` (None: if it is absent); return whether it was.

    Of several callers that expect the same content, one gets True. For small files: the content is read first.
    """
    if expected is None:
        return put_once(uri, data)
    if places.place_of(uri).scheme == "s3":
        return _replace_on_s3(uri, data, expected)
    _refuse_gs(uri)
    with _locked(uri):
        if not exists(uri) or sha256(uri) != expected:
            return False
        write_bytes(uri, data)
        return True


@contextmanager
def staged(uri: str) -> Iterator[Path]:
    """Yield a local path to write one file to; commit it to `uri` on a clean exit, and nothing on an exception."""
    with _temporary(uri) as temp:
        with clients.room_on(temp, uri):
            yield temp
        if not temp.is_file():
            raise StorageError(f"Cannot write {uri}: nothing was written to its temporary file {temp}.")
        with clients.named("write", uri):
            _commit(temp, uri) if not is_remote(uri) else _put(uri, temp)


def delete(uri: str) -> None:
    """Delete a file; nothing happens if there is none."""
    place = places.place_of(uri)
    if place.scheme == "s3":
        clients.s3("delete", uri, "delete_object")
    elif exists(uri):
        with clients.named("delete", uri):
            clients.filesystem(place.scheme).delete_file(place.path)


def delete_folder(uri: str) -> None:
    """Delete a folder and all that is in it; nothing happens if there is none. A whole bucket or disk is refused."""
    place = places.place_of(uri)
    if not place.path.strip("/") or (place.scheme != "file" and "/" not in place.path):
        raise StoragePathError(f"{uri} is a whole bucket or disk; alray deletes only folders in one.")
    with clients.named("delete", uri):
        if place.scheme == "file":
            shutil.rmtree(place.path, onerror=_unless_gone)
        elif is_folder(uri):
            clients.filesystem(place.scheme).delete_dir(place.path)


def _unless_gone(_: object, path: str, fault: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(fault[1], FileNotFoundError):  # another process may be deleting the same folder
        raise fault[1]


def _write(uri: str, data: bytes, *, once: bool = False) -> bool:
    if is_remote(uri):
        return _put(uri, data, **({"IfNoneMatch": "*"} if once else {}))
    with _temporary(uri) as temp, clients.named("write", uri):
        temp.write_bytes(data)
        return _commit(temp, uri, once=once)


def _replace_on_s3(uri: str, data: bytes, expected: str) -> bool:
    try:
        found = clients.content(uri)
        return hashlib.sha256(found.data).hexdigest() == expected and _put(uri, data, IfMatch=found.tag)
    except StoragePathError:  # it is gone
        return False


@contextmanager
def _temporary(uri: str) -> Iterator[Path]:
    place = places.place_of(uri)
    folder = Path(place.path).parent if place.scheme == "file" else Path(tempfile.gettempdir())
    temp = folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{place.path.rpartition('/')[2][-100:]}"
    with clients.named("write", uri):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield temp
    finally:
        with suppress(OSError):  # of a disk that fails: what failed first is what counts
            temp.unlink(missing_ok=True)


def _commit(temp: Path, uri: str, *, once: bool = False) -> bool:
    """Give a local temporary file its name; with `once` only if the name is free. Every local rename is here."""
    target = Path(places.place_of(uri).path)
    _sync(temp)
    try:
        os.link(temp, target) if once else os.replace(temp, target)
    except FileExistsError:
        return False
    _sync(target.parent)
    return True


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(uri: str, body: bytes | Path, **condition: str) -> bool:
    """Send one PUT (up to 5 GiB); return False if `condition` was not met. Every S3 write is here."""
    if places.place_of(uri).scheme == "gs":
        return _put_gs(uri, body, **condition)
    mark = uuid.uuid4().hex
    for attempt in range(clients.ATTEMPTS):
        try:
            with body.open("rb") if isinstance(body, Path) else pa.BufferReader(body) as data:
                clients.s3("write", uri, "put_object", Body=data, Metadata={"alray-put": mark}, **condition)
            return True
        except clients.Refused as refused:
            if str(refused) in clients.UNMET:  # perhaps by our own first try, whose answer was lost: the mark tells
                found = clients.s3("look at", uri, "head_object").get("Metadata", {})
                return bool(found.get("alray-put") == mark)
            time.sleep(0.05 * 2**attempt)
    raise StorageError(f"Cannot write {uri}: others write to it all the time.")


def _put_gs(uri: str, body: bytes | Path, **condition: str) -> bool:
    if condition:
        _refuse_gs(uri)
    data = body.read_bytes() if isinstance(body, Path) else body
    with clients.named("write", uri), clients.filesystem("gs").open_output_stream(places.place_of(uri).path) as out:
        out.write(data)
    return True


def _refuse_gs(uri: str) -> None:
    if places.place_of(uri).scheme == "gs":
        raise StoragePathError(f"{uri}: alray cannot create a file just once on gs://. Keep `run:` on s3:// or a disk.")


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Hold a file's lock, which the system drops when its holder dies, so that no dead process blocks others."""
    target = Path(places.place_of(uri).path)
    give_up = time.monotonic() + LOCK_S
    with clients.named("lock", uri):
        target.parent.mkdir(parents=True, exist_ok=True)
        held = (target.parent / f"{TEMPORARY}lock-{target.name}").open("w")
    with held as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise StorageError(f"Cannot lock {uri}: another process holds it for {LOCK_S} s.") from None
                time.sleep(0.01)
        yield
