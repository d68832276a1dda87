"""What the paths of a pool name: Parquet files, or folders of pictures.

Folders are read without their subfolders. Other files in them (a README, a labels CSV) are none of the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from alray import storage
from alray.errors import PoolError
from alray.pool import folder

PARQUET = (".parquet", ".pq")


@dataclass(frozen=True, order=True)
class Source:
    """One Parquet file, or one folder and the pattern that its pictures' names match (`pattern` is "" for a file)."""

    uri: str
    pattern: str = ""


def find(paths: str | Sequence[str]) -> list[Source]:
    """Return the sources of a pool, sorted by location, each once; PoolError when there are none or of two kinds."""
    given = [paths] if isinstance(paths, str) else list(paths)
    if not given:
        raise PoolError("`pool.path` names no files. Give a Parquet file, a glob, or a folder of pictures.")
    found = sorted({source for path in given for source in _of_path(path)})
    files = [s for s in found if not s.pattern]
    folders = [s for s in found if s.pattern]
    if files and folders:
        raise PoolError(
            f"The pool has Parquet files ({files[0].uri}) and loose pictures ({folders[0].uri}/{folders[0].pattern}). "
            f"A pool is one or the other: name its files by a glob such as `pool-*.parquet`."
        )
    twice = {a.uri for a, b in pairwise(folders) if a.uri == b.uri}
    if twice:
        raise PoolError(f"{min(twice)} is in the pool by more than one pattern; name the folder once.")
    return found


def _of_path(path: str) -> list[Source]:
    files = storage.expand(path)
    parquets = [Source(file) for file in files if file.lower().endswith(PARQUET)]
    pictures = [file for file in files if folder.is_picture(_name(file))]
    if not parquets and not pictures:
        shown = ", ".join(_name(file) for file in files[:3])
        raise PoolError(
            f"{path!r} has no Parquet files and no pictures (found {shown or 'nothing'}). A pool is Parquet files "
            f"({', '.join(PARQUET)}) or a folder of pictures ({', '.join(folder.SUFFIXES)}), without subfolders."
        )
    return parquets + _folders(path, pictures)


def _folders(path: str, pictures: Sequence[str]) -> list[Source]:
    parents = sorted({file.rsplit("/", 1)[0] for file in pictures})
    if parents and not storage.is_folder(path):
        if storage.exists(path):
            raise PoolError(
                f"{path!r} is one picture. A pool of pictures is a folder, or a glob such as `photos/*.jpg`."
            )
        return [Source(parent, _name(path)) for parent in parents]
    return [Source(parent, folder.ALL) for parent in parents]


def _name(uri: str) -> str:
    return uri.rsplit("/", 1)[-1]
