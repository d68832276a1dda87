"""Quotas: at most, or at least, so many picks per value of a column of the pool, or of the predicted class.

Values are read by the workers that hold the shards, from the pool's own files; what is closed is sent to them as names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from alray.errors import PoolError, StrategyError, nearest
from alray.ops.affine import affine
from alray.pool import Shard
from alray.runtime import Held
from alray.selection.resident import Exclusion, Gate, Resident, Scan
from alray.selection.settings import Quota, named

PREDICTED = "predicted_class"
"""Not a column of the pool, but what the head says of a row."""

NAMED = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_boolean)
"""Types of columns whose cells are names."""

Flags = npt.NDArray[np.bool_]
Quotas = Mapping[str, Quota]
Names = Mapping[str, frozenset[str]]
"""Values by column."""


@dataclass(frozen=True)
class Values:
    """The values of one column in one shard: names, and the number of each row's name, [N]."""

    names: tuple[str, ...]
    number_N: npt.NDArray[np.int64]

    def among(self, wanted: frozenset[str]) -> Flags:
        """Return which rows have a wanted value, [N]."""
        return np.array([name in wanted for name in self.names], dtype=np.bool_)[self.number_N]

    def counted(self, rows: Flags | slice = slice(None)) -> Counter[str]:
        """Return how many of these rows have each value; none of a value is a count too."""
        times_V = np.bincount(self.number_N[rows], minlength=len(self.names))
        out = Counter[str]()
        for name, times in zip(self.names, times_V.tolist(), strict=True):
            out[name] += times
        return out


def values(shard: Resident, scan: Scan, column: str) -> Values:
    """Return a shard's values of a column, read or predicted once a round."""
    read = _predicted if column == PREDICTED else _of_the_pool
    return shard.remember(scan.round, ("values", column), lambda: read(shard, scan, column))


def column_values(cells: pa.Array, column: str) -> Values:
    """Return the values of a column as it stands in a file; PoolError for a type that has no names."""
    kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    if not any(fits(kind) for fits in NAMED):
        raise PoolError(
            f"`selection.quotas.{column}`: the column is {cells.type}; quotas are for columns of strings, whole "
            "numbers or true and false. Write the values as strings."
        )
    coded = pc.dictionary_encode(cells.cast(kind), null_encoding="encode")
    names = tuple(named(cell) for cell in coded.dictionary.to_pylist())
    return Values(names, coded.indices.to_numpy(zero_copy_only=False).astype(np.int64))


def check_columns(shards: Sequence[Shard], quotas: Quotas) -> None:
    """Raise an error unless the pool has the columns and values that quotas name: before labels are paid for.

    A column is read until all of its named values were met.
    """
    for column, quota in quotas.items():
        if column != PREDICTED:
            _check_column(shards, column, quota)


def _check_column(shards: Sequence[Shard], column: str, quota: Quota) -> None:
    found = Counter[str]()
    for shard in shards:
        found.update(column_values(shard.column(column), column).counted())
        if found.keys() >= quota.names:
            return
    _refuse_unknown(column, quota, found)


def check_classes(quotas: Quotas, classes: Sequence[str] | None) -> None:
    """Raise StrategyError if a quota names a class that no head will have; None: what they will be is not known."""
    strange = strange_classes(quotas, classes) if classes is not None else []
    if strange:
        raise StrategyError(
            f"`selection.quotas.{PREDICTED}` names {strange[0]!r}, which is none of the {len(classes or ())} classes."
            f"{nearest(strange[0], classes or ())} Expected one of {some(classes or ())}."
        )


def strange_classes(quotas: Quotas, classes: Sequence[str]) -> list[str]:
    """Return the classes that a quota names and that are none of these."""
    return sorted(quotas[PREDICTED].names - set(classes)) if PREDICTED in quotas else []


def _of_the_pool(shard: Resident, scan: Scan, column: str) -> Values:
    return column_values(shard.spec.shard.column(column), column)


def _predicted(shard: Resident, scan: Scan, column: str) -> Values:
    assert scan.head is not None
    number_N = np.zeros(len(shard.ids), dtype=np.int64)
    for rows, features_ND in shard.chunks():
        hidden_NH = scan.head.hidden(features_ND)
        weight_CH, bias_C = (t.to(hidden_NH.device) for t in scan.head.last)
        number_N[rows] = affine(hidden_NH, weight_CH, bias_C).argmax(dim=1).cpu().numpy()
    return Values(tuple(scan.head.classes), number_N)


@dataclass(frozen=True)
class Shut(Gate):
    """What may not be picked any more in one pass: rows by id, and values; with `needed`, all other values too.

    A row that is let in has a needed value in `at_once` columns or more.
    """

    gone: Exclusion
    closed: Names
    needed: Names | None = None
    at_once: int = 1

    def mask(self, shard: Resident, scan: Scan) -> Flags:
        """Return which of the shard's rows are shut out, [N]."""
        shut_N = self.gone.mask(shard)
        for column, names in self.closed.items():
            shut_N |= values(shard, scan, column).among(names)
        if self.needed is not None:
            wanted = [values(shard, scan, column).among(names) for column, names in self.needed.items()]
            shut_N |= np.sum(wanted, axis=0) < self.at_once
        return shut_N


