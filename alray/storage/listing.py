"""What is there: files and folders looked at, listed and matched by name."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

import pyarrow.fs as pafs

from alray.errors import StoragePathError
from alray.storage import clients, places

TEMPORARY = ".tmp-"
"""Names that begin so are unfinished work; no listing shows them."""


def exists(uri: str) -> bool:
    """Return whether there is a file or folder at `uri`."""
    return bool(_info(uri).type != pafs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """Return whether there is a folder at `uri`."""
    return bool(_info(uri).type == pafs.FileType.Directory)


def size(uri: str) -> int:
    """Return the size of a file in bytes."""
    return int(_file_info(uri).size)


def stamp(uri: str) -> str:
    """Return a short text that changes when the file's content does: its S3 etag, else size and mtime."""
    if places.place_of(uri).scheme == "s3":
        return str(clients.s3("look at", uri, "head_object")["ETag"]).strip('"')
    info = _file_info(uri)
    return f"{info.size}-{info.mtime_ns}"


def list_files(folder: str) -> list[str]:
    """Return the files of a folder, not of its sub-folders, sorted by name; absolute; none if there is no folder."""
    return _list(folder, pafs.FileType.File)


def list_folders(folder: str) -> list[str]:
    """Return the sub-folders of a folder, sorted by name; absolute."""
    return _list(folder, pafs.FileType.Directory)


def expand(path: str | Sequence[str]) -> list[str]:
    """Return the files that a path, glob or folder (or several) names: absolute, sorted, each once.

    Folders are read without their sub-folders and hidden files (decision 1); `*`, `?` and `[…]` work in
    every part of a path. Finding nothing is a StoragePathError.
    """
    paths = [path] if isinstance(path, str) else list(path)
    return sorted({file for one in paths for file in _expand(one)})


def _expand(path: str) -> list[str]:
    place = places.place_of(path)
    kind = _info(path).type
    if kind == pafs.FileType.File:  # before globs: a name may hold a bracket
        return [str(place)]
    if kind == pafs.FileType.Directory:
        files = [f for f in list_files(path) if not _name(f).startswith(".")]
        hint = f" It has sub-folders, which are not read: give {path.rstrip('/')}/*/*." if list_folders(path) else ""
        problem = f"The folder {path} has no files.{hint}"
    else:
        root, *parts = re.split(r"/(?=[^/]*[*?\[])", str(place), maxsplit=1)
        files = list(_match(root, parts[0].split("/"))) if parts else []
        problem = f"{path} matches no file." if parts else f"There is no file or folder {path}."
    if not files:
        raise StoragePathError(f"{problem} Give a file, a glob or a folder with files in it.")
    return files


def _match(folder: str, patterns: Sequence[str]) -> Iterator[str]:
    pattern, *rest = patterns
    for entry in list_folders(folder) if rest else list_files(folder):
        hidden = _name(entry).startswith(".") and not pattern.startswith(".")
        if not hidden and fnmatchcase(_name(entry), pattern):
            yield from _match(entry, rest) if rest else [entry]


def _list(folder: str, kind: pafs.FileType) -> list[str]:
    place = places.place_of(folder)
    with clients.named("list", folder):
        found = _scan(place.path, kind) if place.scheme == "file" else _ask(place, kind)
    names = sorted(name for name in found if not name.startswith(TEMPORARY))
    return [f"{str(place).rstrip('/')}/{name}" for name in names]


def _scan(path: str, kind: pafs.FileType) -> list[str]:
    # Not through pyarrow: it fails when a temporary file is renamed between the listing and its own look at it.
    if not os.path.isdir(path):
        return []
    with os.scandir(path) as entries:
        return [e.name for e in entries if (e.is_file() if kind == pafs.FileType.File else e.is_dir())]


def _ask(place: places.Place, kind: pafs.FileType) -> list[str]:
    selector = pafs.FileSelector(place.path, allow_not_found=True)
    return [i.base_name for i in clients.filesystem(place.scheme).get_file_info(selector) if i.type == kind]


def _file_info(uri: str) -> pafs.FileInfo:
    info = _info(uri)
    if info.type != pafs.FileType.File:
        kind = "it is a folder" if info.type == pafs.FileType.Directory else "there is no such file"
        raise StoragePathError(f"Cannot read {uri}: {kind}. Check the path.")
    return info


def _info(uri: str) -> pafs.FileInfo:
    place = places.place_of(uri)
    with clients.named("look at", uri):
        return clients.filesystem(place.scheme).get_file_info(place.path)


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]
