"""The clients that reach storage: pyarrow's file systems, and boto3 for what must be conditional.

They are built where they are used, once per process, from AWS_* variables, so that workers inherit them and no client
crosses a fork. Every wait is bounded; what the system raises becomes one of our errors, with the URI in its message.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from alray.errors import StorageError, StoragePathError
from alray.storage import places

CONNECT_S, ANSWER_S = 5, 15
"""How long to wait for a connection, and for the next byte of an answer."""

BROKEN_S = 60
"""How long to ask again for answers that end in the middle, each after tries of its own."""

ATTEMPTS, PYARROW_RETRIES = 5, 8
"""How often a request is sent: boto3 pauses up to 1, 2, 4 and 8 s between, pyarrow 0.05 s and twice as long each time,
up to 3.2 s. Neither in its `standard` mode, which after a few dozen failures of a process sends each request once."""

UNMET = {"412", "PreconditionFailed"}
BUSY = {"409", "ConditionalRequestConflict"}  # another conditional write was under way: try again
_NOT_THERE = {"404", "NoSuchKey", "NoSuchBucket", "NotFound"}
_REFUSED = re.compile(
    r"HTTP status 40[13]\b|ACCESS_DENIED|credentials|"
    r"\((40[13]|AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken)\)"
)
"""In the words of pyarrow or boto3: storage answered, and will say the same the next time."""

_PLACES = {
    errno.EISDIR: "it is a folder. Give the path of a file.",
    errno.ENOTDIR: "a file stands where a folder is needed. Give another place.",
    errno.EEXIST: "a file stands where a folder is needed. Give another place.",
    errno.ELOOP: "its symbolic links go round in a circle. Give the file itself.",
    errno.ENAMETOOLONG: "the name is too long for this disk. Give a shorter one.",
}
"""What is wrong with a path, where the system says only a number."""

_DENIED = "this user may not. Change its permissions, or give another place."
_MACHINE = {
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: "the disk is read-only. Give another place.",
    errno.ENOSPC: "the disk is full. Make room; the same command goes on.",
    errno.EDQUOT: "the disk's quota is spent. Make room; the same command goes on.",
}
"""What may pass, and is put right on the machine."""

_THESE = "These credentials may not. Give others in the environment or a profile, or more rights."
_NONE = "There are no credentials here. Give some in the environment or a profile."

_FULL = (errno.ENOSPC, errno.EDQUOT)

_PUBLIC = (
    "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE", "AWS_CA_BUNDLE", "AWS_ROLE_ARN", "AWS_EC2_METADATA_DISABLED",
)  # fmt: skip


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


def filesystem(scheme: str) -> pafs.FileSystem:
    return _build_filesystem(scheme, os.getpid(), *_endpoint_region())


@contextmanager
def named(verb: str, uri: str) -> Iterator[None]:
    """Turn what the system raises into our errors, with the URI in the message."""
    try:
        yield
    except FileNotFoundError as error:
        raise StoragePathError(f"Cannot {verb} {uri}: there is no such file. Check the path.") from error
    except (OSError, pa.ArrowException) as error:
        number = getattr(error, "errno", None) or 0
        if str(error).endswith("is a directory"):  # pyarrow's own words, without a number
            number = errno.EISDIR
        if number in _PLACES:
            raise StoragePathError(f"Cannot {verb} {uri}: {_PLACES[number]}") from error
        said = _MACHINE.get(number) or (_failed(error) if places.is_remote(uri) else error)
        raise StorageError(f"Cannot {verb} {uri}: {said}") from error


@contextmanager
def room_on(temp: Path, uri: str) -> Iterator[None]:
    """Name the disk that has no room for the temporary file of `uri`: for object storage that of `/tmp`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        said = _MACHINE[error.errno]
        where = f"in the folder {temp.parent} " if places.is_remote(uri) else ""
        raise StorageError(f"Cannot write {uri}: {where}{said}") from error


