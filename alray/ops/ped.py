"""Potential-energy descent: how class clusters would push each other apart while a network is fine-tuned.

Li et al. (ICCV 2023) see classes as bodies with a mean and a radius. Where two of them overlap they repel; after a few
small steps the features are scored instead of the ones that were given. A step moves every row of a class by the same
vector, so it needs no rows: class sums and the Gram matrix say what the moved rows' would be.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alray.ops.moments import Coordinates, Moments

STEPS = 6
"""Steps at most."""


@dataclass(frozen=True, eq=False)
class Descent:
    """Moved moments, the number of steps taken, and how far the classes moved in all (standardised units, summed)."""

    moments: Moments
    steps: int
    shift: float


def descend(
    moments: Moments,
    coordinates: Coordinates,
    *,
    time: float = 0.1,
    stop: float = 0.5,
    nsigma: float = 0.6,
    pull: float = 1.0,
) -> Descent:
    """Return the moments after the classes have repelled each other.

    In coordinates standardised by `coordinates` (general rows, not only the labelled ones), a class has radius
    R = √(Σ_d var_d), and two classes at distance d repel by F = max(nsigma (Rᵢ + Rⱼ) − d, 0): both move by
    min(½ time² pull F, F) along the line between their means. Radii never change. A step is taken while the classes
    would move more than `stop` of what they moved in the first one, at most `STEPS` times; where nothing overlaps, none
    is. Two classes with the same mean have no line between them and do not push each other.
    """
    there_C = moments.count_C > 0
    count_C1, std_D = moments.count_C[there_C, None].double(), coordinates.std_D
    mean_CD = moments.sum_CD[there_C] / count_C1
    variance_CD = (moments.square_CD[there_C] / count_C1 - mean_CD.square()).clamp_min(0)
    radius_C = (variance_CD / std_D.square()).sum(dim=1).sqrt()
    start_CD = (mean_CD - coordinates.mean_D) / std_D
    at_CD, steps, first, shift = start_CD, 0, 0.0, 0.0
    while steps < STEPS:
        delta_CD = pushes(at_CD, radius_C, time=time, nsigma=nsigma, pull=pull)
        length = float(delta_CD.abs().sum())
        first = first or length
        if length <= stop * first:
            break
        at_CD, steps, shift = at_CD + delta_CD, steps + 1, shift + float(delta_CD.norm(dim=1).sum())
    if not steps:
        return Descent(moments, 0, 0.0)
    delta_CD = torch.zeros_like(moments.sum_CD)
    delta_CD[there_C] = (at_CD - start_CD) * std_D
    return Descent(moved(moments, delta_CD), steps, shift)


def pushes(mean_CD: Tensor, radius_C: Tensor, *, time: float, nsigma: float, pull: float) -> Tensor:
    """Return how far each class moves in one step, [C, D]. What a pair moves cancels, so that all sum to zero."""
    distance_CC = torch.cdist(mean_CD, mean_CD, compute_mode="donot_use_mm_for_euclid_dist")
    force_CC = (nsigma * (radius_C[:, None] + radius_C) - distance_CC).clamp_min(0)
    move_CC = force_CC * min(0.5 * time**2 * pull, 1.0)
    per_unit_CC = torch.where(distance_CC > 0, move_CC / distance_CC.clamp_min(1e-300), 0.0)
    return per_unit_CC.sum(dim=1, keepdim=True) * mean_CD - per_unit_CC @ mean_CD


def moved(moments: Moments, delta_CD: Tensor) -> Moments:
    """Return the moments of the rows after each class has moved by its row of `delta_CD`."""
    sum_CD, count_C1 = moments.sum_CD, moments.count_C[:, None].double()
    cross_DD = sum_CD.T @ delta_CD
    gram_DD = moments.gram_DD + cross_DD + cross_DD.T + (count_C1 * delta_CD).T @ delta_CD
    square_CD = moments.square_CD + 2 * sum_CD * delta_CD + count_C1 * delta_CD.square()
    return Moments(gram_DD, sum_CD + count_C1 * delta_CD, square_CD, moments.count_C)
