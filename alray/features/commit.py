"""Finished shards: the parts of one become its file, the file's record goes into a manifest, and the parts away.

A shard's file is committed before its parts are cleared, and a manifest after all the files that it names.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from alray import storage
from alray.errors import AlrayError, StorageError, StoragePathError
from alray.features import extract, store
from alray.pool import Shard

log = logging.getLogger(__name__)

LISTINGS = 20
"""Times that a folder is listed again when it changes under the listing."""


@dataclass(frozen=True)
class Job:
    """One pool shard whose features are to stand in the file `uri`."""

    shard: Shard
    key: str
    uri: str
    parts: str
    chunks: int


@dataclass(frozen=True)
class Record:
    """What a finished file holds: rows, D, the digest of its bytes, and (row, id, reason) of each bad row."""

    key: str
    rows: int
    dim: int
    sha256: str
    bad: tuple[tuple[int, str, str], ...]


def names(folder: str) -> set[str]:
    """Return the names of the files in a folder; none if there is no folder."""
    for _ in range(LISTINGS):
        try:
            return {uri.rsplit("/", 1)[-1] for uri in storage.list_files(folder)}
        except StoragePathError:  # another driver renamed its temporary file just when it was looked at
            time.sleep(0.01)
    return {uri.rsplit("/", 1)[-1] for uri in storage.list_files(folder)}


def finish(job: Job, version: str) -> Record:
    """Put a shard's parts together into its file, unless it has one, clear them away, and say what the file holds."""
    if not storage.exists(job.uri):
        try:
            batch = _joined(job, version)
            with storage.staged(job.uri) as path:
                store.write_batch(path, batch)
        except AlrayError:
            if not storage.exists(job.uri):  # it does when another driver was faster, and then the parts are gone
                raise
    try:
        storage.delete_folder(job.parts)
    except AlrayError as error:  # another driver clears them too, or still puts one there, which nobody will read
        log.warning("parts are left over in %s: %s", job.parts, error)
    return _record(job, version)


def _joined(job: Job, version: str) -> pa.RecordBatch:
    features: list[store.Half] = []
    reasons: dict[int, str] = {}
    at = 0
    for number in range(job.chunks):
        uri = extract.part_uri(job.parts, number)
        part = store.read_batch(uri)
        store.check_identity(part, uri, version=version, key=job.key)
        features.append(store.batch_features(part))
        reasons |= {at + row: reason for row, reason in store.batch_reasons(part).items()}
        at += part.num_rows
    ids = job.shard.id_column().cast(pa.string())
    if at != len(ids):
        raise StorageError(
            f"The parts of shard {job.shard.number} in `{job.parts}` have {at} rows, the pool has {len(ids)} ids. "
            "Delete that folder and run the same command again."
        )
    return store.make_batch(np.concatenate(features), reasons, ids=ids, meta={"version": version, "key": job.key})


def _record(job: Job, version: str) -> Record:
    digest = storage.sha256(job.uri)
    batch = store.read_batch(job.uri, sha256=digest)  # the same file, though another driver may write it meanwhile
    store.check_identity(batch, job.uri, version=version, key=job.key)
    ids = batch.column("id")
    bad = tuple((row, ids[row].as_py(), reason) for row, reason in store.batch_reasons(batch).items())
    dim = batch.column("features").type.list_size
    return Record(job.key, batch.num_rows, dim, digest, bad)


def write_manifest(folder: str, header: Mapping[str, Any], jobs: Sequence[Job], records: Mapping[str, Record]) -> None:
    """Write what the features of a pool are: last, and only when it would say something new."""
    shards = []
    for job in jobs:
        s, r = job.shard, records[job.key]
        entry = {"number": s.number, "file": store.shard_name(r.key), "key": r.key, "uri": s.uri, "start": s.start}
        entry |= {"stop": s.stop, "rows": r.rows, "dim": r.dim, "sha256": r.sha256, "bad": r.bad}
        shards.append(entry)
    uri = storage.join(folder, f"manifest-{header['pool'][:16]}.json")
    manifest = json.loads(json.dumps({"schema": store.SCHEMA, **header, "shards": shards}))  # as it will read
    if not storage.exists(uri) or storage.read_json(uri) != manifest:
        storage.write_json(uri, manifest)


def known(folder: str) -> dict[str, Record]:
    """Return the records in the manifests of all pools that share this folder, so that no file is read again."""
    records: dict[str, Record] = {}
    for name in sorted(names(folder)):
        if name.startswith("manifest-"):
            uri = storage.join(folder, name)
            try:
                records |= {entry["key"]: _read(entry) for entry in _entries(uri)}
            except (StoragePathError, KeyError, TypeError, ValueError) as error:
                if isinstance(error, StoragePathError) and error.__cause__ is None:  # of a newer alray
                    raise
                raise StorageError(
                    f"`{uri}` cannot be read as a manifest of features: {error}. Delete that file and run the same "
                    "command again; it is written anew from the files of features."
                ) from error
    return records


def _read(entry: Mapping[str, Any]) -> Record:
    bad = tuple((int(row), str(row_id), str(reason)) for row, row_id, reason in entry["bad"])
    return Record(entry["key"], entry["rows"], entry["dim"], entry["sha256"], bad)


def _entries(uri: str) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = storage.read_json(uri, schema=store.SCHEMA)["shards"]
    return shards
