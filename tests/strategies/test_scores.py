"""The scores of the strategies that take the best: the right way round, and fine enough to tell rows apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray import seeds
from alray.strategies import Given, find
from alray.table import Table

PROBS = torch.tensor([(0.5, 0.5, 0), (0.4, 0.3, 0.3), (0.36, 0.33, 0.31), (0.9, 0.05, 0.05), (0.45, 0.45, 0.10)])
ORDERS = {"least_confidence": "CBEAD", "margin": "AECBD", "entropy": "CBEAD"}
VALUES = {
    "least_confidence": [0.5, 0.6, 0.64, 0.1, 0.55],
    "margin": [0, -0.1, -0.03, -0.85, 0],
    "entropy": [0.693147, 1.088900, 1.096720, 0.394398, 0.948915],
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_least_certain_row_comes_first(name: str) -> None:
    score = find(name).score(Table(list("ABCDE"), {"probs": PROBS}), {})
    np.testing.assert_allclose(score, VALUES[name], atol=1e-6)
    assert "".join("ABCDE"[i] for i in torch.argsort(score, descending=True, stable=True)) == ORDERS[name]


def test_random_tells_its_first_rows_apart() -> None:
    """The first 2,000 of two million rows would have a hundred ties near one in fp32; they have none near zero."""
    strategy, rows = find("random"), 2_000_000
    hashes = np.arange(rows, dtype=np.int64)
    prepared = strategy.prepare(Given(budget=1, seed=0, round=0))
    score = strategy.score(Table(np.empty(rows, dtype=object), {"hash": torch.from_numpy(hashes)}), prepared)
    best = torch.topk(score, 2_000).values
    assert score.dtype == torch.float32 and len(torch.unique(best)) == 2_000
    expected = seeds.uniform(seeds.key(0, "random", 0), hashes.view(np.uint64)).astype(np.float32)
    np.testing.assert_array_equal(-score.numpy(), expected)
