"""Sums over a resident pool: the moments of its labelled rows, and of each coordinate over all rows.

Both are one reduce over the held shards. A Gram matrix of D × D numbers is far larger than a few labelled rows, so a
part carries its rows until they outweigh it: a pool of a thousand shards does not send a thousand matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alray.errors import LabelsError
from alray.ops import moments as sums
from alray.ops.moments import Coordinates, Moments
from alray.runtime import Held
from alray.selection.resident import Exclusion, Resident

ROWS_PER_DIM = 4
"""fp16 rows that weigh as much as the fp64 Gram matrix, per feature."""


@dataclass(frozen=True)
class Part:
    """Labelled rows of some shards: how many there are, bad ones too, and the good ones, summed or not yet.

    fp16 features [M, D] and class numbers [M] of those not yet summed. Which parts meet only the shards decide.
    """

    found: int
    features_MD: npt.NDArray[np.float16]
    target_M: npt.NDArray[np.int64]
    summed: Moments | None = None

    def moments(self, classes: int) -> Moments:
        """Return the moments of all good rows."""
        rest = Moments.of(self.features_MD, self.target_M, classes)
        return rest if self.summed is None else self.summed + rest

    def lightest(self, classes: int) -> Part:
        """Return the part with its rows summed where they outweigh the sums."""
        rows, dim = self.features_MD.shape
        if rows < ROWS_PER_DIM * dim:
            return self
        return Part(self.found, self.features_MD[:0].copy(), self.target_M[:0].copy(), self.moments(classes))


def labelled_part(shard: Resident, target_of: Mapping[str, int], classes: int) -> Part:
    """Return the shard's rows that have a class number."""
    rows = np.flatnonzero(Exclusion(frozenset(target_of)).mask(shard))
    fine = rows[shard.ok_N[rows]]
    target_M = np.array([target_of[shard.ids[row]] for row in fine], dtype=np.int64)
    return Part(len(rows), np.array(shard.features_ND[fine]), target_M).lightest(classes)


class MergeParts:
    """Merge the labelled rows of several shards."""

    def __init__(self, classes: int) -> None:
        self.classes = classes

    def __call__(self, parts: list[Part]) -> Part:
        features_MD = np.concatenate([part.features_MD for part in parts])
        target_M = np.concatenate([part.target_M for part in parts])
        summed = [part.summed for part in parts if part.summed is not None]
        total = sums.add(summed) if summed else None
        return Part(sum(part.found for part in parts), features_MD, target_M, total).lightest(self.classes)


def labelled_moments(held: Held, labels: Mapping[str, str], classes: Sequence[str]) -> tuple[int, Moments]:
    """Return how many of the labelled ids the shards hold, and the moments of those whose rows can be read.

    Raises LabelsError for a label that is not among `classes`.
    """
    number = {name: n for n, name in enumerate(classes)}
    unknown = sorted(set(labels.values()) - number.keys())
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", …" if len(unknown) > 5 else "")
        raise LabelsError(
            f"{len(unknown)} labels are not among the {len(number)} classes: {shown}. Name these classes too, or "
            "remove the rows that have them."
        )
    target_of = {i: number[label] for i, label in labels.items()}
    part: Part = held.reduce(labelled_part, MergeParts(len(number)), target_of, len(number))
    return part.found, part.moments(len(number))


def coordinates_part(shard: Resident) -> Coordinates:
    """Return the sums of each coordinate over the shard's rows that can be read."""
    total = Coordinates.none(shard.spec.dim)
    for rows, features_ND in shard.chunks():
        total = total + Coordinates.of(features_ND[torch.from_numpy(shard.ok_N[rows]).to(features_ND.device)])
    return total


def add_coordinates(parts: list[Coordinates]) -> Coordinates:
    """Merge the sums of several shards."""
    total = parts[0]
    for more in parts[1:]:
        total = total + more
    return total


def pool_coordinates(held: Held) -> Coordinates:
    """Return the sums of each coordinate over all rows that can be read."""
    total: Coordinates = held.reduce(coordinates_part, add_coordinates)
    return total
