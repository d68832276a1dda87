"""Read and write local paths, `s3://` and `gs://` alike, so that a file is there whole or not at all.

Every write is a commit: locally a temporary file, fsync and a rename; on S3 one PUT through boto3, because
pyarrow's S3 writer overwrites silently and publishes a short file when an exception leaves its `with`.
Everything else goes through pyarrow. Clients are built where they are used, once per process, from AWS_*
variables; a URI never carries a secret, since URIs are stored and logged.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from alray.errors import StorageError, StoragePathError, nearest

TEMPORARY = ".tmp-"
"""Names that begin so are unfinished work; no listing shows them."""

CONNECT_S, ANSWER_S, ATTEMPTS, LOCK_S = 5, 60, 4, 30
_PUBLIC = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_EC2_METADATA_DISABLED",
)  # fmt: skip
_NOT_THERE = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_UNMET = {"412", "PreconditionFailed"}
_BUSY = {"409", "ConditionalRequestConflict"}  # another conditional write was under way: try again


# What a URI names


class _Place(NamedTuple):
    scheme: str  # "file", "s3" or "gs"
    path: str  # an absolute local path, or bucket/key

    @property
    def bucket_key(self) -> tuple[str, str]:
        bucket, _, key = self.path.partition("/")
        return bucket, key

    def __str__(self) -> str:
        return self.path if self.scheme == "file" else f"{self.scheme}://{self.path}"


def _place(uri: str) -> _Place:
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


def _local_place(uri: str, rest: str, is_uri: bool) -> _Place:
    if is_uri:
        if not rest.removeprefix("localhost").startswith("/"):
            raise StoragePathError(f"{uri}: a file URI holds an absolute path of this machine, as file:///data/pool.")
        rest = unquote(rest.removeprefix("localhost"))
    return _Place("file", os.path.abspath(os.path.expanduser(rest)))


def _bucket_place(uri: str, scheme: str, rest: str) -> _Place:
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9._-]{2,221}(/|$)", rest):
        raise StoragePathError(f"{uri}: {rest.split('/')[0]!r} is no bucket name. Write {scheme}://bucket/folder/file.")
    if re.search(r"\?\w+=", rest):
        raise StoragePathError(
            f"{uri.split('?')[0]}?…: settings in a URI are not read. Use `storage.endpoint` and `storage.region`."
        )
    if ".." in rest.split("/"):
        raise StoragePathError(f"{uri}: `..` has no meaning in a bucket. Write the path out.")
    return _Place(scheme, re.sub("/+", "/", rest).rstrip("/"))


def join(base: str, *parts: str) -> str:
    """Return `base/part/part`; a part may hold `/` but must stay inside `base` (no `..`, not absolute)."""
    for part in parts:
        if part.startswith("/") or ".." in part.split("/") or not part or not base:
            raise StoragePathError(f"{part!r} names nothing inside {base!r}. Give a relative path without `..`.")
    return "/".join([base.rstrip("/"), *(p.strip("/") for p in parts)])


def is_remote(uri: str) -> bool:
    """Return whether `uri` lies on object storage."""
    return _place(uri).scheme != "file"


def is_relative(uri: str) -> bool:
    """Return whether `uri` is a local path that another machine, or another folder, would read differently."""
    place = _place(uri)
    return place.scheme == "file" and "://" not in uri and not os.path.isabs(os.path.expanduser(uri))


def local_path(uri: str) -> Path | None:
    """Return the absolute local path that `uri` names, or None when it is remote."""
    place = _place(uri)
    return Path(place.path) if place.scheme == "file" else None


# Clients


def configure(endpoint: str | None, region: str | None) -> None:
    """Point S3 at `endpoint` and `region` in this process and those it starts; None leaves what is set."""
    if endpoint is not None:
        parts = urlsplit(endpoint)
        if "@" in parts.netloc:
            raise StoragePathError("`storage.endpoint` must not hold credentials. Put them in the environment.")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise StoragePathError(f"`storage.endpoint` is {endpoint!r}; it must begin with http:// or https://.")
        os.environ["AWS_ENDPOINT_URL_S3"] = endpoint
    if region is not None:
        os.environ["AWS_REGION"] = os.environ["AWS_DEFAULT_REGION"] = region


def environment() -> dict[str, str]:
    """Return the AWS_* variables that a worker needs to find the same storage; never a secret."""
    return {name: os.environ[name] for name in _PUBLIC if name in os.environ}


def _endpoint_region() -> tuple[str | None, str | None]:
    get = os.environ.get
    endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")
    return endpoint, get("AWS_REGION") or get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)


def _filesystem(scheme: str) -> pafs.FileSystem:
    return _build_filesystem(scheme, os.getpid(), *_endpoint_region())


@functools.lru_cache(maxsize=8)
def _build_filesystem(scheme: str, _pid: int, endpoint: str | None, region: str | None) -> pafs.FileSystem:
    if scheme == "file":
        return pafs.LocalFileSystem()
    if scheme == "gs":
        return pafs.GcsFileSystem()
    found = urlsplit(endpoint or "")
    where = {"endpoint_override": found.netloc, "scheme": found.scheme} if endpoint else {}
    retry = pafs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
    return pafs.S3FileSystem(
        region=region, connect_timeout=CONNECT_S, request_timeout=ANSWER_S, retry_strategy=retry, **where
    )


@functools.lru_cache(maxsize=4)
def _build_client(_pid: int, endpoint: str | None, region: str | None) -> Any:
    import boto3  # a third of a second, needed only on S3
    from botocore.config import Config

    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=ANSWER_S,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path"} if endpoint else {},
        request_checksum_calculation="when_required",  # other S3 servers refuse the newer trailing checksums
        response_checksum_validation="when_required",
    )
    return boto3.session.Session().client("s3", endpoint_url=endpoint, region_name=region, config=config)


@contextmanager
def _named(verb: str, uri: str) -> Iterator[None]:
    """Turn what the system raises into our errors, with the URI in the message."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoragePathError(f"Cannot {verb} {uri}: there is no such file. Check the path.") from error
    except (OSError, pa.ArrowException) as error:
        raise StorageError(f"Cannot {verb} {uri}: {error}") from error


