"""Parquet files of a pool: what a file holds, by its footer, and ranges of its rows.

A range is read by the row groups it touches and streamed through a small buffer, so that memory is
bounded by a batch and not by a row group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from alray import storage
from alray.errors import PoolError, StorageError, nearest
from alray.pool import vectors

Content = Literal["features", "image", "uri"]

CONTENTS: tuple[Content, ...] = ("features", "image", "uri")
BUFFER_BYTES = 4 << 20


@dataclass(frozen=True)
class Footer:
    """What the footer of one pool file says; `dim` and `stored` (the float type) are of a features file."""

    uri: str
    rows: int
    content: Content
    stamp: str
    dim: int | None = None
    stored: str | None = None


def inspect(uri: str) -> Footer:
    """Read a file's footer and check that its columns are a pool's; PoolError when they are not.

    A List column says its size nowhere in the footer, so of such a file the first vector is read too.
    """
    stamp = storage.stamp(uri)  # before the footer: rows that another file is counted by are refused when they are read
    with opened(uri) as file:
        schema = file.schema_arrow
        check_ids_column(uri, schema)
        content = content_of(uri, schema)
        dim = stored = None
        if content == "features":
            column = schema.field("features").type
            stored = vectors.stored(column, uri)
            dim = vectors.width(column) or _first_width(file)
        return Footer(uri, file.metadata.num_rows, content, stamp, dim, stored)


def check_ids_column(uri: str, schema: pa.Schema) -> None:
    """Raise PoolError unless the file has exactly one column `id`, of strings."""
    if schema.names.count("id") != 1:
        many = "more than one column" if "id" in schema.names else "no column"
        raise PoolError(
            f"{uri} has {many} `id`; its columns are {_listed(schema.names)}.{nearest('id', schema.names)} A pool "
            f"file needs one `id` (string) beside `image`, `uri` or `features`. If this file is not of the pool "
            f"(labels, a test set), name the pool by a glob such as `pool-*.parquet`."
        )
    found = schema.field("id").type
    if not _is_string(found):
        raise PoolError(f"{uri}: `id` is {found}; it must be string. Cast the column and write the file again.")


def content_of(uri: str, schema: pa.Schema) -> Content:
    """Return which of `features`, `image` and `uri` the file holds; PoolError unless exactly one, well typed."""
    found = [name for name in CONTENTS if name in schema.names]
    if len(found) != 1 or schema.names.count(found[0]) != 1:
        what = "none" if not found else " and ".join(f"`{name}`" for name in found)
        raise PoolError(
            f"{uri} holds {what} of `image`, `uri` and `features`; its columns are {_listed(schema.names)}. A pool "
            f"file needs exactly one of the three. Drop or rename the others, or, if this file is not of the "
            f"pool (labels, a test set), name the pool by a glob such as `pool-*.parquet`."
        )
    content, column = found[0], schema.field(found[0]).type
    if content == "image" and not (pa.types.is_binary(column) or pa.types.is_large_binary(column)):
        raise PoolError(f"{uri}: `image` is {column}; it must be binary, the bytes of one picture file a row.")
    if content == "uri" and not _is_string(column):
        raise PoolError(f"{uri}: `uri` is {column}; it must be string.")
    return content


def batches(
    uri: str, columns: Sequence[str], rows: npt.NDArray[np.int64] | range, batch_rows: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield (row in the file of the batch's first row, batch) for the ascending `rows`, touched row groups only.

    A batch may hold rows that were not asked for; it never holds only such rows.
    """
    if not len(rows):
        return
    wanted = rows if isinstance(rows, range) else np.asarray(rows)
    first, last = int(wanted[0]), int(wanted[-1])
    with opened(uri) as file:
        sizes = [file.metadata.row_group(g).num_rows for g in range(file.metadata.num_row_groups)]
        at = 0
        for group, size in enumerate(sizes):
            if at <= last and at + size > first and _any_within(wanted, at, at + size):
                here = at
                for batch in file.iter_batches(batch_rows, [group], list(columns), use_threads=False):
                    if _any_within(wanted, here, here + len(batch)):
                        yield here, batch
                    here += len(batch)
                    if here > last:
                        return
            at += size


def read_column(uri: str, name: str, start: int, stop: int) -> pa.Array:
    """Return rows [start, stop) of one column as one array; PoolError when the file has no such column."""
    with opened(uri) as file:
        names = file.schema_arrow.names
        if name not in names:
            raise PoolError(f"{uri} has no column `{name}`; it has {_listed(names)}.{nearest(name, names)}")
        column_type = file.schema_arrow.field(name).type
    pieces = []
    for at, batch in batches(uri, [name], range(start, stop), 65_536):
        low, high = max(start - at, 0), min(stop - at, len(batch))
        pieces.append(batch.column(name).slice(low, high - low))
    return pa.chunked_array(pieces, type=column_type).combine_chunks()


@contextmanager
def opened(uri: str) -> Iterator[Any]:
    """Open a Parquet file as a context manager; a file that Parquet cannot decode is a PoolError.

    The remedy differs for a remote file, of which an I/O error may pass: that is a StorageError.
    """
    try:
        with storage.open_input(uri) as source:
            yield _file(source)
    except pa.ArrowInvalid as error:
        raise PoolError(_undecodable(uri, error)) from error
    except (OSError, pa.ArrowException) as error:
        if storage.is_remote(uri):
            raise StorageError(f"Reading {uri} failed: {_short(error)}. Run the same command again.") from error
        raise PoolError(_undecodable(uri, error)) from error


def _file(source: pa.NativeFile) -> Any:
    try:
        return pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except (OSError, pa.ArrowException):
        raise
    except Exception as error:  # whatever it is that a library raises over a type of its own (Ray Data has some)
        raise pa.ArrowInvalid(f"the type of a column cannot be read: {error}") from error


def _undecodable(uri: str, error: Exception) -> str:
    return (
        f"{uri} cannot be read as Parquet: {_short(error)}. The file is damaged, cut short or of another format; "
        f"write it again, or take it out of the pool."
    )


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")[:200]


def _any_within(wanted: npt.NDArray[np.int64] | range, low: int, high: int) -> bool:
    if isinstance(wanted, range):
        return wanted.start < high and wanted.stop > low
    return bool(np.searchsorted(wanted, high) > np.searchsorted(wanted, low))


def _first_width(file: Any) -> int | None:
    for batch in file.iter_batches(64, columns=["features"], use_threads=False):
        column = batch.column("features").drop_null()
        if len(column):
            return len(column[0])
    return None


def _is_string(found: pa.DataType) -> bool:
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found))


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
