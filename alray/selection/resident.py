"""One shard resident on a worker, and the scan that gives its rows scores.

Every function here is pure in (shard, scan): a worker that restarts, or another that takes over, computes the same
bits again. What a scan computed stays in the shard's memory under the scan's token, so that later passes are cheap.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.errors import RuntimeFailure
from alray.features import FeatureShard
from alray.models.head import Head
from alray.models.network import Network
from alray.ops.affine import affine
from alray.ops.kmeans import CHUNK
from alray.runtime import memory
from alray.selection import pictures
from alray.strategies import Strategy
from alray.table import Ids, Table

T = TypeVar("T")

Space = Literal["activations", "features"]
"""What diversity is measured on: what the head's last affine layer takes, or the features; alike for a linear head."""


@dataclass(frozen=True)
class Part:
    """A share of the pool that the ids and the seed alone decide, fixed for life: its rows, or all the others."""

    seed: int
    purpose: str
    share: float
    others: bool = False

    def mask(self, shard: Resident) -> npt.NDArray[np.bool_]:
        """Return which of the shard's rows are in this part, [N]."""
        inside_N = seeds.uniform(seeds.key(self.seed, self.purpose), shard.hashes) < self.share
        return np.asarray(~inside_N if self.others else inside_N, dtype=np.bool_)


@dataclass(frozen=True)
class Exclusion:
    """Rows that may not be picked, by id, and by the part of the pool that they would have to be in.

    Membership goes by 64-bit hash first and is then confirmed by the id.
    """

    ids: frozenset[str]
    within: Part | None = None

    def mask(self, shard: Resident) -> npt.NDArray[np.bool_]:
        """Return which of the shard's rows are excluded, [N]."""
        hit_N = np.isin(shard.hashes, seeds.hash_ids(self.ids))
        for row in np.flatnonzero(hit_N):
            hit_N[row] = shard.ids[row] in self.ids
        return hit_N if self.within is None else hit_N | ~self.within.mask(shard)


class Gate(ABC):
    """Rows that may not be picked any more in one pass of a selection."""

    @abstractmethod
    def mask(self, shard: Resident, scan: Scan) -> npt.NDArray[np.bool_]:
        """Return which of the shard's rows are shut out, [N]."""


@dataclass(frozen=True)
class Scan:
    """All that one selection needs on every shard. Small: it is sent with each call.

    A selection that chooses in several passes, each with a `gate` of its own, gives each a token of its own, so that
    nothing is remembered from one to the next but what `round` marks: the scores.
    """

    token: str
    version: str
    strategy: Strategy
    prepared: dict[str, Any]
    head: Head | None
    excluded: Exclusion
    space: Space = "activations"
    gate: Gate | None = None
    network: Network | None = None

    @property
    def round(self) -> str:
        """What the tokens of all passes of one selection begin with."""
        return self.token.partition("/")[0]

    @property
    def open(self) -> Scan:
        """The scan without a gate: what its round could pick before any rule."""
        return self if self.gate is None else replace(self, token=self.round, gate=None)

    def behind(self, gate: Gate, number: int) -> Scan:
        """Return the scan of a further pass, numbered from 1, whose gate takes the place of the one before."""
        return replace(self, token=f"{self.round}/{number}", gate=gate)

    def points(self, features_ND: Tensor) -> Tensor:
        """Return what diversity is measured on, fp32 [N, H] or [N, D], for fp32 features."""
        return features_ND if self.head is None or self.space == "features" else self.head.hidden(features_ND)

    def points_dim(self, features_dim: int) -> int:
        """Return the size of `points` for features of this size."""
        return features_dim if self.head is None or self.space == "features" else self.head.hidden_dim


