"""Typicality against all distances in plain NumPy, computed anew for every pick."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray.ops import kmeans, typicality


def units(rows: int, dim: int = 6, seed: int = 0) -> torch.Tensor:
    return kmeans.unit_rows(torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, dim))))


def brute(x: np.ndarray, count: int, neighbours: int) -> list[int]:
    """Algorithm 1's inner step: remove what is picked, and measure everything again."""
    left, picks = list(range(len(x))), []
    for _ in range(count):
        k = max(1, min(neighbours, len(left) // 2))
        best, most = -1, -1.0
        for i in left:
            gaps = sorted(float(np.sqrt(((x[i] - x[j]) ** 2).sum())) for j in left if j != i)[:k]
            value = 1 / ((np.mean(gaps) if gaps else 0.0) + 1e-5)
            if value > most:
                best, most = i, value
        picks.append(best)
        left.remove(best)
    return picks


@pytest.mark.parametrize(
    ("rows", "count", "neighbours"), [(30, 1, 20), (60, 7, 5), (41, 41, 20), (9, 9, 3), (530, 2, 20)]
)
def test_the_most_typical_rows_are_those_of_a_plain_search(rows: int, count: int, neighbours: int) -> None:
    x = units(rows)
    assert typicality.most_typical(x, count, neighbours).tolist() == brute(x.double().numpy(), count, neighbours)


def test_a_hand_example() -> None:
    # Angles 0, 10, 20, 90 and 180 degrees, two neighbours (5 / 2): the row at 10 has the nearest two.
    angle = np.deg2rad([0, 10, 20, 90, 180])
    x = kmeans.unit_rows(torch.from_numpy(np.c_[np.cos(angle), np.sin(angle)]))
    assert typicality.most_typical(x, 1, 20).tolist() == [1]


def test_rows_that_are_alike_are_taken_in_their_order() -> None:
    assert typicality.most_typical(units(1).repeat(6, 1), 6, 20).tolist() == [0, 1, 2, 3, 4, 5]
    assert typicality.most_typical(units(1), 1, 20).tolist() == [0]
    assert typicality.most_typical(kmeans.unit_rows(torch.zeros(3, 2)), 2, 20).tolist() == [0, 1]
