"""Quarantine: the rows that could not be read, each with its reason; too many of them stop the run.

A bad row never stops a round and is never silently dropped (design §6, promise 5). Rows are kept by (shard,
row), so that work that is replayed adds nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from alray import storage
from alray.errors import PoolError, QuarantineError

SCHEMA = 1
_COLUMNS = pa.schema(
    [("id", pa.string()), ("shard", pa.int64()), ("row", pa.int64()), ("reason", pa.string())],
    metadata={"schema": str(SCHEMA)},
)


class Unreadable(NamedTuple):
    """One row that could not be read: its id, its shard's number, its row in the shard, and why."""

    id: str
    shard: int
    row: int
    reason: str


class Quarantine:
    """Unreadable rows, one entry each, in the order of their shards and rows."""

    def __init__(self, rows: Iterable[Unreadable] = ()) -> None:
        self._rows: dict[tuple[int, int], Unreadable] = {}
        self.extend(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Unreadable]:
        return iter([self._rows[where] for where in sorted(self._rows)])

    def __repr__(self) -> str:
        return f"Quarantine({len(self)} rows)"

    def add(self, id: str, shard: int, row: int, reason: str) -> None:
        """Note a row; the first reason given for it stays."""
        self._rows.setdefault((int(shard), int(row)), Unreadable(id, int(shard), int(row), reason))

    def extend(self, rows: Iterable[Unreadable]) -> None:
        """Note all rows of another quarantine, or of a list."""
        for one in rows:
            self.add(*one)

    def check(self, total: int, max_share: float) -> None:
        """Raise a QuarantineError if more than `max_share` of `total` rows are in quarantine."""
        if len(self) <= max_share * total:
            return
        examples = "; ".join(f"{one.id!r}: {one.reason}" for one in list(self)[:3])
        raise QuarantineError(
            f"{len(self):,} of {total:,} rows ({len(self) / max(total, 1):.1%}) cannot be read; `pool.max_quarantine` "
            f"allows {max_share:.1%}. {self.summary()}. For example {examples}. Repair or remove these rows, or raise "
            "`pool.max_quarantine`."
        )

    def summary(self) -> str:
        """Return how many rows have which kind of reason, the most frequent first, at most four kinds."""
        kinds = Counter(one.reason.split(":")[0] for one in self)
        shown = [f"{count:,} × {kind}" for kind, count in sorted(kinds.items(), key=lambda k: (-k[1], k[0]))[:4]]
        more = len(kinds) - len(shown)
        return "Reasons: " + ", ".join(shown) + (f" and {more} more" if more else "")

    def write(self, uri: str) -> None:
        """Write all rows as one Parquet file `id, shard, row, reason`, atomically."""
        table = pa.Table.from_pylist([one._asdict() for one in self], schema=_COLUMNS)
        storage.write_parquet(uri, table)

    @staticmethod
    def read(uri: str) -> Quarantine:
        """Return the quarantine that `write` stored; a newer schema is refused."""
        with storage.open_input(uri) as file:
            stored = int((pq.read_schema(file).metadata or {}).get(b"schema", b"1"))
        if stored > SCHEMA:
            raise PoolError(
                f"{uri} has schema {stored}; this alray reads schema {SCHEMA}. Use the alray that wrote it."
            )
        return Quarantine(Unreadable(**one) for one in storage.read_parquet(uri, _COLUMNS.names).to_pylist())
