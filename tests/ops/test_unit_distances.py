"""Distances of unit fp16 rows: exact, so that blocks, neighbours and order cannot change them."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from alray.ops import kmeans, unit_distances


def units(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return kmeans.unit_rows(torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, dim))))


def test_every_distance_is_the_exact_one() -> None:
    x, y = units(7, 33), units(5, 33, 1)
    found = unit_distances.squared(x, y)
    for i, row in enumerate(x.tolist()):
        for j, other in enumerate(y.tolist()):
            exact = sum((Fraction(a) - Fraction(b)) ** 2 for a, b in zip(row, other, strict=True))
            assert Fraction(float(found[i, j])) == exact


def test_no_block_and_no_order_of_coordinates_changes_a_bit() -> None:
    x = units(300, 257)
    whole = unit_distances.squared(x, x)
    assert torch.equal(whole[17:18, 40:43], unit_distances.squared(x[17:18], x[40:43]))
    turned = x[:, torch.randperm(257, generator=torch.Generator().manual_seed(0))]
    assert torch.equal(whole, unit_distances.squared(turned, turned))
    assert (whole.diagonal() == 0).all()


def test_rows_without_length_stay_at_the_origin() -> None:
    zero = kmeans.unit_rows(torch.zeros(2, 4))
    assert unit_distances.squared(zero, zero).tolist() == [[0, 0], [0, 0]]
