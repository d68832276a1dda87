"""Class anchors against plain means, where classes are missing and where rows lie far from zero (P8)."""

from __future__ import annotations

import numpy as np
import torch
from benchmarks import alfa_candidates as brute

from alray.ops.anchors import class_means


def test_anchors_are_class_means_and_an_absent_class_has_the_mean_of_all() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float16)
    label = np.where(np.arange(30) < 1, 3, np.arange(30) % 2)  # one row of class 3, none of 2 and 4
    found = class_means(torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(label), 5)
    np.testing.assert_array_equal(found, brute.anchors_of(rows, label, 5))
    np.testing.assert_array_equal(found[3], rows[0].astype(np.float32))
    np.testing.assert_array_equal(found[2], rows.astype(np.float64).mean(axis=0).astype(np.float32))
    assert torch.equal(found[2], found[4])


def test_anchors_of_rows_far_from_zero_keep_their_digits() -> None:
    rows = np.full((10_000, 1), 1000.1, dtype=np.float16)
    found = class_means(torch.from_numpy(rows.astype(np.float32)), torch.zeros(10_000, dtype=torch.int64), 1)
    assert found.item() == float(rows[0, 0])


def test_the_order_of_the_rows_leaves_no_trace() -> None:
    """P8: whatever shards they came from, the same anchors to 1e-6 of their length."""
    rng = np.random.default_rng(1)
    rows = (50 + rng.normal(size=(999, 6))).astype(np.float16).astype(np.float32)
    label, order = rng.integers(4, size=999), rng.permutation(999)
    found, shuffled = (
        class_means(torch.from_numpy(rows[part]), torch.from_numpy(label[part]), 4) for part in (np.arange(999), order)
    )
    assert ((found - shuffled).norm(dim=1) <= 1e-6 * found.norm(dim=1)).all()