def _whose(client: Any) -> str:
    from botocore import UNSIGNED

    return _NONE if client.meta.config.signature_version is UNSIGNED else _THESE


def _failed(error: Exception, whose: str = _THESE) -> str:
    """Return what is wrong with object storage, and what to do."""
    said = str(error).strip().rstrip(".")
    if _REFUSED.search(said):
        return f"{said}. {whose}"
    return f"{said}. It was tried several times; the same command goes on when storage answers again."


class Refused(Exception):
    """A conditional request was answered with this code."""


def s3(verb: str, uri: str, operation: str, **arguments: Any) -> dict[str, Any]:
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, key = places.place_of(uri).bucket_key
    client = _build_client(os.getpid(), *_endpoint_region())
    try:
        answer: dict[str, Any] = getattr(client, operation)(Bucket=bucket, Key=key, **arguments)
        return answer
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in UNMET | BUSY:
            raise Refused(code) from error
        if code in _NOT_THERE:
            said = f"there is no such file or bucket ({code}). Check the path."
            raise StoragePathError(f"Cannot {verb} {uri}: {said}") from error
        raise StorageError(f"Cannot {verb} {uri}: {_failed(error, whose=_whose(client))}") from error
    except BotoCoreError as error:
        raise StorageError(f"Cannot {verb} {uri}: {_failed(error)}") from error


class Content(NamedTuple):
    """All of an object, and the tag that a conditional write names it by."""

    data: bytes
    tag: str


def content(uri: str) -> Content:
    """Return an S3 object by one request: parts, or a size asked for before, could be of different contents."""
    from botocore.exceptions import BotoCoreError
    from urllib3.exceptions import HTTPError

    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        time.sleep(0.05 * 2**attempt if attempt else 0)
        answer = s3("read", uri, "get_object")
        try:
            return Content(answer["Body"].read(), answer["ETag"])
        except (BotoCoreError, HTTPError) as error:  # it ended in the middle, which boto3 leaves to its caller
            broken = error
        if time.monotonic() - began > BROKEN_S:
            break
    raise StorageError(f"Cannot read {uri}: {_failed(broken)}") from broken


@functools.lru_cache(maxsize=8)
def _build_filesystem(scheme: str, _pid: int, endpoint: str | None, region: str | None) -> pafs.FileSystem:
    if scheme == "file":
        return pafs.LocalFileSystem()
    if scheme == "gs":
        return pafs.GcsFileSystem()
    found = urlsplit(endpoint or "")
    where = {"endpoint_override": found.netloc, "scheme": found.scheme} if endpoint else {}
    retry = pafs.AwsDefaultS3RetryStrategy(max_attempts=PYARROW_RETRIES)
    return pafs.S3FileSystem(
        region=region, connect_timeout=CONNECT_S, request_timeout=ANSWER_S, retry_strategy=retry, **where
    )


@functools.lru_cache(maxsize=4)
def _build_client(_pid: int, endpoint: str | None, region: str | None) -> Any:
    import boto3  # a third of a second, needed only on S3
    from botocore import UNSIGNED
    from botocore.config import Config

    session = boto3.session.Session()
    config = Config(
        signature_version=None if session.get_credentials() else UNSIGNED,  # what is public can be read without
        connect_timeout=CONNECT_S,
        read_timeout=ANSWER_S,
        retries={"mode": "legacy", "total_max_attempts": ATTEMPTS},
        s3={"addressing_style": "path"} if endpoint else {},
        request_checksum_calculation="when_required",  # other S3 servers refuse the newer trailing checksums
        response_checksum_validation="when_required",
    )
    return session.client("s3", endpoint_url=endpoint, region_name=region, config=config)


def _endpoint_region() -> tuple[str | None, str | None]:
    get = os.environ.get
    endpoint = get("AWS_ENDPOINT_URL_S3") or get("AWS_ENDPOINT_URL")
    return endpoint, get("AWS_REGION") or get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint else None)
