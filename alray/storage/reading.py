"""Read a file whole, by columns or at random."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alray.errors import AlrayError, StorageError, StoragePathError, nearest
from alray.storage import clients, listing, places


def open_input(uri: str) -> pa.NativeFile:
    """Open a file for random access; the caller closes it (`with`).

    On S3 its size is asked for once and each part by itself, so it must not be replaced meanwhile: where it may be,
    use `read_bytes` or `open_unchanged`.
    """
    place = places.place_of(uri)
    with clients.named("read", uri):
        return clients.filesystem(place.scheme).open_input_file(place.path)


def read_bytes(uri: str) -> bytes:
    """Return the whole content of a file, as it is at one moment: old or new where another process replaces it."""
    place = places.place_of(uri)
    if place.scheme == "s3":
        return clients.content(uri).data
    with clients.named("read", uri):
        if place.scheme == "file":
            return Path(place.path).read_bytes()
        with clients.filesystem(place.scheme).open_input_stream(place.path, compression=None) as file:
            return bytes(file.read())


def read_if_there(uri: str) -> bytes | None:
    """Return the whole content of a file, None where there is none: asking first would leave a moment in between."""
    try:
        return read_bytes(uri)
    except StoragePathError:
        return read_bytes(uri) if listing.exists(uri) else None  # it has just come, or is no file and fails again


@contextmanager
def open_unchanged(uri: str) -> Iterator[pa.NativeFile]:
    """Open a file for random access in a `with`; raise StorageError at its end if the file was replaced meanwhile."""
    before = listing.stamp(uri)
    try:
        with open_input(uri) as file:
            yield file
    except (OSError, pa.ArrowException, AlrayError) as error:
        _refuse_another(uri, before)
        with nullcontext() if isinstance(error, pa.ArrowInvalid | AlrayError) else clients.named("read", uri):
            raise
    _refuse_another(uri, before)


def _refuse_another(uri: str, before: str) -> None:
    if listing.stamp(uri) != before:
        raise StorageError(f"{uri} was replaced while it was being read. Nothing was taken from it; run this again.")


def read_text(uri: str) -> str:
    """Return the content of a UTF-8 text file (a byte-order mark is dropped)."""
    try:
        return read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoragePathError(f"{uri} is not UTF-8 text: {error}. Save it as UTF-8.") from error


def read_json(uri: str, *, schema: int = 1) -> Any:
    """Return the object of a JSON file; refuse one whose `schema` is newer than the one understood."""
    try:
        value = json.loads(read_text(uri))
    except json.JSONDecodeError as error:
        raise StoragePathError(f"{uri} is not JSON: {error}") from error
    stored = value.get("schema", schema) if isinstance(value, dict) else schema
    if isinstance(stored, int) and stored > schema:
        raise StoragePathError(
            f"{uri} has schema {stored}; this alray reads schema {schema} and older. Use the alray that wrote it."
        )
    return value


def read_parquet(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a Parquet file as a table, with these columns or all; a column that is not there is an error."""
    with open_unchanged(uri) as file, clients.named("read", uri):
        try:
            parquet = pq.ParquetFile(file)
        except pa.ArrowInvalid as error:
            raise StoragePathError(f"{uri} is not a readable Parquet file: {error}") from error
        missing = [c for c in columns or () if c not in parquet.schema_arrow.names]
        if missing:
            have = ", ".join(parquet.schema_arrow.names)
            hint = nearest(missing[0], parquet.schema_arrow.names)
            raise StoragePathError(f"{uri} has no column `{missing[0]}`; it has: {have}.{hint}")
        return parquet.read(columns=None if columns is None else list(columns))


def sha256(uri: str) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    if places.is_remote(uri):
        return hashlib.sha256(read_bytes(uri)).hexdigest()
    digest = hashlib.sha256()
    with open_input(uri) as file, clients.named("read", uri):
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
