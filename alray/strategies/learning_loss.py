"""Learning loss: label the rows on which a small module, taught by the labelled ones, expects the model to do worst."""

from __future__ import annotations

import logging
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from alray.errors import StrategyError
from alray.ops import loss_ranking
from alray.strategies.base import Given, ScoreStrategy, as_tensor
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table

log = logging.getLogger(__name__)

LEVELS = ("features", "hidden")
"""What the module looks at, from below; of a linear head both are the same, and the first is enough."""


class LearningLoss(ScoreStrategy):
    """Yoo & Kweon, *Learning Loss for Active Learning*, CVPR 2019: score = the predicted loss, taught by eq. 2.

    The module stands beside the head and looks at the features and, of an MLP head, at its hidden activations. Its
    targets are the labelled rows' losses under heads that were fitted without them: under their own head they are
    near zero. It is fitted after the head; the paper trains it together with the network, whose blocks it looks at.
    """

    name: Literal["learning_loss"] = "learning_loss"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "hidden", "loss"})
    paper: ClassVar[str] = "Yoo & Kweon, CVPR 2019"
    cost: ClassVar[str] = "N·D·U (U = width), and once M·D·U·`epochs` and five heads on 4/5·M rows"

    margin: float = Field(1.0, gt=0, le=1_000_000)  # ξ: by how much the predictions of a pair are to differ
    width: int = Field(128, ge=1, le=4096)  # units that look at each level
    epochs: int = Field(200, ge=1, le=10_000)  # passes over the labelled rows
    batch: int = Field(128, ge=2, le=1_000_000)  # rows a step, in pairs
    lr: float = Field(1e-3, gt=0, le=1)  # first learning rate of AdamW; it falls to zero
    weight_decay: float = Field(5e-4, ge=0, le=1000)

    def prepare(self, given: Given) -> dict[str, Any]:
        if given.head is None or given.losses is None:
            raise StrategyError(
                "`learning_loss` learns from the losses of labelled rows, and there are no labels. Give labels, or "
                "start with `strategy: random`."
            )
        loss_M = given.losses["loss"]
        if not len(loss_M) or float(loss_M.max() - loss_M.min()) == 0:
            log.warning(
                "learning_loss: %d labelled rows have a loss, and no two differ: picks are drawn at random", len(loss_M)
            )
            return {"layers": None}
        fit = loss_ranking.Fit(
            self.width, self.epochs, self.batch, self.lr, self.weight_decay, self.margin, given.seed, given.round
        )
        names = LEVELS[:1] if given.head.kind == "linear" else LEVELS
        layers = fit([given.losses[name] for name in names], loss_M)
        return {"layers": [(w.numpy(), b.numpy()) for w, b in layers]}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        fine_N = rows["hidden"].isfinite().all(dim=1)
        if prepared["layers"] is None:
            return torch.where(fine_N, -torch.inf, torch.nan)
        layers = [(as_tensor(w, rows["features"]), as_tensor(b, rows["features"])) for w, b in prepared["layers"]]
        predicted_N = loss_ranking.predict([rows[name] for name in LEVELS[: len(layers) - 1]], layers)
        return torch.where(fine_N, predicted_N, torch.nan)

    def shortlist(self, budget: int) -> Shortlist:
        return All()
