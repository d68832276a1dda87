"""Picks: what was selected, in rank order, and the file that it travels in (decision 7)."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from alray import storage
from alray.errors import StoragePathError, UserError
from alray.labelling.cells import guarded, unguarded
from alray.table import Ids, as_ids

Reason = Literal["initial", "strategy", "fill", "control", "relabel"]
SCHEMA = 1
COLUMNS = ("id", "rank", "score", "reason")
SUFFIXES = (".parquet", ".csv")


@dataclass(frozen=True)
class Picks:
    """B distinct ids in rank order (rank 1 first): by score from high to low, ties by id."""

    ids: Ids
    scores: npt.NDArray[np.float32]
    reasons: tuple[Reason, ...]

    @staticmethod
    def ranked(ids: Ids, scores: npt.NDArray[np.float32], reasons: tuple[Reason, ...]) -> Picks:
        """Return the picks put in rank order. Python's string order is the order of UTF-8 bytes."""
        order = sorted(range(len(ids)), key=lambda i: (-scores[i], ids[i]))
        return Picks(as_ids([ids[i] for i in order]), scores[order], tuple(reasons[i] for i in order))

    def then(self, others: Picks) -> Picks:
        """Return these picks and after them `others`, whose scores, of another strategy, become −∞: they have none."""
        scores = np.concatenate([self.scores, np.full(len(others), -np.inf, dtype=np.float32)])
        return Picks.ranked(np.concatenate([self.ids, others.ids]), scores, self.reasons + others.reasons)

    def __len__(self) -> int:
        return len(self.ids)

    def digest(self) -> str:
        """Return the sha256 of the ids in rank order, one a line: equal digests mean the same picks."""
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()

    def write(self, uri: str) -> None:
        """Write `id, rank, score, reason` as Parquet or CSV, by the suffix of `uri`, in one step."""
        check_suffix(uri)
        storage.write_bytes(uri, self._csv() if uri.endswith(".csv") else self.to_bytes())

    @staticmethod
    def read(uri: str, *, only: bool = False) -> Picks:
        """Read what `write` wrote; a newer schema is refused, and with `only` any column that it did not write."""
        check_suffix(uri)
        table = _read_csv(uri) if uri.endswith(".csv") else storage.read_parquet(uri)
        schema = int((table.schema.metadata or {}).get(b"alray.schema", b"1"))
        if schema > SCHEMA:
            raise UserError(f"`{uri}` has schema {schema}; this alray reads up to {SCHEMA}. Install a newer alray.")
        missing = {"id", "score", "reason"} - set(table.column_names)
        if missing:
            raise UserError(f"`{uri}` is not a picks file: it has no column {sorted(missing)}.")
        if only and (more := set(table.column_names) - set(COLUMNS)):
            raise UserError(f"`{uri}` is not a picks file alone: it has the columns {sorted(more)} too.")
        scores = table["score"].to_numpy().astype(np.float32)
        return Picks(as_ids(table["id"].to_pylist()), scores, tuple(table["reason"].to_pylist()))

    def _table(self) -> pa.Table:
        columns = {
            "id": pa.array(self.ids.tolist(), pa.string()),
            "rank": pa.array(range(1, len(self) + 1), pa.int64()),
            "score": pa.array(self.scores, pa.float32()),
            "reason": pa.array(list(self.reasons), pa.string()),
        }
        return pa.table(columns).replace_schema_metadata({"alray.schema": str(SCHEMA)})

    def to_bytes(self) -> bytes:
        """Return the picks as a Parquet file."""
        sink = pa.BufferOutputStream()
        pq.write_table(self._table(), sink)
        return bytes(sink.getvalue())

    def _csv(self) -> bytes:
        out = io.StringIO()
        returns = any("\r" in i for i in self.ids)  # unquoted by the writer, and a row's end to a reader
        writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL)
        writer.writerow(COLUMNS)
        for rank, (i, score, reason) in enumerate(zip(self.ids, self.scores, self.reasons, strict=True), start=1):
            writer.writerow([guarded(i), rank, repr(float(score)), reason])
        return out.getvalue().encode()


def check_suffix(uri: str) -> None:
    """Refuse an output whose suffix names no format of picks."""
    if not uri.endswith(SUFFIXES):
        raise StoragePathError(f"`{uri}`: the format of picks follows the suffix; expected {' or '.join(SUFFIXES)}.")


def _read_csv(uri: str) -> pa.Table:
    text = {"id": pa.string(), "reason": pa.string(), "score": pa.float64()}
    options = pa.csv.ConvertOptions(column_types=text, strings_can_be_null=False)
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    read = pa.csv.ReadOptions(use_threads=False)  # one that outlives a short command aborts it
    found = pa.csv.read_csv(io.BytesIO(storage.read_bytes(uri)), read, convert_options=options, parse_options=parse)
    if "id" not in found.column_names:
        return found
    ids = pa.array([unguarded(i) for i in found["id"].to_pylist()], pa.string())
    return found.set_column(found.column_names.index("id"), "id", ids)
