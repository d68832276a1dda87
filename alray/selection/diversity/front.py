"""A choice in sequence: rows, how far they are from the centres so far, and as many next picks as are certain.

Every row has a merit, and the next pick is the row of the highest, ties by id. In greedy k-centre it is the squared
distance to the nearest centre; in D² sampling it is minus the time at which the row is due (`alray.ops.race`). A new
centre only lowers merits. So the rows of highest merit, sent with the best of all others as a bound, decide not one
pick but several: as long as the best of them, with the picks made since, is not behind the bound, no other row could
be before it. Such picks are those of the one-by-one algorithm, however many rows are sent; only the number of rounds
depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.ops import race
from alray.ops.distances import Metric
from alray.ops.kmeans import CHUNK
from alray.table import Ids, as_ids

CENTRES = 512
"""Centres per GEMM: with `CHUNK` rows a block of distances takes 16 MB."""

AHEAD = 16
"""Centres that the root computes distances to at once: the next picks are most likely among the best."""

F64 = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float16] | npt.NDArray[np.float32]
Key = tuple[float, str]
"""(−merit, id): less is sooner."""

NO_ROW: Key = (np.inf, "")


@dataclass(frozen=True)
class Rule:
    """Which row comes next: the farthest, or with a `stream` the next to fire in the race keyed by it."""

    metric: Metric
    stream: int | None = None
    first: Literal["norm", "uniform"] = "uniform"
    first_stream: int = 0

    def first_merit(self, rows_NG: Tensor, hashes_N: seeds.Hashes) -> Tensor:
        """Return the merit by which the first pick is taken when there is no centre yet, fp64 [N]."""
        if self.first == "norm":
            return self.metric.own(rows_NG).cpu()
        return torch.from_numpy(seeds.uniform(self.first_stream, hashes_N))


@dataclass(frozen=True)
class Picked:
    """Picks in their order: ids, points on the grid, squared distances when they were picked, and times."""

    ids_K: Ids
    rows_KG: Rows
    squared_K: F64
    time_K: F64

    @staticmethod
    def none(rows_KG: Rows) -> Picked:
        """Return no picks, of points like these."""
        return Picked(as_ids([]), rows_KG[:0], np.zeros(0), np.zeros(0))

    def __len__(self) -> int:
        return len(self.ids_K)

    def after(self, count: int) -> Picked:
        """Return the picks after the first `count`."""
        return Picked(self.ids_K[count:], self.rows_KG[count:], self.squared_K[count:], self.time_K[count:])

    def then(self, more: Picked) -> Picked:
        """Return these picks and `more` after them."""
        return Picked(
            np.concatenate([self.ids_K, more.ids_K]),
            np.concatenate([self.rows_KG, more.rows_KG]),
            np.concatenate([self.squared_K, more.squared_K]),
            np.concatenate([self.time_K, more.time_K]),
        )


@dataclass(frozen=True)
class Front:
    """Rows after `met` picks: squared distances to the nearest centre, and in a race when each is due; fp64 [N].

    A value, never changed: a call that is cut off half-way leaves nothing behind.
    """

    metric: Metric
    rows_NG: Tensor
    squared_N: Tensor
    due_N: Tensor | None
    met: int = 0

    @staticmethod
    def of(
        rule: Rule,
        rows_NG: Tensor,
        hashes_N: seeds.Hashes,
        start_KG: Rows | None,
        weight_N: Tensor | None = None,
    ) -> Front:
        """Return the front before time starts: distances to the centres that are there. A weight multiplies a rate."""
        squared_N = torch.full((len(rows_NG),), torch.inf, dtype=torch.float64, device=rows_NG.device)
        front = Front(rule.metric, rows_NG, squared_N, None)
        if start_KG is not None:
            none_K = np.zeros(len(start_KG))
            squared_N = front.meet(Picked(as_ids([""] * len(start_KG)), start_KG, none_K, none_K)).squared_N
        if rule.stream is None:
            return replace(front, squared_N=squared_N)
        exponential_N = race.exponentials(rule.stream, hashes_N).to(squared_N.device)
        rate_N = squared_N if weight_N is None else squared_N * weight_N
        return Front(rule.metric, rows_NG, squared_N, race.due(exponential_N, rate_N))

    @property
    def merit_N(self) -> Tensor:
        """Higher is sooner; −∞ or 0 for rows that a centre is equal to."""
        return self.squared_N if self.due_N is None else -self.due_N

    def meet(self, new: Picked) -> Front:
        """Return the front after these next picks."""
        if not len(new):
            return self
        squared_N, due_N = self.squared_N.clone(), None if self.due_N is None else self.due_N.clone()
        centres_KG = torch.from_numpy(np.array(new.rows_KG)).to(squared_N.device)
        for at in range(0, len(squared_N), CHUNK):
            part = slice(at, at + CHUNK)
            for low in range(0, len(new), CENTRES):
                squared_KN = self.metric.squared(centres_KG[low : low + CENTRES], self.rows_NG[part])
                time_K = new.time_K[low : low + CENTRES]
                if due_N is not None:
                    due_N[part] = later(due_N[part], squared_N[part], squared_KN, time_K)
                squared_N[part] = torch.minimum(squared_N[part], squared_KN.amin(dim=0))
        return replace(self, squared_N=squared_N, due_N=due_N, met=self.met + len(new))

    def nominate(self, ids_N: Ids, count: int) -> Nominees:
        """Return the `count` rows of highest merit that no centre is equal to, and the best of the others."""
        open_N = (self.squared_N > 0).cpu().numpy()
        merit_N = np.where(open_N, self.merit_N.cpu().numpy(), -np.inf)
        best = leaders(merit_N, ids_N, count + 1)
        best = best[open_N[best]]
        rows_nG = self.rows_NG[torch.from_numpy(best).to(self.rows_NG.device)].cpu().numpy()
        squared_n = self.squared_N.cpu().numpy()[best]
        return Nominees(merit_N[best], squared_n, as_ids(ids_N[best]), rows_nG).best(count)


def later(due_N: Tensor, squared_N: Tensor, squared_KN: Tensor, time_K: F64) -> Tensor:
    """Return when rows are due after centres at these distances, which came at these times, one after the other."""
    for found_N, now in zip(squared_KN, time_K.tolist(), strict=True):
        due_N = race.delayed(due_N, squared_N, found_N, now)
        squared_N = torch.minimum(squared_N, found_N)
    return due_N


def leaders(merit_N: F64, ids_N: Ids, count: int) -> npt.NDArray[np.int64]:
    """Return the positions of the `count` best by (merit descending, id), in that order."""
    inside = np.arange(len(merit_N))
    if len(merit_N) > count > 0:
        least = np.partition(merit_N, len(merit_N) - count)[len(merit_N) - count]
        inside = np.flatnonzero(merit_N >= least)  # ties at the cut stay in until ids decide
    order = np.lexsort((ids_N[inside].astype(str), -merit_N[inside]))[:count]
    return np.asarray(inside[order], dtype=np.int64)


@dataclass(frozen=True)
class Nominees:
    """Rows of the highest merit, best first, and the key that no other row is before."""

    merit_n: F64
    squared_n: F64
    ids_n: Ids
    rows_nG: Rows
    bound: Key = NO_ROW

    def best(self, count: int) -> Nominees:
        """Return the best `count`; the first of the others may become the bound."""
        order = leaders(self.merit_n, self.ids_n, len(self.ids_n))
        kept, rest = order[:count], order[count : count + 1]
        keys = [(-float(self.merit_n[i]), str(self.ids_n[i])) for i in rest]
        bound = min([self.bound, *keys])
        return Nominees(self.merit_n[kept], self.squared_n[kept], as_ids(self.ids_n[kept]), self.rows_nG[kept], bound)

    def as_first(self) -> Picked:
        """Return the nominees as picks that no centre was there for."""
        return Picked(self.ids_n, self.rows_nG, np.full(len(self.ids_n), np.inf), np.zeros(len(self.ids_n)))


def first_pick(rule: Rule, ids_N: Ids, rows_NG: Rows, hashes_N: seeds.Hashes) -> Nominees:
    """Return the row to start with when there is no centre."""
    merit_N = rule.first_merit(torch.from_numpy(np.array(rows_NG)), hashes_N).numpy()
    return Nominees(merit_N, np.full(len(merit_N), np.inf), ids_N, rows_NG).best(1)


class MergeNominees:
    """Merge nominees: the best `count` of all, and the best of all that are not among them."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, parts: list[Nominees]) -> Nominees:
        joined = Nominees(
            np.concatenate([part.merit_n for part in parts]),
            np.concatenate([part.squared_n for part in parts]),
            np.concatenate([part.ids_n for part in parts]),
            np.concatenate([part.rows_nG for part in parts]),
            min(part.bound for part in parts),
        )
        return joined.best(self.count)


