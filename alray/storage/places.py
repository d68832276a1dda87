"""What a URI names: a local path, or a key in a bucket of `s3://` or `gs://`; anything else is refused here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from alray.errors import StoragePathError, nearest


def join(base: str, *parts: str) -> str:
    """Return `base/part/part`; a part may hold `/` but must stay inside `base` (no `..`, not absolute)."""
    for part in parts:
        if part.startswith("/") or ".." in part.split("/") or not part or not base:
            raise StoragePathError(f"{part!r} names nothing inside {base!r}. Give a relative path without `..`.")
    return "/".join([base.rstrip("/"), *(p.strip("/") for p in parts)])


def is_remote(uri: str) -> bool:
    """Return whether `uri` lies on object storage."""
    return place_of(uri).scheme != "file"


def is_relative(uri: str) -> bool:
    """Return whether `uri` is a local path that another machine, or another folder, would read differently."""
    place = place_of(uri)
    return place.scheme == "file" and "://" not in uri and not os.path.isabs(os.path.expanduser(uri))


def local_path(uri: str) -> Path | None:
    """Return the absolute local path that `uri` names, or None when it is remote."""
    place = place_of(uri)
    return Path(place.path) if place.scheme == "file" else None


class Place(NamedTuple):
    scheme: str  # "file", "s3" or "gs"
    path: str  # an absolute local path, or bucket/key

    @property
    def bucket_key(self) -> tuple[str, str]:
        bucket, _, key = self.path.partition("/")
        return bucket, key

    def __str__(self) -> str:
        return self.path if self.scheme == "file" else f"{self.scheme}://{self.path}"


def place_of(uri: str) -> Place:
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", uri) or re.match(r"(s3|gs|file):", uri)
    scheme, rest = (found[1].lower(), uri[found.end() :]) if found else ("file", uri)
    if not uri.strip() or "\0" in uri:
        raise StoragePathError(f"The path {uri!r} is empty or has a null character. Give a file, a folder or a URI.")
    if found and "@" in rest.split("/")[0]:
        raise StoragePathError(
            f"{scheme}://***@{rest.split('/')[0].rpartition('@')[2]}/…: a URI must not hold credentials, because it "
            "is stored with the run. Put them in the environment (AWS_ACCESS_KEY_ID, …) or in a profile."
        )
    if scheme not in ("file", "s3", "gs"):
        hint = nearest(scheme, ["s3", "gs", "file"])
        raise StoragePathError(f"{uri}: alray does not read `{scheme}://`. Give a local path, s3:// or gs://.{hint}")
    if found and not found[0].endswith("//"):
        raise StoragePathError(f"{uri}: a `{scheme}` URI begins with `{scheme}://`.")
    return _local_place(uri, rest, bool(found)) if scheme == "file" else _bucket_place(uri, scheme, rest)


def _local_place(uri: str, rest: str, is_uri: bool) -> Place:
    if is_uri:
        if not rest.removeprefix("localhost").startswith("/"):
            raise StoragePathError(f"{uri}: a file URI holds an absolute path of this machine, as file:///data/pool.")
        rest = unquote(rest.removeprefix("localhost"))
    return Place("file", os.path.abspath(os.path.expanduser(rest)))


def _bucket_place(uri: str, scheme: str, rest: str) -> Place:
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{2,221}(/|$)", rest):
        raise StoragePathError(f"{uri}: {rest.split('/')[0]!r} is no bucket name. Write {scheme}://bucket/folder/file.")
    if re.search(r"\?\w+=", rest):
        raise StoragePathError(
            f"{uri.split('?')[0]}?…: settings in a URI are not read. Use `storage.endpoint` and `storage.region`."
        )
    if ".." in rest.split("/"):
        raise StoragePathError(f"{uri}: `..` has no meaning in a bucket. Write the path out.")
    return Place(scheme, re.sub("/+", "/", rest).rstrip("/"))
