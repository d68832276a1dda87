"""The evidence of labels computed from the rows themselves: the oracle of everything that computes it from sums."""

from __future__ import annotations

import math

import numpy as np
import torch


def clusters(count: int, dim: int, rank: int, gap: float = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return four overlapping clusters [count, dim] that span `rank` directions, each with at least one row."""
    classes = 4
    rng = np.random.default_rng(seed)
    target = np.concatenate([np.arange(classes), rng.integers(classes, size=count - classes)])
    inner = rng.normal(size=(classes, rank))[target] * gap / math.sqrt(rank) + rng.normal(size=(count, rank))
    return torch.from_numpy(inner @ rng.normal(size=(rank, dim)) if rank < dim else inner), torch.from_numpy(target)


def density(features: np.ndarray, y: np.ndarray, alpha: float, beta: float) -> float:
    """Return log N(y; 0, I/β + FFᵀ/α)."""
    covariance = np.eye(len(y)) / beta + features @ features.T / alpha
    return -0.5 * (
        len(y) * math.log(2 * math.pi) + np.linalg.slogdet(covariance)[1] + y @ np.linalg.solve(covariance, y)
    )


def direct(
    features_MD: torch.Tensor, target_M: torch.Tensor, *, normalise: bool = True
) -> list[tuple[float, float, float]]:
    """Return (evidence per row, α, β) of each class from the rows' own SVD, by MacKay's fixed point."""
    features = features_MD.double().numpy()
    if normalise:
        features = features / math.sqrt((features**2).sum() / len(features))
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    kept = singular > 1e-6 * singular[0]
    left, sigma, out = left[:, kept], singular[kept] ** 2, []
    for c in sorted(set(target_M.tolist())):
        y = (target_M.numpy() == c).astype(float)
        x2, rest = (left.T @ y) ** 2, float(y @ y - ((left.T @ y) ** 2).sum())
        alpha = beta = 1.0
        for _ in range(20000):
            t = alpha / beta
            gamma = (sigma / (sigma + t)).sum()
            alpha = gamma / (sigma * x2 / (t + sigma) ** 2).sum()
            beta = (len(y) - gamma) / ((x2 / (1 + sigma / t) ** 2).sum() + max(rest, 0.0))
            if abs(alpha / beta - t) <= 1e-13 * t:
                break
        out.append((density(features, y, alpha, beta) / len(y), alpha, beta))
    return out
