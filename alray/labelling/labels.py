"""Labels: who said what about which row; read from CSV or Parquet, kept as one aligned table.

Only `id` and `label` are needed in a file. A label is a string, whatever the file's column is, so that class 7 of a
CSV and class 7 of a Parquet file are one class.
"""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from alray import storage
from alray.errors import LabelsError, nearest
from alray.labelling.cells import unguarded

LABELLED, SKIPPED, CANCELLED = "labelled", "skipped", "cancelled"
STATUSES = (LABELLED, SKIPPED, CANCELLED)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("status", pa.string()),
        ("annotator", pa.string()),
        ("seconds", pa.float64()),
        ("origin", pa.string()),
        ("round", pa.int64()),
        ("request_id", pa.string()),
        ("answered_at", pa.string()),
    ],
    metadata={"schema": "1"},
)
EXAMPLES = 5


@dataclass(frozen=True)
class Labels:
    """Rows of `SCHEMA`: one per answer. An id may stand twice only with two annotators or two requests."""

    table: pa.Table

    @staticmethod
    def of(rows: Iterable[Mapping[str, Any]] | Mapping[str, str]) -> Labels:
        """Build labels from `{id: label}` or from rows of the schema's columns; `status` is `labelled` if absent."""
        if isinstance(rows, Mapping):
            rows = [{"id": i, "label": label} for i, label in rows.items()]
        full = [{"status": LABELLED, **row} for row in rows]
        return Labels(pa.Table.from_pylist(full, schema=SCHEMA))

    @staticmethod
    def concat(parts: Sequence[Labels]) -> Labels:
        """Return the rows of `parts`, one after the other."""
        return Labels(pa.concat_tables([SCHEMA.empty_table(), *(p.table for p in parts)]).combine_chunks())

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def ids(self) -> list[str]:
        """The id of every row, in order, repeats included."""
        return list(self.column("id"))

    def column(self, name: str) -> list[Any]:
        """Return one column as Python values."""
        return list(self.table.column(name).to_pylist())

    def rows(self) -> list[dict[str, Any]]:
        """Return every row as a dict of the schema's columns."""
        return list(self.table.to_pylist())

    def labelled(self) -> Labels:
        """Return the rows that carry a label: neither skipped nor cancelled."""
        return Labels(self.table.filter(pc.equal(self.table["status"], LABELLED)))

    def paid_ids(self) -> set[str]:
        """Return the ids that somebody was paid for, labelled or skipped: a cancelled row may be asked for again."""
        statuses = zip(self.ids, self.column("status"), strict=True)
        return {id_ for id_, status in statuses if status != CANCELLED}

    def only(self, ids: Iterable[str]) -> Labels:
        """Return the rows of these ids, in this object's order."""
        wanted = pa.array(list(ids), pa.string())
        return Labels(self.table.filter(pc.is_in(self.table["id"], value_set=wanted)))

    def sorted(self) -> Labels:
        """Return the rows by id, then round, then request: the order in which they are stored."""
        order = ("id", "round", "request_id", "annotator")
        return Labels(self.table.sort_by([(name, "ascending") for name in order]))

    def mapping(self) -> dict[str, str]:
        """Return the label of every labelled id, by id; where annotators disagree, the most frequent, then the first
        in string order."""
        labelled = self.labelled()
        ids, labels = labelled.ids, labelled.column("label")
        if len(set(ids)) == len(ids):
            return dict(sorted(zip(ids, labels, strict=True)))
        votes: dict[str, Counter[str]] = defaultdict(Counter)
        for id_, label in zip(ids, labels, strict=True):
            votes[id_][label] += 1
        return {i: min(v, key=lambda label: (-v[label], label)) for i, v in sorted(votes.items())}

    def to_bytes(self) -> bytes:
        """Return the rows as a Parquet file."""
        out = io.BytesIO()
        pyarrow.parquet.write_table(self.table.cast(SCHEMA), out)
        return out.getvalue()

    def write(self, uri: str) -> None:
        """Write the rows as Parquet, atomically."""
        storage.write_bytes(uri, self.to_bytes())


def read_labels(uri: str) -> Labels:
    """Read a labels file (`.csv` or `.parquet`), check it, and return its rows.

    Raises LabelsError for a missing column, a null id, an unknown status, a labelled row without a label, and an id
    that the same annotator labels in two ways.
    """
    if uri.endswith(".csv"):
        raw = _read_csv(uri)
    elif uri.endswith(".parquet"):
        raw = _read_parquet(uri)
    else:
        raise LabelsError(f"`{uri}` is no labels file: expected a name that ends in .csv or .parquet.")
    return parse_labels(raw, uri)


def parse_labels(raw: pa.Table, uri: str) -> Labels:
    """Check a table of labels read from `uri` (named in messages) and bring it into `SCHEMA`."""
    for name in ("id", "label"):
        if name not in raw.column_names:
            known = ", ".join(raw.column_names)
            hint = nearest(name, raw.column_names)
            raise LabelsError(f"{uri} has no column `{name}` (it has: {known}).{hint} Name the columns `id,label`.")
    _refuse_newer(raw, uri)
    table = pa.table([_column(raw, field, uri) for field in SCHEMA], schema=SCHEMA)
    labels = Labels(_one_per_answer(_with_status(table, uri), uri))
    _check_agreement(labels, uri)
    return labels


