"""k-means whose sums are exact, so that any split of the rows over workers gives the same bits.

Rows are L2-normalised and rounded to fp16 before they are summed. Such values are multiples of 2⁻²⁴ below 1 + 2⁻¹¹, so
fp64 sums of them are exact while Σ|x| < 2²⁹: addition order, and with it the number of workers, cannot matter.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alray.ops.affine import affine

CHUNK = 4096
"""Rows per GEMM. Fixed, so that a row meets the same kernel wherever its shard is."""

EXACT_ROWS = 2**29
"""Above this many unit rows in one sum, fp64 could round."""


def unit_rows(x_ND: Tensor) -> Tensor:
    """Return the rows scaled to length 1 and rounded to fp16, [N, D]; a zero row stays zero."""
    return torch.nn.functional.normalize(x_ND.float(), dim=1, eps=1e-30).half()


def nearest(rows_ND: Tensor, centroids_KD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the nearest centroid of each row and the squared distance to it, [N] int64 and [N] fp32.

    Ties go to the lowest centroid. Distances are ‖x‖² − 2 x·c + ‖c‖², clamped at 0.
    """
    if not len(rows_ND):
        return torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    labels, squared = [], []
    bias_K = centroids_KD.square().sum(dim=1)
    for chunk in torch.split(rows_ND, CHUNK):
        x = chunk.float()
        least = affine(x, centroids_KD, bias_K, scale=-2.0).min(dim=1)
        labels.append(least.indices)
        squared.append((least.values + x.square().sum(dim=1)).clamp_min(0))
    return torch.cat(labels), torch.cat(squared)


def distances(rows_ND: Tensor, centroids_KD: Tensor, label_N: Tensor) -> Tensor:
    """Return the squared distance of each row to its own centroid, summed in fp64, [N].

    Both rows of a cluster of two are equally far from their mean, up to rounding: a GEMM's rounding, which depends on
    the rows beside them, must not decide which of them is bought.
    """
    parts = [
        (rows.double() - centroids_KD[labels].double()).square().sum(dim=1)
        for rows, labels in zip(torch.split(rows_ND, CHUNK), torch.split(label_N, CHUNK), strict=True)
    ]
    return torch.cat(parts)


def cluster_sums(rows_ND: Tensor, label_N: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return per cluster the fp64 sum of its fp16 rows and its count: [K, D] and [K]. Exact in any order."""
    assert rows_ND.dtype == torch.float16 and len(rows_ND) < EXACT_ROWS
    sums_KD = torch.zeros(clusters, rows_ND.shape[1], dtype=torch.float64)
    for rows, labels in zip(torch.split(rows_ND, CHUNK), torch.split(label_N, CHUNK), strict=True):
        sums_KD.index_add_(0, labels, rows.double())
    return sums_KD, torch.bincount(label_N, minlength=clusters)


def means(sums_KD: Tensor, weight_K: Tensor, before_KD: Tensor) -> Tensor:
    """Return the new centroids, fp32 [K, D]; an empty cluster keeps its place."""
    weight_K1 = weight_K.double()[:, None]
    return torch.where(weight_K1 > 0, sums_KD / weight_K1.clamp_min(1e-300), before_KD.double()).float()


def plus_plus(rows_ND: Tensor, weight_N: Tensor, clusters: int, generator: np.random.Generator) -> Tensor:
    """Return `clusters` rows drawn by weighted k-means++ (Arthur & Vassilvitskii, 2007), [K, D] fp32.

    Each next centre is drawn with probability w·D². When every row is already a centre, the rest repeat the heaviest.
    """
    x_ND, weight_N = rows_ND.float(), weight_N.double()
    square_N = x_ND.square().sum(dim=1)
    mass_N = weight_N.clone()
    least_N = torch.full((len(x_ND),), torch.inf)
    chosen = []
    for draw in generator.random(clusters):
        total_N = mass_N.cumsum(0)
        if not total_N[-1] > 0:
            chosen.append(int(weight_N.argmax()))
            continue
        at = int(torch.searchsorted(total_N, torch.tensor(draw * float(total_N[-1]), dtype=torch.float64), right=True))
        at = min(at, len(x_ND) - 1)
        chosen.append(at)
        least_N = torch.minimum(least_N, (square_N - 2 * (x_ND @ x_ND[at]) + square_N[at]).clamp_min(0))
        least_N[at] = 0.0
        mass_N = weight_N * least_N
    return x_ND[torch.tensor(chosen)]


def lloyd(rows_ND: Tensor, centroids_KD: Tensor, *, iterations: int) -> tuple[Tensor, int]:
    """Return the centroids after at most `iterations` exact steps over fp16 unit rows, and the steps taken.

    Stops when no row changes its cluster.
    """
    before_N: Tensor | None = None
    for step in range(iterations):
        label_N, _ = nearest(rows_ND, centroids_KD)
        if before_N is not None and torch.equal(label_N, before_N):
            return centroids_KD, step
        sums_KD, count_K = cluster_sums(rows_ND, label_N, len(centroids_KD))
        centroids_KD, before_N = means(sums_KD, count_K, centroids_KD), label_N
    return centroids_KD, iterations


def weighted(
    points_ND: Tensor, weight_N: Tensor, clusters: int, generator: np.random.Generator, *, tries: int, iterations: int
) -> Tensor:
    """Return the best of `tries` weighted k-means runs over summary points, by weighted inertia; [K, D] fp32."""
    runs = [_weighted_run(points_ND, weight_N.double(), clusters, generator, iterations) for _ in range(tries)]
    return min(runs, key=lambda run: run[0])[1]


def _weighted_run(
    points_ND: Tensor, weight_N: Tensor, clusters: int, generator: np.random.Generator, iterations: int
) -> tuple[float, Tensor]:
    centroids_KD = plus_plus(points_ND, weight_N, clusters, generator)
    mass_ND = points_ND.double() * weight_N[:, None]
    for _ in range(iterations):
        label_N, _ = nearest(points_ND, centroids_KD)
        weight_K = torch.zeros(clusters, dtype=torch.float64).index_add_(0, label_N, weight_N)
        sums_KD = torch.zeros(clusters, points_ND.shape[1], dtype=torch.float64).index_add_(0, label_N, mass_ND)
        moved_KD = means(sums_KD, weight_K, centroids_KD)
        if torch.equal(moved_KD, centroids_KD):
            break
        centroids_KD = moved_KD
    return float((nearest(points_ND, centroids_KD)[1].double() * weight_N).sum()), centroids_KD
