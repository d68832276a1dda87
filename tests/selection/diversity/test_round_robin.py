"""Cluster-Margin over shards: turns by hand, clusters against scikit-learn, and found once for all rounds."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

import alray.selection as selection
from alray import seeds
from alray.features import from_pool
from alray.models.head import Head
from alray.ops import kmeans, linkage
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.selection.diversity import round_robin
from alray.strategies import Given, find
from alray.table import as_ids

DIM = 8


def head() -> Head:
    weight = np.random.default_rng(7).normal(size=(4, DIM)).astype(np.float32)
    return Head.linear(weight, np.zeros(4, dtype=np.float32), list("abcd"))


def choose(pool: Any, budget: int, **strategy: Any) -> selection.Selection:
    more = {key: strategy.pop(key) for key in ("labels", "seed", "round") if key in strategy}
    chosen = {"name": "cluster_margin", **strategy}
    return selection.select(chosen, pool, budget=budget, head=head(), runtime="local", **more)


def test_turns_by_hand() -> None:
    # Groups of 3, 1 and 2 rows: the smallest gives first, then the others in turns, each its highest numbers first.
    members = round_robin.Members(
        np.array([5, 5, 5, 2, 9, 9]),
        np.array([0.1, 0.9, 0.5, 0.3, 0.2, 0.8]),
        as_ids(list("abcdef")),
        np.zeros(6, dtype=np.float32),
    )
    assert [members.ids_n[i] for i in round_robin.in_turns(members, 6)] == ["d", "f", "b", "e", "c", "a"]
    assert [members.ids_n[i] for i in round_robin.in_turns(members, 4)] == ["d", "f", "b", "e"]


def test_a_pool_of_fewer_rows_than_clusters_has_a_cluster_a_row(tmp_path: Path) -> None:
    """320 rows and the 500 clusters of the default: nothing merges, so the rows of the least margins are drawn from."""
    path, *_ = builders.features_pool(tmp_path, files=(120, 200), dim=DIM)
    found = choose(path, 16)
    assert found.report["clusters"] == 320 and found.report["groups"] == found.report["shortlist"] == 160


def brute(matrix: np.ndarray, names: list[str], budget: int, multiple: int, clusters: int) -> set[str]:
    """Algorithm 2 on one machine, its clusters by scikit-learn."""
    x = kmeans.unit_rows(torch.from_numpy(matrix.astype(np.float32))).numpy().astype(np.float64)
    label = AgglomerativeClustering(clusters, linkage="average").fit_predict(x)
    logits = matrix.astype(np.float64) @ head().last[0].double().numpy().T
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    top = np.sort(probs / probs.sum(axis=1, keepdims=True), axis=1)
    least = np.argsort(top[:, -1] - top[:, -2], kind="stable")[: multiple * budget]
    number = seeds.uniform(seeds.key(0, "round-robin", 0), seeds.hash_ids(names))
    groups = [sorted((r for r in least if label[r] == k), key=lambda r: -number[r]) for k in np.unique(label[least])]
    picks: list[str] = []
    while True:
        for group in sorted(groups, key=len):
            if group and len(picks) < budget:
                picks.append(names[group[0]])
        groups = [group[1:] for group in sorted(groups, key=len)]
        if len(picks) == budget:
            return set(picks)


def test_agrees_with_one_machine_and_the_clusters_of_scikit_learn(tmp_path: Path) -> None:
    # Groups of one size go by their clusters' numbers, which are not scikit-learn's: the budget ends with a turn.
    path, matrix, names, _ = builders.features_pool(tmp_path, files=(120, 80, 100), dim=DIM, seed=2)
    for clusters in (2, 3, 4):
        found = choose(path, clusters, multiple=20, clusters=clusters)
        assert found.report["groups"] == clusters  # all have candidates, so that the budget is one turn
        assert set(found.picks.ids) == brute(matrix, names, clusters, 20, clusters)


def test_picks_are_among_the_smallest_margins_and_of_as_many_clusters_as_there_are(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(300,), dim=DIM)
    found = choose(path, 20, multiple=3, clusters=12)
    assert found.report["shortlist"] == 60 and found.report["clusters"] == 12
    best = selection.select("margin", path, budget=60, head=head(), runtime="local").picks
    assert set(found.picks.ids) <= set(best.ids) and len(found.picks) == 20


def of_pool(pool: selection.ResidentPool, *, round: int = 0, excluded: Any = (), **fields: Any) -> Any:
    given = Given(budget=10, seed=0, round=round, head=head())
    pool.select(find({"name": "cluster_margin", **fields}), given, excluded=excluded)
    return pool.kept


def test_clusters_are_found_once_and_used_in_every_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, names, _ = builders.features_pool(tmp_path, files=(150, 150), dim=DIM)
    calls: list[int] = []
    average = linkage.average
    monkeypatch.setattr(linkage, "average", lambda *a, **k: calls.append(1) or average(*a, **k))
    with selection.ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        first = of_pool(pool)
        assert list(of_pool(pool, round=1, excluded=names[:50])) == list(first) and len(calls) == 1
        of_pool(pool, micro=50)
        assert len(calls) == 2


def test_a_pool_that_is_loaded_again_in_other_pieces_finds_the_same_clusters(tmp_path: Path) -> None:
    path, _, names, _ = builders.features_pool(tmp_path, files=(150, 150), dim=DIM)
    found = []
    for number, rows in enumerate((65536, 64, 17)):
        features = from_pool(Pool.open(path, rows_per_shard=rows))
        shards = tuple(reversed(features.shards))
        with selection.ResidentPool(dataclasses.replace(features, shards=shards), LocalRuntime()) as pool:
            kept = of_pool(pool, round=number, excluded=names[: 40 * number], micro=40, clusters=9)
            found.append(next(iter(kept.values())))
    assert found[0].cluster_M.max() == 8 and len(found[0].cluster_M) == 40
    for one in found[1:]:
        assert np.array_equal(one.centroids_MD, found[0].centroids_MD)
        assert np.array_equal(one.cluster_M, found[0].cluster_M)


def test_micro_clusters_are_linked_as_the_rows_that_they_stand_for(tmp_path: Path) -> None:
    """scikit-learn's average linkage of every micro-centroid, repeated as often as it has rows."""
    path, matrix, *_ = builders.features_pool(tmp_path, files=(200, 200), dim=DIM)
    x = kmeans.unit_rows(torch.from_numpy(matrix.astype(np.float32))).double().numpy()
    alike = []
    for clusters in (8, 12, 16, 20):
        with selection.ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
            kept = next(iter(of_pool(pool, micro=60, clusters=clusters).values()))
        centroids, fit = kept.centroids_MD.astype(np.float64), AgglomerativeClustering(clusters, linkage="average")
        size = np.bincount(((x[:, None] - centroids) ** 2).sum(axis=2).argmin(axis=1), minlength=len(centroids))
        repeated = fit.fit_predict(np.repeat(centroids, size, axis=0))
        assert adjusted_rand_score(np.repeat(kept.cluster_M, size), repeated) == 1.0
        alike.append(adjusted_rand_score(kept.cluster_M, fit.fit_predict(centroids)))
    assert min(alike) < 1  # their sizes make a difference


def test_bad_rows_belong_to_no_cluster(tmp_path: Path) -> None:
    matrix, _ = builders.features(50, DIM)
    matrix[7] = np.nan
    columns = {"id": builders.ids(50), "features": builders.vectors(matrix)}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    with selection.ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        kept = next(iter(of_pool(pool).values()))
    assert len(kept.cluster_M) == 49 and np.isfinite(kept.centroids_MD).all()


def test_a_round_draws_other_rows(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(300,), dim=DIM)
    found = [set(choose(path, 10, clusters=5, round=number).picks.ids) for number in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
