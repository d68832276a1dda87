"""Feature files: one uncompressed Arrow IPC file per shard, read back as a view of the file.

A file's name carries the identity of the pool shard it was computed from, inside a folder named after the version of
whatever computed it. So a file is never stale and never overwritten by another one: pools, runs and drivers can share
the folder, a changed or added shard is simply a name that is not there yet, and a half-written one has no name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from alray import storage
from alray.errors import StorageError, StoragePathError
from alray.pool import Shard
from alray.pool.quarantine import Quarantine
from alray.table import Ids

SCHEMA = 1
HALF_MAX = 65504.0
"""The largest finite fp16."""

_META = b"alray"

Half = npt.NDArray[np.float16]


@dataclass(frozen=True)
class ShardRows:
    """The rows of one shard: N ids, fp16 features [N, D], which rows are fine [N], and why the others are not.

    A row that is not fine keeps its place, its features all zero. The features may be a read-only view of a file.
    """

    ids: Ids
    features_ND: Half
    ok_N: npt.NDArray[np.bool_]
    reasons: dict[int, str]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class FeatureShard:
    """Where the features of one pool shard are; small enough to be sent to every worker.

    `source` says whether they stand in a file of their own ("store") or in the pool itself ("pool"). `start` and
    `stop` are the rows of the pool's file; `key` is the identity of the pool shard when its features were computed.
    """

    number: int
    uri: str
    start: int
    stop: int
    source: Literal["store", "pool"]
    version: str
    key: str
    dim: int
    shard: Shard
    sha256: str | None = None  # of a file in the store, as its manifest says

    @property
    def rows(self) -> int:
        """Rows of the shard, the bad ones included."""
        return self.stop - self.start

    def read(self) -> ShardRows:
        """Return the shard's rows; a local feature file is memory-mapped, not copied.

        Raises PoolError when the pool's file changed since the features were made, StorageError when the feature file
        is not the one it should be.
        """
        rows = self._read_pool() if self.source == "pool" else self._read_store()
        if len(rows) != self.rows or rows.features_ND.shape != (self.rows, self.dim):
            raise StorageError(
                f"`{self.uri}` holds features of shape {rows.features_ND.shape} and {len(rows)} ids, expected "
                f"({self.rows}, {self.dim}) for shard {self.number}. {_REMEDY}"
            )
        return rows

    def _read_pool(self) -> ShardRows:
        features_ND, reasons = self.shard.features()
        return ShardRows(self.shard.ids(), features_ND, _fine(len(features_ND), reasons), reasons)

    def _read_store(self) -> ShardRows:
        batch = read_batch(self.uri, sha256=self.sha256)
        check_identity(batch, self.uri, version=self.version, key=self.key)
        reasons = batch_reasons(batch)
        ids = batch.column("id").to_numpy(zero_copy_only=False)
        return ShardRows(ids, batch_features(batch), _fine(batch.num_rows, reasons), reasons)


@dataclass(frozen=True)
class FeatureSet:
    """The features of a whole pool: one entry per shard, in shard order, all of one version.

    `quarantine` has the rows that could not be embedded; rows of a pool that came with its own features are found bad
    when their shard is read, so it is empty for them.
    """

    shards: tuple[FeatureShard, ...]
    dim: int
    version: str
    rows: int
    quarantine: Quarantine


_REMEDY = "Delete that file and run `alray features` again; it computes only what is missing."


def shard_key(shard: Shard) -> str:
    """Return the identity of a pool shard: its file, its rows and their content, as 16 hexadecimal digits."""
    return shard.fingerprint()[:16]


def shard_name(key: str) -> str:
    """Return the file name of the features of the pool shard with this key."""
    return f"shard-{key}.arrow"


def to_half(values_ND: npt.NDArray[np.float32]) -> tuple[Half, dict[int, str]]:
    """Round embeddings to fp16; a row that is not finite or does not fit becomes zeros, with its reason."""
    finite_N = np.isfinite(values_ND).all(axis=1)
    peak_N = np.abs(np.where(np.isfinite(values_ND), values_ND, 0)).max(axis=1, initial=0)
    # 65520 is where rounding to nearest goes to infinity; what lies below rounds to 65504.
    fits_N = peak_N < HALF_MAX + 16
    reasons = {int(row): "embedding is NaN or infinite" for row in np.flatnonzero(~finite_N)}
    for row in np.flatnonzero(finite_N & ~fits_N):
        reasons[int(row)] = f"embedding has a value of {peak_N[row]:.6g}, beyond what fp16 holds ({HALF_MAX:.0f})"
    good_N = (finite_N & fits_N)[:, None]
    return np.where(good_N, values_ND, 0).astype(np.float16), reasons


def make_batch(
    features_ND: Half, reasons: Mapping[int, str], *, ids: pa.Array | None = None, meta: Mapping[str, Any] | None = None
) -> pa.RecordBatch:
    """Return one Arrow batch of `id` (when given), `features` and `reason` (null where the row is fine)."""
    count, dim = features_ND.shape
    flat = pa.array(np.ascontiguousarray(features_ND).reshape(-1), type=pa.float16())
    columns = {
        "features": pa.FixedSizeListArray.from_arrays(flat, dim),
        "reason": pa.array([reasons.get(row) for row in range(count)], type=pa.string()),
    }
    if ids is not None:
        columns = {"id": ids, **columns}
    batch = pa.RecordBatch.from_pydict(columns)
    identity = json.dumps({"schema": SCHEMA, **(meta or {})}, sort_keys=True)
    return batch.replace_schema_metadata({_META: identity.encode()})


def write_batch(sink: Path | pa.BufferOutputStream, batch: pa.RecordBatch) -> None:
    """Write one batch, uncompressed and in one piece, so that a reader can map it."""
    target = str(sink) if isinstance(sink, Path) else sink
    with pa.ipc.new_file(target, batch.schema) as writer:
        writer.write_batch(batch)


def batch_bytes(batch: pa.RecordBatch) -> bytes:
    """Return the file that `write_batch` would write."""
    sink = pa.BufferOutputStream()
    write_batch(sink, batch)
    return bytes(sink.getvalue())


def read_batch(uri: str, *, sha256: str | None = None) -> pa.RecordBatch:
    """Return the only batch of a file that `write_batch` wrote: mapped when local, in memory when not.

    Raises StorageError when it cannot be read, or its content has not the digest that is given: a wrong bit in the
    features themselves shows nowhere else.
    """
    path = storage.local_path(uri)
    try:
        whole = pa.py_buffer(storage.read_bytes(uri)) if path is None else pa.memory_map(str(path)).read_buffer()
        if sha256 is not None and (found := hashlib.sha256(whole).hexdigest()) != sha256:
            raise ValueError(f"its sha256 is {found[:12]}… and was {sha256[:12]}… when it was written")
        reader = pa.ipc.open_file(pa.BufferReader(whole))
        if reader.num_record_batches != 1:
            raise pa.ArrowInvalid(f"{reader.num_record_batches} record batches in place of one")
        batch = reader.get_batch(0)
        schema = int(identity_of(batch)["schema"])
    except (FileNotFoundError, StoragePathError) as error:
        raise StorageError(
            f"The feature file `{uri}` is gone. Run `alray features` again; it computes only what is missing."
        ) from error
    except (OSError, pa.ArrowException, KeyError, ValueError) as error:
        raise StorageError(f"`{uri}` cannot be read as a feature file: {error}. {_REMEDY}") from error
    if schema > SCHEMA:
        raise StorageError(
            f"`{uri}` has schema {schema}, this alray reads up to {SCHEMA}. Use the newer alray that wrote it."
        )
    return batch


def identity_of(batch: pa.RecordBatch) -> dict[str, Any]:
    """Return what a file says about itself: schema, and the version and key of what it was computed from."""
    identity: dict[str, Any] = json.loads((batch.schema.metadata or {})[_META])
    return identity


def check_identity(batch: pa.RecordBatch, uri: str, *, version: str, key: str) -> None:
    """Raise StorageError unless the file was computed by `version` from the pool shard with this `key`."""
    identity = identity_of(batch)
    for name, expected in (("version", version), ("key", key)):
        if identity.get(name) != expected:
            raise StorageError(
                f"`{uri}` has features of {name} {identity.get(name)!r}, expected {expected!r}. {_REMEDY}"
            )


def batch_features(batch: pa.RecordBatch) -> Half:
    """Return the features of a batch, fp16 [N, D], as a read-only view of its memory."""
    column = batch.column("features")
    flat: Half = column.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(batch.num_rows, column.type.list_size)


def batch_reasons(batch: pa.RecordBatch) -> dict[int, str]:
    """Return row → reason of the bad rows of a batch."""
    column = batch.column("reason")
    bad = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return {int(row): column[int(row)].as_py() for row in bad}


def _fine(rows: int, reasons: Mapping[int, str]) -> npt.NDArray[np.bool_]:
    ok_N = np.ones(rows, dtype=np.bool_)
    ok_N[list(reasons)] = False
    return ok_N
