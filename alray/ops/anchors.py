"""Class anchors: one point a class, the mean of its labelled rows."""

from __future__ import annotations

import torch
from torch import Tensor


def class_means(hidden_MH: Tensor, label_M: Tensor, classes: int) -> Tensor:
    """Return the mean of each class's rows, fp32 [C, H]; a class without rows gets the mean of all (algorithm 1).

    Summed in fp64 over rows sorted by id, so that the order in which shards delivered them leaves no trace.
    """
    sums_CH = torch.zeros(classes, hidden_MH.shape[1], dtype=torch.float64)
    sums_CH.index_add_(0, label_M, hidden_MH.double())
    count_C1 = torch.bincount(label_M, minlength=classes)[:, None]
    overall_1H = hidden_MH.double().mean(dim=0, keepdim=True)
    return torch.where(count_C1 > 0, sums_CH / count_C1.clamp_min(1), overall_1H).float()
