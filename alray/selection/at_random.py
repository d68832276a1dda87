"""Rows drawn at random: from a shortlist, from what is left when it is too short, and samples of the whole pool."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from alray import seeds
from alray.runtime import Held
from alray.selection import shortlisted
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.resident import Exclusion, Resident, Scan
from alray.selection.shortlisted import Limit
from alray.table import Ids, Table, as_ids


def uniform(found: Candidates) -> Chosen:
    """Return `budget` candidates drawn without replacement."""
    return draw(found.held, found.scan, found.limit, found.budget, found.given.seed, found.given.round, "uniform")


def fill(held: Held, scan: Scan, count: int, seed: int, round: int, taken: Ids) -> Chosen:
    """Return `count` rows of all that may be picked and are not `taken`; fewer when there are fewer."""
    return draw(held, scan, None, count, seed, round, "fill", Exclusion(frozenset(taken)))


def draw(
    held: Held,
    scan: Scan,
    limit: Limit | None,
    count: int,
    seed: int,
    round: int,
    purpose: str,
    taken: Exclusion = Exclusion(frozenset()),  # noqa: B008 (frozen)
) -> Chosen:
    """Return the `count` rows within `limit` and not `taken` that drew the highest numbers."""
    stream, merge = seeds.key(seed, purpose, round), shortlisted.MergeDrawn(count)
    (_, ids), scores = held.reduce(shortlisted.drawn, merge, scan, limit, count, stream, taken)
    return ids, np.array([scores[i] for i in ids], dtype=np.float32)


@dataclass(frozen=True)
class Sampled:
    """Rows that drew the highest numbers, highest first."""

    numbers: npt.NDArray[np.float64]
    ids: Ids
    features_ND: npt.NDArray[np.float16]

    def highest(self, count: int) -> Sampled:
        """Return the `count` rows with the highest numbers, ties by id."""
        order = np.lexsort((self.ids.astype(str), -self.numbers))[:count]
        return Sampled(self.numbers[order], self.ids[order], self.features_ND[order])


def sampled(shard: Resident, excluded: Exclusion, count: int, stream: int) -> Sampled:
    """Return `count` rows of the shard that can be read and are not excluded."""
    rows = np.flatnonzero(shard.ok_N & ~excluded.mask(shard))
    numbers = seeds.uniform(stream, shard.hashes[rows])
    rows = rows[np.argsort(-numbers, kind="stable")[: count + 1]]  # one more: two ids may share a number at the cut
    numbers = seeds.uniform(stream, shard.hashes[rows])
    return Sampled(numbers, as_ids(shard.ids[rows]), np.array(shard.features_ND[rows])).highest(count)


class MergeSampled:
    """Merge samples: the highest `count` numbers."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, parts: list[Sampled]) -> Sampled:
        numbers = np.concatenate([part.numbers for part in parts])
        ids = np.concatenate([part.ids for part in parts])
        return Sampled(numbers, ids, np.concatenate([part.features_ND for part in parts])).highest(self.count)


def sample(held: Held, excluded: Exclusion, count: int, seed: int, round: int) -> Table:
    """Return `count` rows of the pool drawn without replacement, sorted by id: columns `features` (fp32) and `hash`.

    All that may be picked when they are no more than `count`.
    """
    found: Sampled = held.reduce(sampled, MergeSampled(count), excluded, count, seeds.key(seed, "sample", round))
    order = np.argsort(found.ids.astype(str), kind="stable")
    ids = found.ids[order]
    features = torch.from_numpy(found.features_ND[order].astype(np.float32))
    return Table(ids, {"features": features, "hash": torch.from_numpy(seeds.hash_ids(ids).view(np.int64))})
