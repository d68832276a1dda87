"""The shortlist of one selection, and all that a way of thinning it out may use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from alray import seeds
from alray.runtime import Held, Runtime
from alray.selection.resident import Scan
from alray.selection.shortlisted import Limit
from alray.strategies import Given
from alray.strategies.diversity import Diversity
from alray.table import Ids, Table

Chosen = tuple[Ids, npt.NDArray[np.float32]]
"""Distinct ids and their scores, in the order in which they are chosen."""


@dataclass(frozen=True)
class Candidates:
    """`count` shortlisted rows of the held shards, more than the budget; `numbers` are the shards' own, in order.

    `regime` is what `selection.regime` says; `dim` the size of a row's features. What a way notes in `report` is kept
    with the round; what it leaves in `kept` it finds again in later rounds on the same resident pool. Under rules a way
    is asked again for what is missing: `number` counts these passes from 0, and `taken` has the features of the rows
    that were taken in those before.
    """

    held: Held
    runtime: Runtime
    numbers: Sequence[int]
    dim: int
    scan: Scan
    limit: Limit
    count: int
    given: Given
    diversity: Diversity
    regime: str
    report: dict[str, Any] = field(default_factory=dict)
    kept: dict[Any, Any] = field(default_factory=dict)
    taken: Table | None = None
    number: int = 0

    @property
    def budget(self) -> int:
        """How many to choose."""
        return self.given.budget

    @property
    def points_dim(self) -> int:
        """The size of what diversity is measured on."""
        return self.scan.points_dim(self.dim)

    def bought(self, *, before: bool = True) -> Table | None:
        """Return the features of the rows that were taken, and with `before` of all that were bought in rounds before.

        None when there is none.
        """
        tables = (self.given.bought if before else None, self.taken)
        known = [table.only("features") for table in tables if table is not None and len(table)]
        return Table.concat(known) if known else None

    def stream(self, purpose: str) -> int:
        """Return the key of random numbers that no other round and no other pass draws."""
        again = [self.number] * bool(self.number)
        return seeds.key(self.given.seed, purpose, self.given.round, *again)
