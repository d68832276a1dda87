"""DeepFool: label the rows that the smallest push would take to another class."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from alray.models.head import Head
from alray.ops import boundary
from alray.ops.affine import affine
from alray.strategies.base import Given, ScoreStrategy, as_tensor
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table


class DeepFool(ScoreStrategy):
    """Ducoffe & Precioso, *Adversarial Active Learning for Deep Networks*, 2018: DeepFool's perturbation as a margin.

    Score = −‖r‖, r the smallest push of a row to a decision boundary of the head. Where the head is affine (always in
    the input of its last layer) that is min over c of (l_y − l_c) / ‖w_y − w_c‖; below an MLP, `where: features`, it is
    walked to. With one class there is no boundary, all scores are −∞ and the rows are drawn at random.
    """

    name: Literal["deepfool"] = "deepfool"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "logits"})
    paper: ClassVar[str] = "Ducoffe & Precioso, arXiv:1802.09841, 2018"
    cost: ClassVar[str] = "N·D·C; `where: features` of an MLP of H units: about 3·N·min(C, `classes`)·H·D"

    where: Literal["hidden", "features"] = "hidden"  # what is pushed: the input of the last layer, or of the head
    last_class_bug: bool = False  # always push towards the last class, as the code that comparisons were run with
    classes: int = Field(10, ge=1, le=1_000_000)  # walk: the likeliest so many other classes are walked towards
    iterations: int = Field(50, ge=1, le=1000)  # walk: steps at most
    overshoot: float = Field(0.02, ge=0, le=1)  # walk: how far beyond a boundary the next look is taken

    def prepare(self, given: Given) -> dict[str, Any]:
        assert given.head is not None  # the need `logits` is not met without one
        return {"head": given.head, "apart": boundary.apart(given.head.last[0]).numpy()}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        head: Head = prepared["head"]
        if self.where == "features" and head.kind != "linear":
            return -self._walk(head).distance(rows["features"])
        logits_NC = rows["logits"]
        apart_CC = as_tensor(prepared["apart"], logits_NC)
        return -boundary.distance(logits_NC, apart_CC, last_class_bug=self.last_class_bug)

    def shortlist(self, budget: int) -> Shortlist:
        return All()

    def _walk(self, head: Head) -> boundary.Walk:
        return boundary.Walk(
            head.logits,
            lambda x_nD, class_nK, label_n: mlp_slopes(head, x_nD, class_nK, label_n),
            classes=self.classes,
            iterations=self.iterations,
            overshoot=self.overshoot,
            last_class_bug=self.last_class_bug,
        )


def mlp_slopes(head: Head, x_nD: Tensor, class_nK: Tensor, label_n: Tensor) -> Tensor:
    """Return the gradients by the features of l_c − l_y under an MLP head, [n, K, D]."""
    weight_CH = head.last[0].to(x_nD.device)
    below_HD = as_tensor(head.weights["hidden_weight"], x_nD)
    active_nH = head.hidden(x_nD) > 0
    slope_nKH = (weight_CH[class_nK] - weight_CH[label_n][:, None]) * active_nH[:, None]
    flat = affine(slope_nKH.flatten(0, 1), below_HD.T.contiguous(), torch.zeros_like(below_HD[0]))
    return flat.reshape(*class_nK.shape, -1)
