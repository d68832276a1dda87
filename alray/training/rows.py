"""The labelled rows as a worker gets them: where each one is, and its class. Pictures are read where they are used."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from alray.errors import LabelsError
from alray.pool import BadRow, Pool, Shard
from alray.pool.images import BadImage, decode
from alray.training.probe import label_numbers

log = logging.getLogger(__name__)

Index = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class TrainSet:
    """Labelled rows of a pool: ids, their labels in the same order, and the class names in the head's order."""

    pool: Pool
    ids: Sequence[str]
    labels: Sequence[str]
    classes: Sequence[str]


@dataclass(frozen=True, eq=False)
class Rows:
    """M rows sorted by id: `shards[shard_M[i]]` holds row i at `row_M[i]`; its class is `target_M[i]`."""

    shards: tuple[Shard, ...]
    ids: tuple[str, ...]
    shard_M: Index
    row_M: Index
    target_M: Index

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: Index) -> Rows:
        """Return some of the rows, with only the shards that they need."""
        used, shard_K = np.unique(self.shard_M[index], return_inverse=True)
        return Rows(
            tuple(self.shards[i] for i in used),
            tuple(self.ids[i] for i in index),
            shard_K,
            self.row_M[index],
            self.target_M[index],
        )

    def chunks(self, size: int) -> list[Rows]:
        """Return the rows in pieces of at most `size`, each of one shard and in the order of that shard."""
        order = np.lexsort((self.row_M, self.shard_M))
        starts = np.flatnonzero(np.diff(self.shard_M[order], prepend=-1))
        parts = [part for part in np.split(order, starts) if len(part)]
        return [self.take(part[i : i + size]) for part in parts for i in range(0, len(part), size)]

    def digest(self) -> str:
        """Return the sha256 of which rows these are and what they are labelled."""
        found = hashlib.sha256("\n".join(self.ids).encode())
        found.update(self.target_M.astype("<i8").tobytes())
        for shard in self.shards:
            found.update(shard.fingerprint().encode())
        return found.hexdigest()


def locate(given: TrainSet) -> Rows:
    """Find the rows in their pool; LabelsError for ids that it does not have, or a label that is no class."""
    order = sorted(range(len(given.ids)), key=lambda i: given.ids[i].encode())
    ids = [given.ids[i] for i in order]
    target_M = label_numbers([given.labels[i] for i in order], given.classes).numpy()
    twice = sorted({a for a, b in itertools.pairwise(ids) if a == b})
    if twice:
        raise LabelsError(f"{len(twice)} id(s) are labelled twice: {', '.join(twice[:5])}. Give each one label.")
    places = given.pool.locate(ids)
    unknown = [i for i in ids if i not in places]
    if unknown:
        raise LabelsError(
            f"{len(unknown)} labelled id(s) are not in the pool: {', '.join(unknown[:5])}. Expected ids of "
            "`pool.path`; correct the labels or add the missing files."
        )
    place_M2 = np.array([places[i] for i in ids], dtype=np.int64)
    used, shard_M = np.unique(place_M2[:, 0], return_inverse=True)
    return Rows(tuple(given.pool.shards[i] for i in used), tuple(ids), shard_M, place_M2[:, 1], target_M)


def pictures(rows: Rows, index: Index, shrink: Callable[..., Tensor]) -> Iterator[tuple[int, Tensor | str]]:
    """Yield (index, shrunk uint8 picture or the reason why there is none); each shard is read once, in its order."""
    order = index[np.lexsort((rows.row_M[index], rows.shard_M[index]))]
    for shard_number in np.unique(rows.shard_M[order]):
        here = order[rows.shard_M[order] == shard_number]
        found = rows.shards[shard_number].images(rows.row_M[here].tolist())
        for i, (_, data) in zip(here.tolist(), found, strict=True):
            yield i, data.reason if isinstance(data, BadRow) else _decoded(data, shrink)


def _decoded(data: bytes, shrink: Callable[..., Tensor]) -> Tensor | str:
    try:
        return shrink(decode(data))
    except BadImage as error:
        return str(error)


class PictureCache:
    """Shrunk pictures by row, read when first needed and kept while they fit in `limit` bytes."""

    def __init__(self, rows: Rows, shrink: Callable[..., Tensor], limit: int) -> None:
        self._rows, self._shrink, self._free = rows, shrink, limit
        self._kept: dict[int, Tensor] = {}
        self.bad: dict[str, str] = {}  # id → reason

    def load(self, index: Index) -> Mapping[int, Tensor]:
        """Return the pictures of these rows, by row; unreadable ones are left out and noted in `bad`."""
        known = [i in self._kept or self._rows.ids[i] in self.bad for i in index.tolist()]
        missing = index[~np.array(known, dtype=bool)]
        fresh: dict[int, Tensor] = {}
        for i, found in pictures(self._rows, missing, self._shrink) if len(missing) else ():
            if isinstance(found, str):
                self.bad[self._rows.ids[i]] = found
                log.warning("training without %s: %s", self._rows.ids[i], found)
            elif self._free >= found.nbytes:
                self._free -= found.nbytes
                self._kept[i] = found
            else:
                fresh[i] = found
        return {i: picture for i in index.tolist() if (picture := self._kept.get(i, fresh.get(i))) is not None}
