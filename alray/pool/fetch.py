"""The bytes of picture files: found, bounded and read, or a reason why not.

A picture that cannot be read is one row's fault and never stops a round.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from alray import storage
from alray.errors import StorageError, StoragePathError
from alray.pool import images

IN_FLIGHT = 16
"""Remote pictures asked for at the same time."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be used, and why."""

    reason: str


def resolve(cell: str | None, folder: str, roots: Sequence[str] = ()) -> str | BadRow:
    """Return the location that a `uri` cell names; a relative one stands under `folder`.

    No local one, links followed, may leave `folder` and `roots`: whoever wrote the file could have anything shown to
    the people who label.
    """
    if not cell:
        return BadRow("`uri` is null" if cell is None else "`uri` is empty")
    if "\0" in cell:
        return BadRow(f"`uri` {cell!r} holds a null character")
    if "://" in cell or cell.startswith("/"):
        return _within(cell, cell, (folder, *roots))
    parts: list[str] = []
    for part in cell.split("/"):
        if part == "..":
            if not parts:
                return BadRow(f"`uri` {cell!r} leaves the folder of its Parquet file")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        return BadRow(f"`uri` {cell!r} names no file")
    return _within(storage.join(folder, *parts), cell, (folder, *roots))


def _within(where: str, cell: str, roots: Sequence[str]) -> str | BadRow:
    try:
        path = storage.local_path(where)
    except StoragePathError:
        return where  # `read` gives the reason
    if path is None or any(Path(os.path.realpath(path)).is_relative_to(root) for root in _real(tuple(roots))):
        return where
    return BadRow(f"`uri` {cell!r} leaves the folder of its Parquet file and `pool.roots`")


@lru_cache(maxsize=16)
def _real(roots: tuple[str, ...]) -> list[str]:
    return [os.path.realpath(path) for path in map(storage.local_path, roots) if path is not None]


def fetch(uris: Iterable[str | BadRow]) -> Iterator[bytes | BadRow]:
    """Yield the bytes behind each location, in order; remote ones are read a few at a time."""
    with ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="fetch") as threads:
        waiting: deque[Future[bytes | BadRow] | str | BadRow] = deque()
        for uri in uris:
            remote = isinstance(uri, str) and _remote(uri)
            waiting.append(threads.submit(read, str(uri)) if remote else uri)
            if len(waiting) > IN_FLIGHT:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def read(uri: str) -> bytes | BadRow:
    """Return the bytes of one picture file, or why there are none.

    StorageError when object storage itself fails: that may pass, and would fault every row.
    """
    try:
        path = storage.local_path(uri)
        return _read_remote(uri) if path is None else _read_local(path)
    except StoragePathError as error:
        return BadRow(f"cannot be read: {error}")


def _read_local(path: Path) -> bytes | BadRow:
    try:
        if not path.is_file():  # also keeps a reader from hanging on a pipe or a device
            return BadRow(f"{path} is no file" if path.exists() else f"{path} does not exist")
        size = path.stat().st_size
        return _too_large(str(path), size) if size > images.MAX_BYTES else path.read_bytes()
    except OSError as error:
        return BadRow(f"{path} cannot be read: {error.strerror or error}")


def _read_remote(uri: str) -> bytes | BadRow:
    try:
        with storage.open_input(uri) as source:
            size = int(source.size())
            return _too_large(uri, size) if size > images.MAX_BYTES else bytes(source.read(size))
    except StorageError as error:
        if "ACCESS_DENIED" in str(error):  # of this picture; other failures are of the storage
            return BadRow(f"{uri} cannot be read: access denied")
        raise
    except OSError as error:
        raise StorageError(f"Cannot read {uri}: {error}. Run the same command again.") from error


def _too_large(uri: str, size: int) -> BadRow:
    return BadRow(f"{uri} has {size:,} bytes, more than {images.MAX_BYTES:,}")


def _remote(uri: str) -> bool:
    try:
        return storage.is_remote(uri)
    except StoragePathError:
        return False  # `read` gives the reason


def _result(item: Future[bytes | BadRow] | str | BadRow) -> bytes | BadRow:
    if isinstance(item, Future):
        return item.result()
    return read(item) if isinstance(item, str) else item
