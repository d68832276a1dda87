"""ALFA-Mix: label rows whose predicted class flips when a little of a labelled class is mixed into their features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from alray.errors import StrategyError
from alray.ops import flips
from alray.strategies.base import Given, Strategy, as_tensor
from alray.strategies.diversity import Diversity, KMeans
from alray.strategies.shortlist import GrowingCap, Shortlist
from alray.table import Table


class AlfaMix(Strategy):
    """Parvaneh et al., *Active Learning by Feature Mixing*, CVPR 2022, eq. 5 (closed form) and algorithm 1.

    Candidates are the rows that flip towards any class anchor within the smallest sufficient cap; k-means over their
    L2-normalised features picks the real row nearest to each centroid. The score is minus the critical cap.
    Needs the head's last layer to be affine, which every head of alray's is.
    """

    name: Literal["alfa_mix"] = "alfa_mix"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden"})
    exact: ClassVar[bool] = False  # the candidates are exact, k-means over shards is not
    paper: ClassVar[str] = "Parvaneh et al., CVPR 2022"

    cap_step: float = Field(0.2, ge=0.001, le=1)  # the cap grows by this until it has more than B candidates
    freeze_equal: bool = False  # as the official code: coordinates in which row and anchor are equal do not move
    shortlist_multiple: float | None = Field(None, gt=1)  # keep the best this many × B candidates; none keeps all

    def prepare(self, given: Given) -> dict[str, Any]:
        if given.head is None or given.labelled is None or given.label_M is None or not len(given.labelled):
            raise StrategyError(
                "`alfa_mix` mixes features of labelled rows into the pool's, and there are no labels. Give labels, or "
                "start with `strategy: random`."
            )
        anchors_CH = class_means(given.labelled["hidden"], given.label_M, len(given.classes))
        frame = flips.Frame.of(*given.head.last, anchors_CH)
        return {name: part.numpy() for name, part in frame._asdict().items()}

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        hidden_NH = rows["hidden"]
        cap = flips.critical_cap_frozen if self.freeze_equal else flips.critical_cap
        frame = flips.Frame(**{name: as_tensor(part, hidden_NH) for name, part in prepared.items()})
        return -cap(hidden_NH, frame).float()

    def shortlist(self, budget: int) -> Shortlist:
        return GrowingCap(self.cap_step, budget, self.shortlist_multiple)

    @property
    def diversity(self) -> Diversity:
        return KMeans()


def class_means(hidden_MH: Tensor, label_M: Tensor, classes: int) -> Tensor:
    """Return the mean of each class's rows, fp32 [C, H]; a class without rows gets the mean of all (algorithm 1).

    Summed in fp64 over rows sorted by id, so that the order in which shards delivered them leaves no trace.
    """
    sums_CH = torch.zeros(classes, hidden_MH.shape[1], dtype=torch.float64)
    sums_CH.index_add_(0, label_M, hidden_MH.double())
    count_C1 = torch.bincount(label_M, minlength=classes)[:, None]
    overall_1H = hidden_MH.double().mean(dim=0, keepdim=True)
    return torch.where(count_C1 > 0, sums_CH / count_C1.clamp_min(1), overall_1H).float()
