"""ALFA-Mix: label rows whose predicted class flips when a little of a labelled class is mixed into their features."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor

from alray import seeds
from alray.errors import StrategyError
from alray.models.head import SHAPES
from alray.ops import alphas, flips, mixing, probability
from alray.ops.anchors import class_means
from alray.ops.kmeans import unit_rows
from alray.strategies.base import Given, Strategy, as_tensor
from alray.strategies.diversity import Diversity, Highest, KCentre, KMeans, Uniform
from alray.strategies.shortlist import GrowingCap
from alray.table import Table

WAYS: dict[str, Diversity] = {
    "kmeans": KMeans(),
    "kcenter": KCentre(),
    "uniform": Uniform(),
    "norm": Highest(),  # the least ‖α‖
    "symmetric_kl": Highest(),  # of a row's prediction and its mixture's
}


class AlfaMix(Strategy):
    """Parvaneh et al., *Active Learning by Feature Mixing*, CVPR 2022, eq. 5 and algorithm 1.

    Candidates are the rows that flip towards any class anchor within the smallest sufficient cap; k-means over their
    L2-normalised features picks the real row nearest to each centroid. The score is minus the cap at which a row flips.

    For the closed form below an affine layer that cap is exact, from one pass. All else is tried at κ, 2κ, … and a row
    has the first cap that flips it: random and learned α, and mixing below an MLP head (`selection.space: features`),
    where the closed form moves a row along the gradient at the row itself. Tried mixtures are real forward passes;
    only caps and anchors that provably flip nothing are left out. What happens between two caps is not looked at.
    """

    name: Literal["alfa_mix"] = "alfa_mix"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "hidden"})
    exact: ClassVar[bool] = False  # the candidates are exact, k-means over shards is not
    paper: ClassVar[str] = "Parvaneh et al., CVPR 2022"
    cost: ClassVar[str] = "N·D·C; learned, up to alpha_steps/cap_step·N·D·C²; and k-means of the candidates"

    cap_step: float = Field(0.2, ge=0.001, le=1)  # the cap grows by this until it has more than B candidates
    cap_max: float = Field(1.0, gt=0, le=1)  # the last cap is the first to reach this; cap_step gives a single cap
    absent_class: Literal["global_mean", "skip"] = "global_mean"  # the anchor of a class without labels
    alpha: Literal["closed_form", "random", "learned"] = "closed_form"
    freeze_equal: bool = False  # closed form, as the official code: coordinates equal in row and anchor do not move
    alpha_steps: int = Field(5, ge=1, le=1000)  # learned: mixtures tried for each cap and anchor
    alpha_lr: float = Field(0.1, gt=0, le=1000)  # learned: in the first two thirds of the steps; a tenth of it after
    alpha_l2: float = Field(0.01, ge=0, le=1_000_000)  # learned: weight of ‖α‖ beside the cross-entropy
    keep_optimizer: bool = False  # learned: Adam as published; the official code makes it anew for each step
    diversify: Literal["kmeans", "kcenter", "uniform", "norm", "symmetric_kl"] = "kmeans"
    shortlist_multiple: float | None = Field(
        None, gt=1, le=10_000
    )  # keep the best this many × B candidates; none keeps all

    @property
    def wants(self) -> frozenset[str]:
        return self.needs if self.alpha == "closed_form" else self.needs | {"hash"}

    def prepare(self, given: Given) -> dict[str, Any]:
        head = given.head
        if head is None or given.labelled is None or given.label_M is None or not len(given.labelled):
            raise StrategyError(
                "`alfa_mix` mixes features of labelled rows into the pool's, and there are no labels. Give labels, or "
                "start with `strategy: random`."
            )
        below = given.space == "features" and head.kind == "mlp"
        rows_MD = given.labelled["features" if below else "hidden"]
        classes = np.arange(len(given.classes)) if self.absent_class == "global_mean" else np.unique(given.label_M)
        anchors_AD = class_means(rows_MD, given.label_M, len(given.classes))[classes]
        layers = [as_tensor(head.weights[name], rows_MD) for name in SHAPES[head.kind]]
        parts = mixing.Net.of(layers, anchors_AD) if below else flips.Frame.of(*head.last, anchors_AD)
        arrays = {name: part.numpy() for name, part in parts._asdict().items()}
        return arrays | {"classes_A": classes, "stream": seeds.key(given.seed, "alfa_mix", given.round)}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        if self.alpha != "closed_form" or not affine(prepared):
            return -mixing.just_below(self._tried(rows, prepared).cap_N)
        hidden_NH = rows["hidden"]
        cap = flips.critical_cap_frozen if self.freeze_equal else flips.critical_cap
        return -cap(hidden_NH, flips.Frame(**tensors(flips.Frame._fields, prepared, hidden_NH))).float()

    def shortlist(self, budget: int) -> GrowingCap:
        return GrowingCap(self.cap_step, budget, self.shortlist_multiple, self.cap_max)

    @property
    def diversity(self) -> Diversity:
        return WAYS[self.diversify]

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor | None:
        if self.diversify == "kcenter":  # as k-means: unit rows
            return unit_rows(rows["hidden" if affine(prepared) else "features"]).float()
        if self.diversify == "norm":
            return -self._norm(rows, prepared)[:, None]
        if self.diversify == "symmetric_kl":
            found = self._tried(rows, prepared)
            return probability.symmetric_kl(found.own_NC, found.logits_NC)[:, None]
        return None

    def _norm(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        """Return the least ‖α‖ that flips each row, [N]; for the closed form, whose α has any size, the cap itself."""
        if self.alpha != "closed_form":
            return self._tried(rows, prepared).key_N
        return -self.score(rows, prepared) if affine(prepared) else self._along(rows, prepared).linearised_cap()

    def _tried(self, rows: Table, prepared: dict[str, Any]) -> mixing.Flips:
        """Return each row's first flip at one of the caps, by forward passes."""
        way = self._along if self.alpha == "closed_form" else self._weighted
        return mixing.first_flips(way(rows, prepared), self.shortlist(0).caps.tolist())

    def _along(self, rows: Table, prepared: dict[str, Any]) -> mixing.Along:
        return mixing.Along(*mixed(rows, prepared), freeze=self.freeze_equal)

    def _weighted(self, rows: Table, prepared: dict[str, Any]) -> alphas.Weighted:
        draw = alphas.Draw(prepared["stream"], rows["hash"].cpu().numpy().view(np.uint64))
        how = alphas.Steps(self.alpha_steps, self.alpha_lr, self.alpha_l2, self.keep_optimizer)
        used = how if self.alpha == "learned" else None
        return alphas.Weighted(*mixed(rows, prepared), draw, prepared["classes_A"].tolist(), used)


def affine(prepared: dict[str, Any]) -> bool:
    """Return whether rows are mixed where the head is affine."""
    return "gram_CC" in prepared


def mixed(rows: Table, prepared: dict[str, Any]) -> tuple[Tensor, mixing.Net]:
    """Return the rows as they are mixed, and the head and anchors in their precision."""
    x_ND = rows["hidden" if affine(prepared) else "features"]
    return x_ND, mixing.Net(**tensors(mixing.Net._fields, prepared, x_ND)).to(x_ND)


def tensors(names: Iterable[str], prepared: dict[str, Any], like: Tensor) -> dict[str, Tensor]:
    """Return those of the prepared arrays that are there, as tensors on the device of `like`."""
    return {name: as_tensor(prepared[name], like) for name in names if name in prepared}
