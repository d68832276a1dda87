"""PowerBALD: BALD's scores as chances and not as ranks, so that a batch is not B copies of one question."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from alray import seeds
from alray.ops import gumbel
from alray.ops.disagreement import mutual_information
from alray.strategies.base import Given, ScoreStrategy
from alray.strategies.kinds.dropout import DropoutStrategy
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table


class PowerBald(DropoutStrategy, ScoreStrategy):
    """Score = β ln MI + Gumbel(0, 1) (Kirsch et al., *Stochastic Batch Acquisition*, TMLR 2023, table 1, "power").

    The best B are a sample without replacement with chances ∝ MI^β. Rows whose draws all agree (MI = 0) have no chance:
    they are taken at random when nothing else is left.
    """

    name: Literal["power_bald"] = "power_bald"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "draws", "hash"})
    paper: ClassVar[str] = "Kirsch et al., TMLR 2023"
    cost: ClassVar[str] = "S·N·D·C"

    beta: float = Field(1.0, ge=0, le=1000)  # 0: all with MI > 0 are alike; large: BALD's ranks

    def prepare(self, given: Given) -> dict[str, Any]:
        return {**super().prepare(given), "stream": seeds.key(given.seed, "power_bald", given.round)}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        passes = self.passes(rows, prepared)
        mi_N = mutual_information(logits_NC.softmax(dim=1) for logits_NC in passes)
        hashes = seeds.hash_ids(rows.ids) if self.where == "backbone" else rows["hash"].cpu().numpy().view(np.uint64)
        noise_N = torch.from_numpy(gumbel.noise(prepared["stream"], hashes)).to(mi_N.device)
        return torch.where(mi_N == 0, -torch.inf, self.beta * mi_N.log() + noise_N).float()

    def shortlist(self, budget: int) -> Shortlist:
        return All()
