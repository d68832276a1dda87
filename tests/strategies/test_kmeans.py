"""k-means as a strategy: the centroids are a fixed point of plain Lloyd steps, and picks the real rows nearest to them.

P10: of blobs far apart one row each, the one nearest to the mean of its blob.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray.selection import select
from alray.selection.diversity import by_kmeans


def units(matrix: np.ndarray) -> np.ndarray:
    """Return the rows at length 1, rounded to fp16, as fp64."""
    wide = matrix.astype(np.float64)
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)


def apart(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    return ((x[:, None] - centres) ** 2).sum(axis=2)


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_p10_of_every_blob_the_row_nearest_to_its_mean(regime: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    blob = rng.permutation(np.repeat(np.arange(6), [40, 10, 25, 31, 8, 12]))
    matrix = (np.eye(6)[blob] * 6 + rng.normal(scale=0.3, size=(len(blob), 6))).astype(np.float16)
    names, x = builders.ids(len(blob)), units(matrix)
    for number, part in enumerate(np.array_split(np.arange(len(blob)), 3)):
        columns = {"id": [names[i] for i in part], "features": builders.vectors(matrix[part])}
        builders.parquet(tmp_path / f"pool-{number}.parquet", columns)
    found = select("kmeans", str(tmp_path / "*.parquet"), budget=6, regime=regime)
    wanted = set()
    for b in range(6):
        inside = np.flatnonzero(blob == b)
        wanted.add(names[inside[apart(x[inside], x[inside].mean(axis=0, keepdims=True))[:, 0].argmin()]])
    assert set(found.picks.ids) == wanted and found.report["regime"] == regime
    assert set(found.picks.reasons) == {"strategy"} and found.report["candidates"] == len(blob)


def test_picks_are_the_rows_nearest_to_centroids_that_no_lloyd_step_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, matrix, names, truth = builders.features_pool(tmp_path, files=(120, 90, 70), dim=5)
    labels = {names[i]: truth[i] for i in range(0, 280, 20)}
    seen: list[torch.Tensor] = []
    centroids = by_kmeans.centroids
    monkeypatch.setattr(by_kmeans, "centroids", lambda *a: seen.append(centroids(*a)) or seen[-1])
    found = select("kmeans", path, budget=14, labels=labels, regime="central")
    free = [i for i, name in enumerate(names) if name not in labels]  # what is labelled is no candidate
    x, centres = units(matrix)[free], seen[0].double().numpy()
    squared = apart(x, centres)
    own = squared.argmin(axis=1)
    means = np.stack([x[own == k].mean(axis=0) for k in range(14)])
    np.testing.assert_allclose(centres, means, atol=1e-6)
    assert found.report["inertia"] == pytest.approx(squared.min(axis=1).sum(), rel=1e-9)
    nearest = [np.flatnonzero(own == k)[squared[own == k, k].argmin()] for k in range(14)]
    assert set(found.picks.ids) == {names[free[i]] for i in nearest}


@pytest.mark.parametrize(("budget", "large", "small"), [(3, 2, 1), (4, 2, 2), (5, 3, 2), (9, 6, 3)])
def test_what_empty_clusters_leave_is_given_in_turns_by_the_largest_first(
    budget: int, large: int, small: int, tmp_path: Path
) -> None:
    """Six rows in one place and three in another: of more than two clusters the others have no rows."""
    kind = np.array([0, 1, 1, 0, 1, 1, 0, 1, 1])
    names = builders.ids(9)
    columns = {"id": names, "features": builders.vectors(np.eye(2)[kind].astype(np.float16))}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    for seed in range(3):
        picked = select("kmeans", path, budget=budget, seed=seed).picks.ids
        of_large = [i for i in names if kind[names.index(i)] == 1][:large]  # of rows that are alike, by id
        of_small = [i for i in names if kind[names.index(i)] == 0][:small]
        assert set(picked) == {*of_large, *of_small}
