"""ActiveFT: centroids that stand where rows are and away from each other (Xie et al., CVPR 2023).

The loss of a unit row x with its most similar centroid j is −[x·c_j/τ − ln(e^(x·c_j/τ) + w Σ_m e^(c_m·c_j/τ))]; its
mean over all rows is minimised. The sum goes over all centroids, j too, and the c_m in it are taken as constants.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from alray.ops.affine import affine
from alray.ops.kmeans import CHUNK

BLOCK = 1024
"""Centroids whose part of the loss is held at once."""


@dataclass(frozen=True)
class Recipe:
    """How the centroids are found."""

    temperature: float = 0.07
    balance: float = 1.0  # w, the weight of keeping centroids apart
    rate: float = 1e-3
    steps: int = 100


def optimised(units_SD: Tensor, start_KD: Tensor, fixed_LD: Tensor, recipe: Recipe) -> Tensor:
    """Return K centroids of length 1 after Adam's steps from `start`, fp32 [K, D], beside the `fixed` ones."""
    units_SD, fixed_LD = units_SD.float(), normalize(fixed_LD.float(), dim=1)
    moving_KD = normalize(start_KD.float(), dim=1).requires_grad_()
    adam = torch.optim.Adam([moving_KD], lr=recipe.rate)
    for _ in range(recipe.steps):
        adam.zero_grad()
        for part in loss_parts(units_SD, moving_KD, fixed_LD, recipe):
            part.backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            moving_KD.copy_(normalize(moving_KD, dim=1))
    return moving_KD.detach()


def loss_parts(units_SD: Tensor, moving_KD: Tensor, fixed_LD: Tensor, recipe: Recipe) -> Iterator[Tensor]:
    """Yield what the rows of each block of moving centroids add to the mean loss.

    Rows that a fixed centroid is the most similar of are left out: no moving centroid changes their loss.
    """
    all_MD = torch.cat([normalize(moving_KD.detach(), dim=1), fixed_LD])
    near_S = torch.cat([(rows @ all_MD.T).argmax(dim=1) for rows in torch.split(units_SD, CHUNK)])
    for start in range(0, len(moving_KD), BLOCK):
        block_bD = normalize(moving_KD[start : start + BLOCK], dim=1)
        rows = ((near_S >= start) & (near_S < start + len(block_bD))).nonzero()[:, 0]
        own = near_S[rows] - start
        pull_r = (units_SD[rows] * block_bD[own]).sum(dim=1) / recipe.temperature
        push_b = (all_MD @ block_bD.T / recipe.temperature).logsumexp(dim=0) + math.log(recipe.balance)
        yield (torch.logaddexp(pull_r, push_b[own]) - pull_r).sum() / len(units_SD)


def most_similar(units_ND: Tensor, centroids_KD: Tensor, rank_N: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the `most` most similar rows of each centroid, the most similar first, and x·c, [K, most] and [K, most].

    Ties go to the lowest rank, int64 in [0, 2³²). A row's similarities do not depend on the rows beside it.
    """
    similarity_NK = affine(units_ND.float(), centroids_KD, torch.zeros(len(centroids_KD))) + 0.0  # −0 becomes 0
    bits_NK = similarity_NK.view(torch.int32)
    ordered_NK = torch.where(bits_NK < 0, bits_NK ^ 0x7FFFFFFF, bits_NK).long()  # the order of whole numbers
    keys_NK = (ordered_NK << 32) + (2**32 - 1 - rank_N)[:, None]  # no two alike, so that `topk` has no choice
    rows_mK = keys_NK.topk(min(most, len(units_ND)), dim=0).indices
    return rows_mK.T, similarity_NK.gather(0, rows_mK).T