Tally = dict[str, Counter[str]]
"""How many rows have each value of each column."""


def count(shard: Resident, scan: Scan, columns: Sequence[str]) -> tuple[Tally, Tally]:
    """Return how many of the shard's rows have each value: all rows, and those that may be picked."""
    open_N = shard.ok_N & ~scan.excluded.mask(shard)
    tallies: tuple[Tally, Tally] = ({}, {})
    for column in columns:
        found = values(shard, scan, column)
        tallies[0][column], tallies[1][column] = found.counted(), found.counted(open_N)
    return tallies


def add(parts: list[tuple[Tally, Tally]]) -> tuple[Tally, Tally]:
    """Merge the counts of several shards."""
    out: tuple[Tally, Tally] = ({}, {})
    for total, several in zip(out, zip(*parts, strict=True), strict=True):
        for tally in several:
            for column, counts in tally.items():
                total.setdefault(column, Counter()).update(counts)
    return out


Counts = Mapping[str, Mapping[str, int]]
"""Picks of each value of each column, as a selection's report has them."""


class Standing:
    """How many rows of each value a round has picked, and what that closes; it begins with what it has `before`."""

    def __init__(self, quotas: Quotas, available: Tally, before: Counts) -> None:
        self.quotas, self.available = quotas, available
        self.columns = tuple(sorted(quotas))
        self.picked: Tally = {column: Counter(before.get(column, {})) for column in self.columns}
        self.lacking = sum(min(self._short(c, v), n) for c in self.columns for v, n in available[c].items())
        """Picks that fill a minimum and are still to come, as far as there are rows for them."""

    def admits(self, row: Sequence[str]) -> bool:
        """Whether a row with these values, one a column, breaks no maximum."""
        return all(self._room(column, value) for column, value in zip(self.columns, row, strict=True))

    def helps(self, row: Sequence[str]) -> int:
        """Return how many minimums that are not yet full a row with these values fills."""
        return sum(self._short(column, value) > 0 for column, value in zip(self.columns, row, strict=True))

    def take(self, row: Sequence[str]) -> None:
        """Count a row that was picked."""
        for column, value in zip(self.columns, row, strict=True):
            self.lacking -= self._short(column, value) > 0
            self.picked[column][value] += 1

    @property
    def closed(self) -> Names:
        """Values that are full."""
        full = {c: frozenset(v for v in self.available[c] if not self._room(c, v)) for c in self.columns}
        return {column: names for column, names in full.items() if names}

    @property
    def short(self) -> dict[str, dict[str, int]]:
        """Values that are below their minimum, and by how many rows."""
        below = {c: {v: self._short(c, v) for v in self.available[c] if self._short(c, v)} for c in self.columns}
        return {column: missing for column, missing in below.items() if missing}

    def unmet(self) -> list[str]:
        """Return a sentence for each minimum that was not reached."""
        return [
            f"`{column}` {value!r} has {self.picked[column][value]} picks where at least "
            f"{self.quotas[column].least(value)} were asked for; {self.available[column][value]} such rows were left"
            for column, missing in self.short.items()
            for value in sorted(missing)
        ]

    def report(self) -> dict[str, dict[str, int]]:
        """Return the picks of each value that the settings name, or that has any."""
        return {
            c: {v: self.picked[c][v] for v in sorted({*self.quotas[c].names, *self.picked[c]})} for c in self.columns
        }

    def _room(self, column: str, value: str) -> bool:
        most = self.quotas[column].most(value)
        return most is None or self.picked[column][value] < most

    def _short(self, column: str, value: str) -> int:
        return max(0, self.quotas[column].least(value) - self.picked[column][value])


def standing(held: Held, scan: Scan, quotas: Quotas, before: Counts) -> Standing:
    """Return the standing before the first pick of a selection, where `before` was picked in its round already.

    Raises PoolError for a column that is not there, StrategyError for a value that no row has. A class that the head
    does not know is none: no label of it may be bought yet, and then no row is predicted to be one.
    """
    if not quotas:
        return Standing(quotas, {}, before)
    if PREDICTED in quotas and scan.head is None:
        raise StrategyError(
            f"`selection.quotas.{PREDICTED}` counts a head's predictions, and there is neither a head nor labels to "
            "fit one. Give labels or a head, or leave this quota out."
        )
    everything, available = held.reduce(count, add, scan, tuple(sorted(quotas)))
    for column, quota in quotas.items():
        if column != PREDICTED:
            _refuse_unknown(column, quota, everything[column])
    return Standing(quotas, available, before)


def _refuse_unknown(column: str, quota: Quota, found: Counter[str]) -> None:
    for value in sorted(quota.names - found.keys()):
        common = [name for name, _ in found.most_common()]
        raise StrategyError(
            f"`selection.quotas.{column}` names {value!r}, which no row of the pool has."
            f"{nearest(value, found) or ' It has ' + some(common) + '.'}"
        )


def some(names: Sequence[str]) -> str:
    """Return the first few of these names."""
    return ", ".join(map(repr, names[:5])) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
