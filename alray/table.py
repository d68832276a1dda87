"""Table: rows with aligned columns, the one noun that travels between rooms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ids = npt.NDArray[np.object_]


def as_ids(ids: Sequence[str] | Ids) -> Ids:
    """Return `ids` as a one-dimensional object array of Python strings."""
    out = np.empty(len(ids), dtype=object)
    out[:] = ids
    return out


class Table:
    """N ids and named tensors whose first dimension is N.

    `table["features"]` is a column; `take`, `concat` and `with_columns` return new tables.
    """

    def __init__(self, ids: Sequence[str] | Ids, columns: Mapping[str, Tensor] | None = None) -> None:
        self.ids: Ids = as_ids(ids)
        self.columns: dict[str, Tensor] = dict(columns or {})
        for name, column in self.columns.items():
            if len(column) != len(self.ids):
                raise ValueError(f"Column `{name}` has {len(column)} rows, the table has {len(self.ids)} ids.")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{k}: {tuple(v.shape)}" for k, v in self.columns.items())
        return f"Table({len(self)} rows; {shapes})"

    def take(self, rows: npt.NDArray[np.int64]) -> Table:
        """Return the given rows, in the given order."""
        index = torch.from_numpy(np.asarray(rows, dtype=np.int64))
        return Table(self.ids[rows], {k: v[index] for k, v in self.columns.items()})

    def with_columns(self, **columns: Tensor) -> Table:
        """Return this table with more columns, or others in their place."""
        return Table(self.ids, {**self.columns, **columns})

    def only(self, *names: str) -> Table:
        """Return this table with the named columns alone."""
        return Table(self.ids, {name: self.columns[name] for name in names})

    @staticmethod
    def concat(tables: Sequence[Table]) -> Table:
        """Return the rows of `tables` one after the other; all must have the same columns."""
        names = tables[0].columns
        return Table(
            np.concatenate([t.ids for t in tables]),
            {k: torch.cat([t[k] for t in tables]) for k in names},
        )
