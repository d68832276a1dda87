"""Near-duplicates: rows that lie so close to one that was bought that they would be paid for a second time.

Distances are exact (`ops.unit_distances`): whether two rows are near does not depend on the rows that they are
compared beside, so the greedy rule refuses the same rows however they arrive.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.ops import unit_distances
from alray.ops.kmeans import unit_rows
from alray.runtime import Held
from alray.selection.resident import Exclusion, Resident

Flags = npt.NDArray[np.bool_]

TOGETHER = 1024
"""Rows compared with each other at once: their distances are 8 MiB."""


class Near:
    """The rows that are bought, and which others lie closer to one of them than `least`, a cosine distance.

    It is half the squared distance of the unit rows in fp16, which misses the cosine distance by a part in 10⁵.
    """

    def __init__(self, least: float, bought_MD: Tensor) -> None:
        self.least, self.bought_MD, self.more = least, bought_MD, list[Tensor]()

    def block(self, units_ND: Tensor) -> Block:
        """Return unit rows, fp16 [N, D], as they are seen after all that was bought so far."""
        self.bought_MD, self.more = torch.cat([self.bought_MD, *self.more]), []
        near_N = torch.zeros(len(units_ND), dtype=torch.bool)
        for chunk in torch.split(self.bought_MD, TOGETHER):
            near_N |= self._closer(units_ND, chunk).any(dim=1)
        return Block(self, units_ND, near_N.numpy(), self._closer(units_ND, units_ND).numpy())

    def _closer(self, x_ND: Tensor, y_MD: Tensor) -> Tensor:
        return unit_distances.squared(x_ND, y_MD) < 2 * self.least


class Block:
    """Rows that may be bought one after the other: which are near to a bought row, [N], and to each other, [N, N]."""

    def __init__(self, near: Near, units_ND: Tensor, near_N: Flags, near_NN: Flags) -> None:
        self._near, self._units_ND, self._near_N, self._near_NN = near, units_ND, near_N, near_NN

    def buy(self, row: int) -> bool:
        """Buy a row and return True; or return False where a row near to it is bought."""
        if self._near_N[row]:
            return False
        self._near_N |= self._near_NN[row]
        self._near.more.append(self._units_ND[row : row + 1])
        return True


def blocks(count: int) -> Iterator[slice]:
    """Yield slices of as many rows as are compared with each other at once."""
    for start in range(0, count, TOGETHER):
        yield slice(start, min(start + TOGETHER, count))


def units_of(shard: Resident, wanted: Exclusion) -> Tensor:
    """Return the unit rows, fp16 [n, D], of the wanted ids that the shard has and that can be read."""
    rows = np.flatnonzero(Exclusion(wanted.ids).mask(shard) & shard.ok_N)
    return unit_rows(torch.from_numpy(shard.features_ND[rows].astype(np.float32)))


def join(parts: list[Tensor]) -> Tensor:
    """Merge unit rows; their order does not matter."""
    return torch.cat(parts)


def near(held: Held, least: float, bought: Exclusion) -> Near:
    """Return what is near to the bought rows of the pool: labelled, asked for, or excluded by name."""
    return Near(least, torch.as_tensor(held.reduce(units_of, join, bought)))