class _Refused(Exception):
    """A conditional request was answered with this code."""


def _s3(verb: str, uri: str, operation: str, **arguments: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = _place(uri).bucket_key
    client = _build_client(os.getpid(), *_endpoint_region())
    try:
        answer: dict[str, Any] = getattr(client, operation)(Bucket=bucket, Key=key, **arguments)
        return answer
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in _UNMET | _BUSY:
            raise _Refused(code) from error
        if code in _NOT_THERE:
            raise StoragePathError(f"Cannot {verb} {uri}: there is no such file or bucket ({code}).") from error
        raise StorageError(f"Cannot {verb} {uri}: {error}") from error
    except BotoCoreError as error:
        raise StorageError(f"Cannot {verb} {uri}: {error}") from error


# Looking


def _info(uri: str) -> pafs.FileInfo:
    place = _place(uri)
    with _named("look at", uri):
        return _filesystem(place.scheme).get_file_info(place.path)


def exists(uri: str) -> bool:
    """Return whether there is a file or folder at `uri`."""
    return bool(_info(uri).type != pafs.FileType.NotFound)


def is_folder(uri: str) -> bool:
    """Return whether there is a folder at `uri`."""
    return bool(_info(uri).type == pafs.FileType.Directory)


def _file_info(uri: str) -> pafs.FileInfo:
    info = _info(uri)
    if info.type != pafs.FileType.File:
        kind = "it is a folder" if info.type == pafs.FileType.Directory else "there is no such file"
        raise StoragePathError(f"Cannot read {uri}: {kind}. Check the path.")
    return info


def size(uri: str) -> int:
    """Return the size of a file in bytes."""
    return int(_file_info(uri).size)


def stamp(uri: str) -> str:
    """Return a short text that changes when the file's content does: its S3 etag, else size and mtime."""
    if _place(uri).scheme == "s3":
        return str(_s3("look at", uri, "head_object")["ETag"]).strip('"')
    info = _file_info(uri)
    return f"{info.size}-{info.mtime_ns}"


def _list(folder: str, kind: pafs.FileType) -> list[str]:
    place = _place(folder)
    selector = pafs.FileSelector(place.path, allow_not_found=True)
    with _named("list", folder):
        infos = _filesystem(place.scheme).get_file_info(selector)
    names = sorted(i.base_name for i in infos if i.type == kind and not i.base_name.startswith(TEMPORARY))
    return [f"{str(place).rstrip('/')}/{name}" for name in names]


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
    place = _place(path)
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


def _name(uri: str) -> str:
    return uri.rpartition("/")[2]


# Reading


def open_input(uri: str) -> pa.NativeFile:
    """Open a file for random access; the caller closes it (`with`)."""
    place = _place(uri)
    with _named("read", uri):
        return _filesystem(place.scheme).open_input_file(place.path)


def read_bytes(uri: str) -> bytes:
    """Return the whole content of a file."""
    with open_input(uri) as file, _named("read", uri):
        return bytes(file.read())


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
    with open_input(uri) as file, _named("read", uri):
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
    digest = hashlib.sha256()
    with open_input(uri) as file, _named("read", uri):
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


# Writing


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
    if _place(uri).scheme == "s3":
        return _replace_on_s3(uri, data, expected)
    _refuse_gs(uri)
    with _locked(uri):
        if not exists(uri) or sha256(uri) != expected:
            return False
        write_bytes(uri, data)
        return True


def _replace_on_s3(uri: str, data: bytes, expected: str) -> bool:
    try:
        tag = stamp(uri)  # before the content: a write between the two makes the PUT fail
        return sha256(uri) == expected and _put(uri, data, IfMatch=f'"{tag}"')
    except StoragePathError:  # it is gone
        return False


@contextmanager
def staged(uri: str) -> Iterator[Path]:
    """Yield a local path to write one file to; commit it to `uri` on a clean exit, and nothing on an exception."""
    with _temporary(uri) as temp:
        yield temp
        if not temp.is_file():
            raise StorageError(f"Cannot write {uri}: nothing was written to its temporary file {temp}.")
        with _named("write", uri):
            _commit(temp, uri) if not is_remote(uri) else _put(uri, temp)


def delete(uri: str) -> None:
    """Delete a file; nothing happens if there is none."""
    place = _place(uri)
    if place.scheme == "s3":
        _s3("delete", uri, "delete_object")
    elif exists(uri):
        with _named("delete", uri):
            _filesystem(place.scheme).delete_file(place.path)


def delete_folder(uri: str) -> None:
    """Delete a folder and all that is in it; nothing happens if there is none. A whole bucket or disk is refused."""
    place = _place(uri)
    if not place.path.strip("/") or (place.scheme != "file" and "/" not in place.path):
        raise StoragePathError(f"{uri} is a whole bucket or disk; alray deletes only folders in one.")
    with _named("delete", uri):
        if place.scheme == "file":
            shutil.rmtree(place.path) if os.path.isdir(place.path) else None
        elif is_folder(uri):
            _filesystem(place.scheme).delete_dir(place.path)


# How a commit is made


def _write(uri: str, data: bytes, *, once: bool = False) -> bool:
    if is_remote(uri):
        return _put(uri, data, **({"IfNoneMatch": "*"} if once else {}))
    with _temporary(uri) as temp, _named("write", uri):
        temp.write_bytes(data)
        return _commit(temp, uri, once=once)


@contextmanager
def _temporary(uri: str) -> Iterator[Path]:
    place = _place(uri)
    folder = Path(place.path).parent if place.scheme == "file" else Path(tempfile.gettempdir())
    temp = folder / f"{TEMPORARY}{uuid.uuid4().hex[:12]}-{_name(place.path)[-100:]}"
    with _named("write", uri):
        folder.mkdir(parents=True, exist_ok=True)
    try:
        yield temp
    finally:
        temp.unlink(missing_ok=True)


def _commit(temp: Path, uri: str, *, once: bool = False) -> bool:
    """Give a local temporary file its name; with `once` only if the name is free. Every local rename is here."""
    target = Path(_place(uri).path)
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
    if _place(uri).scheme == "gs":
        return _put_gs(uri, body, **condition)
    mark = uuid.uuid4().hex
    for attempt in range(ATTEMPTS):
        try:
            with body.open("rb") if isinstance(body, Path) else pa.BufferReader(body) as data:
                _s3("write", uri, "put_object", Body=data, Metadata={"alray-put": mark}, **condition)
            return True
        except _Refused as refused:
            if str(refused) in _UNMET:  # perhaps by our own first try, whose answer was lost: the mark tells
                found = _s3("look at", uri, "head_object").get("Metadata", {})
                return bool(found.get("alray-put") == mark)
            time.sleep(0.05 * 2**attempt)
    raise StorageError(f"Cannot write {uri}: others write to it all the time.")


def _put_gs(uri: str, body: bytes | Path, **condition: str) -> bool:
    if condition:
        _refuse_gs(uri)
    data = body.read_bytes() if isinstance(body, Path) else body
    with _named("write", uri), _filesystem("gs").open_output_stream(_place(uri).path) as out:
        out.write(data)
    return True


def _refuse_gs(uri: str) -> None:
    if _place(uri).scheme == "gs":
        raise StoragePathError(f"{uri}: alray cannot create a file just once on gs://. Keep `run:` on s3:// or a disk.")


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """Hold a file's lock, which the system drops when its holder dies, so that no dead process blocks others."""
    target = Path(_place(uri).path)
    target.parent.mkdir(parents=True, exist_ok=True)
    give_up = time.monotonic() + LOCK_S
    with (target.parent / f"{TEMPORARY}lock-{target.name}").open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up:
                    raise StorageError(f"Cannot lock {uri}: another process holds it for {LOCK_S} s.") from None
                time.sleep(0.01)
        yield
