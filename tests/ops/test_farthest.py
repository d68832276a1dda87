"""Farthest-first traversal against measuring every distance anew for every pick (P18)."""

from __future__ import annotations

import numpy as np
import torch

from alray.ops.farthest import farthest_first


def test_v3_the_line_of_the_notes() -> None:
    """V3, P20: labelled {0}, pool {1, 2, 5, 9, 10}: picks 10, 5, 2, then 1, at distances that never grow."""
    pool = torch.tensor([[1.0], [2], [5], [9], [10]])
    rows, distances = farthest_first(pool, torch.zeros(1, 1), 5)
    assert pool[rows, 0].tolist() == [10, 5, 2, 1, 9] and distances.tolist() == [10, 5, 2, 1, 1]


def test_agrees_with_measuring_everything_anew() -> None:
    """P18: the picks of the O(B²N) recomputation."""
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(80, 6)).astype(np.float32), rng.normal(size=(3, 6)).astype(np.float32)
    have, picks = list(centres.astype(np.float64)), []
    for _ in range(15):
        least = [min(((p - c) ** 2).sum() for c in have) for p in points.astype(np.float64)]
        picks.append(int(np.argmax(least)))
        have.append(points[picks[-1]].astype(np.float64))
    rows, distances = farthest_first(torch.from_numpy(points), torch.from_numpy(centres), 15)
    assert rows.tolist() == picks and (np.diff(distances) <= 0).all()


def test_rows_that_are_alike_are_taken_once_each() -> None:
    rows, distances = farthest_first(torch.ones(5, 2), torch.ones(1, 2), 5)
    assert rows.tolist() == [0, 1, 2, 3, 4] and not distances.any()
