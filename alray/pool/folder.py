"""Folders of pictures: one row a picture, its file name the id.

A shard is a slice of the sorted names. It carries a digest of that slice, so that a folder whose listing
has changed is noticed before a row gets another row's picture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from alray import storage
from alray.errors import PoolError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

ALL = "*"


def is_picture(name: str) -> bool:
    """Return whether a file name is a picture's, by its suffix; hidden files are not."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def names(uri: str, pattern: str = ALL) -> list[str]:
    """Return the names of the pictures in a folder that match `pattern`, sorted by code point."""
    every = (file.rsplit("/", 1)[-1] for file in storage.list_files(uri))
    found = sorted(name for name in every if is_picture(name) and fnmatchcase(name, pattern))
    for name in found:
        if not name.isascii() and not _encodes(name):
            raise PoolError(f"{uri} holds a file whose name is not UTF-8: {name!r}. Names are ids; rename the file.")
    return found


def digest(uri: str, slice_of_names: Sequence[str]) -> str:
    """Return the identity of a slice: its names and, on a local disk, each file's size and time.

    On object storage that would cost a request a picture, so there only the names count.
    """
    remote = storage.is_remote(uri)
    sha = hashlib.sha256()
    for name in slice_of_names:
        stamp = "" if remote else storage.stamp(storage.join(uri, name))
        sha.update(f"{name}\0{stamp}\0".encode())
    return sha.hexdigest()


def changed(uri: str, start: int, stop: int) -> PoolError:
    """Return the error for a slice that is no longer what it was."""
    return PoolError(
        f"{uri}: pictures {start} to {stop - 1} (by name) are not those that this pool was opened on: files were "
        f"added between them, removed, renamed or written again. Put the folder back as it was, and add new "
        f"pictures as a second folder (or under names that sort last); or start a new run on the changed folder."
    )


def _encodes(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