class Resident:
    """The rows of one shard: ids, their hashes, fp16 features (a view of the file where it is local), and a memo."""

    def __init__(self, spec: FeatureShard) -> None:
        rows = spec.read()
        self.spec, self.ids, self.ok_N, self.reasons = spec, rows.ids, rows.ok_N, rows.reasons
        self.features_ND = rows.features_ND
        self.hashes = seeds.hash_ids(rows.ids)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._memo = dict[str, dict[tuple[Any, ...], Any]]()

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Yield (rows, fp32 features) of each fixed chunk: the unit of every computation, so replays agree in bits."""
        step = memory.chunk(min(CHUNK, max(1, len(self.ids))))
        for start in range(0, len(self.ids), step):
            rows = slice(start, min(start + step, len(self.ids)))
            yield rows, torch.from_numpy(self.features_ND[rows].astype(np.float32)).to(self.device)

    def remember(self, token: str, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        """Return the value under `key` of the scan with this token, computed once; `Scan.round` is a token too.

        What an earlier scan left is forgotten: unit rows of a shortlist can be as large as the features themselves.
        """
        if token not in self._memo:
            root = token.partition("/")[0]
            self._memo = {root: self._memo.get(root, {})} | ({} if token == root else {token: {}})
        memo = self._memo[token]
        if key not in memo:
            memo[key] = compute()
        value: T = memo[key]
        return value


def scores(shard: Resident, scan: Scan) -> npt.NDArray[np.float32]:
    """Return the score of every row, [N]; NaN marks rows that may not be picked."""
    scores_N, gate = _scored(shard, scan)[0], scan.gate
    if gate is None:
        return scores_N
    return shard.remember(scan.token, ("open",), lambda: np.where(gate.mask(shard, scan), np.float32(np.nan), scores_N))


def _scored(shard: Resident, scan: Scan) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Return the scores, and the rows that could be read and picked but for a score that is not a number."""
    return shard.remember(scan.round, ("scores",), lambda: _score(shard, scan))


def _score(shard: Resident, scan: Scan) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if shard.spec.version != scan.version:
        raise RuntimeFailure(
            f"Shard {shard.spec.number} holds features of version {shard.spec.version}, the scan is of {scan.version}. "
            "Two versions were mixed; run `alray features` and select again."
        )
    out_N = np.full(len(shard.ids), np.nan, dtype=np.float32)
    closed_N = scan.excluded.mask(shard) | ~shard.ok_N
    for rows, table in _tables(shard, scan, closed_N):
        out_N[rows] = scan.strategy.score(table, scan.prepared).cpu().numpy()
    unscored = np.flatnonzero(np.isnan(out_N) & ~closed_N)
    out_N[closed_N] = np.nan
    return out_N, unscored


def _tables(
    shard: Resident, scan: Scan, closed_N: npt.NDArray[np.bool_]
) -> Iterator[tuple[slice | npt.NDArray[np.int64], Table]]:
    """Yield rows and what the strategy needs of them: of each chunk, or the pictures of those that may be picked."""
    if pictures.NEED in scan.strategy.wants:
        assert scan.network is not None
        yield from pictures.tables(shard, scan.network, np.flatnonzero(~closed_N))
        return
    for rows, features_ND in shard.chunks():
        yield rows, Table(shard.ids[rows], columns(scan, features_ND, shard.hashes[rows]))


def columns(scan: Scan, features_ND: Tensor, hashes_N: seeds.Hashes) -> dict[str, Tensor]:
    """Return the columns that the scan's strategy needs of one chunk, and no others."""
    needs, out = scan.strategy.wants, {}
    if "hash" in needs:
        out["hash"] = torch.from_numpy(hashes_N.view(np.int64))
    if "features" in needs:
        out["features"] = features_ND
    if needs & {"hidden", "logits", "probs"}:
        assert scan.head is not None
        hidden_NH = scan.head.hidden(features_ND)
        weight_CH, bias_C = (t.to(hidden_NH.device) for t in scan.head.last)
        logits_NC = affine(hidden_NH, weight_CH, bias_C) if needs & {"logits", "probs"} else hidden_NH
        wanted = {"hidden": hidden_NH, "logits": logits_NC}
        out |= {name: column for name, column in wanted.items() if name in needs}
        if "probs" in needs:
            out["probs"] = logits_NC.softmax(dim=1)
    return out


BadRows = list[tuple[str, int, int, str]]
"""(id, shard, row, reason) of rows that cannot be used."""


def bad_rows(shard: Resident) -> BadRows:
    """Return the rows that could not be read."""
    return [(str(shard.ids[row]), shard.spec.number, row, why) for row, why in sorted(shard.reasons.items())]


def unscored_rows(shard: Resident, scan: Scan) -> BadRows:
    """Return the rows that could be read, but whose score is not a number."""
    guess = "a picture that is gone?" if pictures.NEED in scan.strategy.wants else "an overflow in the head?"
    why = f"score: `{scan.strategy.name}` gives it no number ({guess})"
    return [(str(shard.ids[row]), shard.spec.number, int(row), why) for row in _scored(shard, scan)[1]]


def find_rows(shard: Resident, wanted: Exclusion) -> tuple[Ids, npt.NDArray[np.float16], npt.NDArray[np.bool_]]:
    """Return (ids, fp16 features, fine or not) of the shard's rows whose id is wanted."""
    rows = np.flatnonzero(wanted.mask(shard))
    return shard.ids[rows], shard.features_ND[rows], shard.ok_N[rows]