@dataclass(frozen=True)
class Advance:
    """Make the picks that nominees decide, at most `wanted`; at least one if there is a nominee."""

    rule: Rule
    wanted: int

    def __call__(self, nominees: Nominees) -> Picked:
        order = np.argsort(nominees.ids_n.astype(str), kind="stable")  # then the first of equal merits has the least id
        ids_n, rows_nG = nominees.ids_n[order], nominees.rows_nG[order]
        squared_n = torch.from_numpy(nominees.squared_n[order])
        racing = self.rule.stream is not None
        due_n = torch.from_numpy(-nominees.merit_n[order]) if racing else None
        columns = _Columns(self.rule.metric, torch.from_numpy(np.array(rows_nG)))
        chosen, squared, times = list[int](), list[float](), list[float]()
        while len(chosen) < min(self.wanted, len(ids_n)):
            merit_n = (squared_n if due_n is None else -due_n).numpy()
            at = int(merit_n.argmax())
            if not squared_n[at] > 0 or (-float(merit_n[at]), str(ids_n[at])) > nominees.bound:
                break
            now = 0.0 if due_n is None else float(due_n[at])
            chosen, squared, times = [*chosen, at], [*squared, float(squared_n[at])], [*times, now]
            found_n = columns.of(at, merit_n)
            due_n = None if due_n is None else race.delayed(due_n, squared_n, found_n, now)
            squared_n = torch.minimum(squared_n, found_n)
        return Picked(as_ids(ids_n[chosen]), rows_nG[chosen], np.array(squared), np.array(times))


class _Columns:
    """Squared distances of all nominees to one of them, computed for those that are likely next as well."""

    def __init__(self, metric: Metric, rows_nG: Tensor) -> None:
        self.metric, self.rows_nG, self.known = metric, rows_nG.double(), dict[int, Tensor]()

    def of(self, at: int, merit_n: F64) -> Tensor:
        if at not in self.known:
            count = min(AHEAD, len(merit_n))
            likely = {at, *np.argpartition(-merit_n, count - 1)[:count].tolist()} - self.known.keys()
            wanted = sorted(likely)
            found_Kn = self.metric.squared(self.rows_nG[wanted], self.rows_nG)
            self.known |= dict(zip(wanted, found_Kn, strict=True))
        return self.known[at]
