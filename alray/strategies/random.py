"""Random sampling: every row with the same chance, the baseline that any other strategy has to beat."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from alray import seeds
from alray.strategies.base import Given, ScoreStrategy
from alray.table import Table


class Random(ScoreStrategy):
    """Take the rows with the lowest of independent uniform numbers, keyed by (seed, round, id).

    The score is minus the number: near zero fp32 tells numbers apart that it would round together near one.
    """

    name: Literal["random"] = "random"
    needs: ClassVar[frozenset[str]] = frozenset({"hash"})
    cost: ClassVar[str] = "N"

    def prepare(self, given: Given) -> dict[str, Any]:
        return {"stream": seeds.key(given.seed, "random", given.round)}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        hashes = rows["hash"].numpy().view(np.uint64)
        return torch.from_numpy(-seeds.uniform(prepared["stream"], hashes).astype(np.float32))
