"""Strategies that choose while they prepare, among rows drawn from the pool; a pool up to that size is taken whole."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.strategies.base import Given, Strategy
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table

Scored = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Rows of `given.sample`, and the score of each: higher is sooner."""


class SampledStrategy(Strategy):
    """Rows that `choose` names have its score, all others −∞: what the choice leaves open is filled at random."""

    picks_alone: ClassVar[bool] = True  # `choose` names the rows to pick and no others

    @abstractmethod
    def choose(self, given: Given) -> Scored:
        """Return the rows of the sample that may be picked. There is at least one row in the sample."""

    def prepare(self, given: Given) -> dict[str, Any]:
        sample = given.sample
        rows, scores = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        if sample is not None and len(sample):
            rows, scores = self.choose(given)
        hashes = np.zeros(0, dtype=np.int64) if sample is None else sample["hash"].numpy()[rows]
        order = np.argsort(hashes, kind="stable")
        ids = np.array([] if sample is None else sample.ids[rows], dtype=str)
        return {"hash": hashes[order], "id": ids[order], "score": scores[order]}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        score_N = torch.full((len(rows),), -torch.inf)
        hash_N, hashes = rows["hash"].numpy(), prepared["hash"]
        first_N, last_N = np.searchsorted(hashes, hash_N, "left"), np.searchsorted(hashes, hash_N, "right")
        for row in np.flatnonzero(first_N < last_N).tolist():
            for at in range(int(first_N[row]), int(last_N[row])):  # two ids may share a hash
                if prepared["id"][at] == rows.ids[row]:
                    score_N[row] = float(prepared["score"][at])
        return score_N

    def shortlist(self, budget: int) -> Shortlist:
        return All()