def _read_csv(uri: str) -> pa.Table:
    """Every column as strings: `007` stays `007`, and an empty cell is null."""
    data = storage.read_bytes(uri)
    header = data.split(b"\n", 1)[0].decode("utf-8-sig", errors="replace").strip()
    names = [name.strip().strip('"') for name in header.split(",")]
    convert = pa.csv.ConvertOptions(
        column_types={name: pa.string() for name in names}, strings_can_be_null=True, null_values=[""]
    )
    read = pa.csv.ReadOptions(use_threads=False)  # one that outlives a short command aborts it
    try:
        found = pa.csv.read_csv(io.BytesIO(data), read, convert_options=convert)
    except (pa.ArrowInvalid, pa.ArrowKeyError) as e:
        raise LabelsError(f"{uri} cannot be read as CSV: {e}. Expected a header `id,label` and one row a label.") from e
    if "id" not in found.column_names:
        return found
    ids = pa.array([None if i is None else unguarded(i) for i in found["id"].to_pylist()], pa.string())
    return found.set_column(found.column_names.index("id"), "id", ids)


def _read_parquet(uri: str) -> pa.Table:
    """Only the columns of labels: the file may hold pictures too. On S3 each is a request of its own."""
    try:
        with storage.open_unchanged(uri) as file:
            parquet = pyarrow.parquet.ParquetFile(file)
            names = [n for n in parquet.schema_arrow.names if n in SCHEMA.names]
            table = parquet.read(columns=names)
            return table if {"id", "label"} <= set(names) else parquet.schema_arrow.empty_table()
    except pa.ArrowInvalid as e:
        raise LabelsError(f"{uri} cannot be read as Parquet: {e}.") from e


def _refuse_newer(raw: pa.Table, uri: str) -> None:
    version = (raw.schema.metadata or {}).get(b"schema", b"1")
    if version != b"1":
        raise LabelsError(f"{uri} has schema {version.decode()}; this alray reads schema 1. Update alray.")


def _column(raw: pa.Table, field: pa.Field, uri: str) -> pa.ChunkedArray:
    """Return the column in the schema's type, or nulls where the file does not have it."""
    if field.name not in raw.column_names:
        return pa.chunked_array([pa.nulls(raw.num_rows, field.type)])
    column = raw.column(field.name)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if field.name == "label" and (pa.types.is_floating(column.type) or pa.types.is_nested(column.type)):
        raise LabelsError(f"{uri}: column `label` holds {column.type}; expected strings or whole numbers.")
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as e:
        raise LabelsError(f"{uri}: column `{field.name}` holds {column.type}, expected {field.type} ({e}).") from e


def _with_status(table: pa.Table, uri: str) -> pa.Table:
    """Fill in `labelled` where no status is given, and check ids, statuses and labels."""
    if table["id"].null_count or pc.any(pc.equal(table["id"], "")).as_py():
        rows = _rows_where(pc.or_(pc.is_null(table["id"]), pc.equal(pc.fill_null(table["id"], ""), "")))
        raise LabelsError(f"{uri}: rows without an id: {rows}. Give every row its id.")
    status = pc.fill_null(table["status"], LABELLED)
    unknown = sorted(set(pc.unique(status).to_pylist()) - set(STATUSES))
    if unknown:
        hint = nearest(unknown[0], STATUSES)
        raise LabelsError(f"{uri}: unknown status `{unknown[0]}`; expected one of {', '.join(STATUSES)}.{hint}")
    bare = pc.and_(pc.equal(status, LABELLED), pc.is_null(table["label"]))
    if pc.any(bare).as_py():
        raise LabelsError(
            f"{uri}: rows without a label: {_rows_where(bare)}. "
            "Remove them, or give them the status `skipped` or `cancelled`."
        )
    broken = pc.fill_null(pc.match_substring_regex(table["label"], "[\\r\\n]"), False)
    if pc.any(broken).as_py():  # a quote that is never closed takes in all rows below it
        raise LabelsError(
            f"{uri}: labels with a line break in them: row {_rows_where(broken)}. Close the quotes that are open there."
        )
    return table.set_column(table.schema.get_field_index("status"), SCHEMA.field("status"), status)


def _rows_where(mask: Any) -> str:
    """Name the first few rows of a mask, counted from 1."""
    rows = [i for i, hit in enumerate(mask.to_pylist(), start=1) if hit]
    return ", ".join(map(str, rows[:EXAMPLES])) + (f" and {len(rows) - EXAMPLES} more" if len(rows) > EXAMPLES else "")


def _one_per_answer(table: pa.Table, uri: str) -> pa.Table:
    """Drop rows that say again what an earlier row of the same annotator and request said."""
    key = ["id", "annotator", "request_id", "label", "status"]
    if table.num_rows == len(pc.unique(table["id"])):
        return table
    numbered = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
    first = numbered.group_by(key).aggregate([("row", "min")])["row_min"]
    return table.take(first.combine_chunks().sort())


def _check_agreement(labels: Labels, uri: str) -> None:
    """One annotator says one thing about an id, unless the id was asked about again."""
    said: dict[tuple[Any, ...], tuple[str, str | None]] = {}
    columns = [labels.column(n) for n in ("id", "annotator", "request_id", "label", "status")]
    for id_, annotator, request, label, status in zip(*columns, strict=True):
        before = said.setdefault((id_, annotator, request), (status, label))
        if before != (status, label):
            who = f" by {annotator}" if annotator else ""
            raise LabelsError(
                f"{uri}: `{id_}` is labelled twice{who}: {_say(before)} and {_say((status, label))}. "
                "Keep one of the rows."
            )


def _say(answer: tuple[str, str | None]) -> str:
    status, label = answer
    return f"`{label}`" if status == LABELLED else status
