"""ActiveFT over shards: each centroid takes its row in turn, as on one machine, however few rows a shard names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

import alray.selection as selection
from alray.ops import active_ft, kmeans
from alray.pool import Pool
from alray.selection.diversity import finetuned

DIM = 6


def choose(pool: Any, budget: int, **more: Any) -> selection.Selection:
    strategy = {"name": "active_ft", **more.pop("strategy", {})}
    return selection.select(strategy, pool, budget=budget, runtime="local", **more)


def brute(matrix: np.ndarray, names: list[str], centroids: np.ndarray, closed: set[str]) -> list[tuple[str, float]]:
    """Each centroid in order takes the most similar row that is left."""
    x = kmeans.unit_rows(torch.from_numpy(matrix.astype(np.float32))).float().numpy()
    taken: dict[str, float] = {}
    for c in centroids:
        free = [i for i, name in enumerate(names) if name not in taken and name not in closed]
        best = max(free, key=lambda i: (float(x[i].astype(np.float64) @ c.astype(np.float64)), -i))
        taken[names[best]] = float(x[best] @ c)
    return list(taken.items())


@pytest.mark.parametrize("first", [1, 4])
def test_agrees_with_one_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    path, matrix, names, truth = builders.features_pool(tmp_path, files=(70, 90, 40), dim=DIM)
    labels = {names[i]: truth[i] for i in range(0, 200, 20)}
    seen: list[np.ndarray] = []
    fit, asked = finetuned.fit, list[int]()
    similar = finetuned.similar

    def crowded(*a: Any) -> np.ndarray:
        seen.append(np.repeat(fit(*a)[:10], 5, axis=0))  # five centroids in each place: they want the same rows
        return seen[-1]

    monkeypatch.setattr(finetuned, "fit", crowded)
    monkeypatch.setattr(finetuned, "FIRST", first)
    monkeypatch.setattr(finetuned, "similar", lambda *a: asked.append(a[-1]) or similar(*a))
    found = choose(path, 50, labels=labels)
    slow = dict(brute(matrix, names, seen[0], set(labels)))
    assert set(found.picks.ids) == set(slow) and found.report["filled"] == 0
    for i, score in zip(found.picks.ids, found.picks.scores, strict=True):
        assert float(score) == pytest.approx(slow[i], abs=1e-6)
    assert sorted(set(asked)) == asked[::3] and len(asked) > 3  # the shards were asked again, for more rows


def test_the_centroids_are_fitted_to_the_sample_and_labelled_rows_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _, names, truth = builders.features_pool(tmp_path, files=(100, 60), dim=DIM)
    seen: list[tuple[Any, ...]] = []
    optimised = active_ft.optimised
    monkeypatch.setattr(active_ft, "optimised", lambda *a: seen.append(a) or optimised(*a))
    labels = {names[i]: truth[i] for i in range(7)}
    found = choose(path, 12, labels=labels, strategy={"most": 50, "temperature": 0.1, "iterations": 3})
    sample, start, fixed, recipe = seen[0]
    assert len(sample) == found.report["sample"] == 50 and torch.equal(start, sample[:12]) and len(fixed) == 7
    assert recipe == active_ft.Recipe(temperature=0.1, steps=3)
    choose(path, 80, strategy={"most": 50, "iterations": 1})
    assert len(seen[1][0]) == 80 and len(seen[1][2]) == 0  # a start for every centroid


def test_without_steps_the_picks_are_the_rows_it_starts_from(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(100, 60), dim=DIM)
    found = choose(path, 15, strategy={"iterations": 0})
    np.testing.assert_allclose(found.picks.scores, 1, atol=2e-3)


def test_picks_stand_apart_and_in_every_blob(tmp_path: Path) -> None:
    blob = np.repeat(np.arange(4), [200, 60, 30, 10])
    matrix = np.eye(DIM)[blob] * 5 + np.random.default_rng(0).normal(scale=0.4, size=(300, DIM))
    columns = {"id": builders.ids(300), "features": builders.vectors(matrix.astype(np.float16))}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    strategy = {"iterations": 300, "learning_rate": 0.02}
    picks = [choose(path, 8, seed=seed, strategy=strategy).picks.ids for seed in range(5)]
    counts = np.mean([np.bincount([blob[int(i[-5:])] for i in ids], minlength=4) for ids in picks], axis=0)
    start = [choose(path, 8, seed=seed, strategy={"iterations": 0}).picks.ids for seed in range(5)]
    random = np.mean([np.bincount([blob[int(i[-5:])] for i in ids], minlength=4) for ids in start], axis=0)
    assert counts[0] < random[0] and (counts > 0).all()


def test_the_cut_of_the_pool_leaves_no_trace(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(300,), dim=DIM)
    whole = choose(path, 25, strategy={"most": 100})
    for rows in (7, 100):
        again = choose(Pool.open(path, rows_per_shard=rows), 25, strategy={"most": 100})
        assert again.picks.digest() == whole.picks.digest()
        assert np.array_equal(again.picks.scores, whole.picks.scores)
