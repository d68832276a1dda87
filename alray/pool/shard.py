"""Shard: a fixed block of pool rows, which any worker can read by itself.

It holds where its rows are and nothing of them, so it is cheap to send; every read checks that the file is
still the one that the pool was opened on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alray import storage
from alray.errors import PoolError, StoragePathError
from alray.pool import fetch, folder, parquet, vectors
from alray.pool.fetch import BadRow
from alray.table import Ids

Kind = Literal["features", "image", "uri", "folder"]

IMAGES_AT_ONCE = 32
VECTOR_BYTES_AT_ONCE = 16 << 20


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of a Parquet file, or of a folder's sorted pictures.

    `stamp` is the file's stamp, or the digest of the slice of names; `pattern` narrows a folder's names; `roots` are
    the folders, beside the file's own, that its `uri` column may point into.
    """

    number: int
    uri: str
    start: int
    stop: int
    kind: Kind
    stamp: str
    dim: int | None = None
    pattern: str = folder.ALL
    roots: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    def fingerprint(self) -> str:
        """Return the identity of the content: location, file stamp, range and kind; not the shard's number.

        Pictures that a `uri` column points to are known by their location only.
        """
        what = [self.uri, self.stamp, str(self.start), str(self.stop), self.kind, str(self.dim), self.pattern]
        return hashlib.sha256("\0".join(what).encode()).hexdigest()

    def ids(self) -> Ids:
        """Return the ids [n]; PoolError when one is null or empty, or the file has changed."""
        found: Ids = self.id_column().to_numpy(zero_copy_only=False)
        return found

    def id_column(self) -> pa.Array:
        """Return the ids as an Arrow string column; otherwise like `ids`."""
        if self.kind == "folder":
            return pa.array(_listed(self), type=pa.large_string())
        with self._unchanged():
            column = parquet.read_column(self.uri, "id", self.start, self.stop).cast(pa.large_string())
        self._check_ids(column)
        return column

    def features(self) -> tuple[vectors.Half, dict[int, str]]:
        """Return the features, fp16 [n, D], and the reason of each unusable row (its features are zeros).

        PoolError when the pool has no features, a vector has another size or a value is beyond fp16.
        """
        if self.kind != "features" or self.dim is None:
            raise PoolError(f"{self.uri} holds pictures, not `features`; compute them first (`alray features`).")
        with self._unchanged():
            return self._half(self.dim)

    def _half(self, dim: int) -> tuple[vectors.Half, dict[int, str]]:
        half_ND = np.zeros((self.rows, dim), dtype=np.float16)
        reasons: dict[int, str] = {}
        batch_rows = max(64, VECTOR_BYTES_AT_ONCE // (4 * dim))
        for at, batch in parquet.batches(self.uri, ["features"], range(self.start, self.stop), batch_rows):
            first, last = max(self.start, at), min(self.stop, at + len(batch))
            piece = batch.column("features").slice(first - at, last - first)
            block_ND, bad = vectors.to_half(piece, dim, self.uri, first)
            half_ND[first - self.start : last - self.start] = block_ND
            reasons.update((first - self.start + row, reason) for row, reason in bad.items())
        return half_ND, reasons

    def images(self, rows: Sequence[int] | None = None) -> Iterator[tuple[int, bytes | BadRow]]:
        """Yield (row in the shard, the picture file's bytes or why there are none), by ascending row.

        `rows` asks for some rows only. A folder's listing is checked once a process.
        """
        wanted = np.unique(np.arange(self.rows) if rows is None else np.asarray(rows, dtype=np.int64))
        if len(wanted) and not 0 <= wanted[0] <= wanted[-1] < self.rows:
            raise IndexError(f"shard {self.number} has rows 0 to {self.rows - 1}, not {wanted[0]} to {wanted[-1]}")
        if self.kind == "features":
            raise PoolError(f"{self.uri} holds `features` and no pictures; this step needs a pool of pictures.")
        if self.kind == "folder":
            names = _listed_once(self)
            yield from zip(wanted.tolist(), fetch.fetch(storage.join(self.uri, names[r]) for r in wanted), strict=True)
            return
        with self._unchanged():
            yield from self._pictures(wanted)

    def _pictures(self, wanted: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[tuple[int, bytes | BadRow]]:
        cells = self._cells(wanted)
        if self.kind == "image":
            yield from cells
            return
        base = self.uri.rsplit("/", 1)[0]
        located = (c if isinstance(c, BadRow) else fetch.resolve(c.decode(), base, self.roots) for _, c in cells)
        yield from zip(wanted.tolist(), fetch.fetch(located), strict=True)

    def column(self, name: str) -> pa.Array:
        """Return an extra column (a label, say); PoolError when there is none of that name."""
        if self.kind == "folder":
            raise PoolError(f"{self.uri} is a folder of pictures and has no column `{name}`.")
        with self._unchanged():
            return parquet.read_column(self.uri, name, self.start, self.stop)

    def _cells(self, wanted: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[tuple[int, bytes | BadRow]]:
        null = BadRow(f"`{self.kind}` is null")
        for at, batch in parquet.batches(self.uri, [self.kind], wanted + self.start, IMAGES_AT_ONCE):
            cells = batch.column(self.kind).cast(pa.large_binary())
            low, high = np.searchsorted(wanted + self.start, [at, at + len(batch)])
            for row in wanted[low:high].tolist():
                cell = cells[row + self.start - at].as_py()
                yield row, null if cell is None else cell

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Refuse a file that was written again since the pool was opened, or is while it is read."""
        self._check_stamp()
        yield
        self._check_stamp()

    def _check_stamp(self) -> None:
        try:
            now = storage.stamp(self.uri)
        except StoragePathError as error:
            raise PoolError(
                f"{self.uri} is gone since the pool was opened. Put it back, or open the pool again."
            ) from error
        if now != self.stamp:
            raise PoolError(
                f"{self.uri} was written again since the pool was opened. Put the old file back, or start a new "
                f"run on the new one."
            )

    def _check_ids(self, column: pa.Array) -> None:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid as error:
            raise PoolError(f"{self.uri}: `id` holds text that is not UTF-8. Write the ids as UTF-8.") from error
        missing = pc.fill_null(pc.equal(column, ""), True).to_numpy(zero_copy_only=False)
        bad = np.flatnonzero(missing)
        if len(bad):
            some = ", ".join(str(self.start + row) for row in bad[:5].tolist())
            raise PoolError(
                f"{self.uri}: `id` is null or empty in {len(bad)} row(s) (row {some}). Every row needs an id of its "
                f"own; fill them in or drop the rows."
            )


def _listed(shard: Shard) -> list[str]:
    found = folder.names(shard.uri, shard.pattern)[shard.start : shard.stop]
    if folder.digest(shard.uri, found) != shard.stamp:
        raise folder.changed(shard.uri, shard.start, shard.stop)
    return found


_listed_once = lru_cache(maxsize=4)(_listed)
