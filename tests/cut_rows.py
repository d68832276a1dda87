"""Rows in memory, cut into resident shards as a test says, and what a way of thinning them out is given."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, TypeVar

import builders
import numpy as np
import torch

from alray import seeds
from alray.models.head import Head
from alray.runtime import LocalRuntime, Runtime
from alray.selection.diversity.candidates import Candidates
from alray.selection.resident import Exclusion, Resident, Scan
from alray.selection.shortlisted import Limit
from alray.strategies import Given, Strategy, find
from alray.strategies.diversity import Diversity
from alray.table import Table, as_ids

T = TypeVar("T")


class CutRows(Resident):
    """A shard made of rows in memory. One that is `forgetful` computes everything anew in each call."""

    def __init__(self, number: int, ids: Sequence[str], features_ND: np.ndarray, forgetful: bool = False) -> None:
        self.spec: Any = SimpleNamespace(number=number, version="v", dim=features_ND.shape[1])
        self.ids, self.features_ND = as_ids(list(ids)), features_ND
        self.ok_N, self.reasons = np.ones(len(ids), dtype=bool), {}
        self.hashes, self.device = seeds.hash_ids(ids), torch.device("cpu")
        self.forgetful, self._token, self._memo = forgetful, "", {}

    def remember(self, token: str, key: tuple[Any, ...], compute: Callable[[], T]) -> T:
        return compute() if self.forgetful else super().remember(token, key, compute)


def as_it_is(shard: CutRows) -> CutRows:
    """Make a shard resident that is there already."""
    return shard


def candidates(
    strategy: str | dict[str, Any] | Strategy,
    features_ND: np.ndarray,
    *,
    budget: int,
    labelled: Sequence[int] = (),
    order: Sequence[int] | None = None,
    sizes: Sequence[int] | None = None,
    head: Head | None = None,
    seed: int = 0,
    forgetful: bool = False,
    diversity: Diversity | None = None,
    runtime: Runtime | None = None,
) -> Candidates:
    """Return all rows but the labelled ones as candidates, in this order and cut into shards of these sizes."""
    chosen, names = find(strategy), np.array(builders.ids(len(features_ND)))
    features_ND = np.asarray(features_ND, dtype=np.float16)
    order = np.arange(len(names)) if order is None else np.asarray(order)
    cuts = np.cumsum(sizes or [len(order)])
    assert cuts[-1] == len(order)
    parts = [part for part in np.split(order, cuts[:-1]) if len(part)]
    shards = [CutRows(n, names[part], features_ND[part], forgetful) for n, part in enumerate(parts)]
    known = np.sort(np.asarray(labelled, dtype=np.int64))
    table = Table(names[known], {"features": torch.from_numpy(features_ND[known].astype(np.float32))})
    given = Given(budget=budget, seed=seed, round=0, labelled=table if len(known) else None, head=head)
    excluded = Exclusion(frozenset(names[known].tolist()))
    runtime = runtime or LocalRuntime()
    return Candidates(
        held=runtime.hold(as_it_is, shards, stage="test"),
        runtime=runtime,
        numbers=range(len(shards)),
        dim=features_ND.shape[1],
        scan=Scan(uuid.uuid4().hex, "v", chosen, chosen.prepare(given), head, excluded),
        limit=Limit(-np.inf),
        count=len(names) - len(known),
        given=given,
        diversity=diversity or chosen.diversity,
        regime="auto",
    )


def numbers(ids: Sequence[str]) -> list[int]:
    """Return the row numbers of these ids."""
    return [int(i.removeprefix("row-")) for i in ids]
