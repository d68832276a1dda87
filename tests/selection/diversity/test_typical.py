"""TypiClust over shards: against one that holds all rows, by hand, and for any cut of the pool."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

import alray.selection as selection
from alray.ops import kmeans
from alray.pool import Pool
from alray.selection.diversity import by_kmeans, typical

DIM = 8


def choose(pool: Any, budget: int, **more: Any) -> selection.Selection:
    strategy = {"name": "typiclust", **more.pop("strategy", {})}
    return selection.select(strategy, pool, budget=budget, runtime="local", **more)


def blobs(folder: Path, sizes: tuple[int, ...]) -> tuple[str, list[str], np.ndarray]:
    """Write a pool of well separated blobs, one after the other; return (glob, ids, blob of each row)."""
    rng = np.random.default_rng(0)
    centres = np.eye(DIM)[: len(sizes)] * 10
    blob = np.repeat(np.arange(len(sizes)), sizes)
    matrix = (centres[blob] + rng.normal(scale=0.3, size=(len(blob), DIM))).astype(np.float16)
    names = builders.ids(len(blob))
    builders.parquet(folder / "pool.parquet", {"id": names, "features": builders.vectors(matrix)}, 16)
    return str(folder / "*.parquet"), names, blob


def test_one_pick_a_blob_the_largest_first_and_none_of_the_small_one(tmp_path: Path) -> None:
    path, names, blob = blobs(tmp_path, (30, 50, 5, 40))
    picks = choose(path, 4).picks
    blob_of = dict(zip(names, blob.tolist(), strict=True))
    assert [blob_of[i] for i in picks.ids] == [1, 3, 0, 1]  # the blob of five has no turn
    assert picks.scores.tolist() == [4, 3, 2, 1]
    everything = choose(path, 123, strategy={"clusters": 4}).picks.ids
    assert [blob_of[i] for i in everything[-4:]] == [1, 2, 2, 2]  # until the others have no rows left


def test_clusters_with_fewer_labels_come_first(tmp_path: Path) -> None:
    path, names, blob = blobs(tmp_path, (30, 50, 40))
    blob_of = dict(zip(names, blob.tolist(), strict=True))
    labels = {names[30]: "b", names[31]: "b"}
    found = choose(path, 1, labels=labels, strategy={"clusters": 3})
    assert [blob_of[i] for i in found.picks.ids] == [2] and found.report["clusters"] == 3
    labels |= {names[80]: "c"}
    found = choose(path, 3, labels=labels, strategy={"clusters": 3})
    assert [blob_of[i] for i in found.picks.ids] == [0, 2, 1]


def test_the_order_of_clusters_by_hand() -> None:
    # Sizes with labels 9, 8, 8, 6, 3; the second has labels, the last is small.
    size, labelled = np.array([9, 6, 8, 6, 3]), np.array([0, 2, 0, 0, 0])
    assert typical.share_out(size, labelled, 5, 6).tolist() == [0, 2, 3, 1, 0, 2]
    assert typical.share_out(size, labelled, 5, 99).tolist()[-4:] == [0, 4, 4, 4]
    assert typical.share_out(size, labelled, 9, 4).tolist() == [0, 2, 3, 4]  # all are small
    # Five rows and a label are no small cluster, three without one are.
    assert typical.share_out(np.array([5, 3]), np.array([1, 0]), 5, 3).tolist() == [0, 0, 0]


def brute(units: np.ndarray, ids: list[str], label: np.ndarray, labelled: np.ndarray, budget: int) -> list[str]:
    """The official order of events on one machine: count, sort, cycle, take the most typical, forget it."""
    members = {k: sorted(np.flatnonzero(label == k), key=lambda i: ids[i]) for k in range(len(labelled))}
    size = {k: len(rows) + labelled[k] for k, rows in members.items()}
    order = sorted(members, key=lambda k: (labelled[k], -size[k], k))
    picks: list[str] = []
    while len(picks) < budget:
        large = [k for k in order if size[k] > 5 and members[k]]
        for k in large or order:
            rows = members[k]
            if not rows or len(picks) == budget:
                continue
            near, best = max(1, min(20, len(rows) // 2)), (-1.0, -1)
            for i in rows:
                gaps = sorted(np.sqrt(((units[i] - units[j]) ** 2).sum()) for j in rows if j != i)[:near]
                value = 1 / (np.mean(gaps) + 1e-5) if gaps else np.inf
                best = max(best, (value, -rows.index(i)))
            taken = rows[-best[1]]
            picks.append(ids[taken])
            rows.remove(taken)
    return picks


@pytest.mark.parametrize(("budget", "clusters"), [(12, 500), (60, 9), (150, 500)])
def test_agrees_with_one_machine_that_holds_all_rows(
    tmp_path: Path, budget: int, clusters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, matrix, names, truth = builders.features_pool(tmp_path, files=(90, 110, 100), dim=DIM, seed=4)
    labels = {names[i]: truth[i] for i in range(0, 300, 40)}
    seen: list[torch.Tensor] = []
    centroids = by_kmeans.centroids
    monkeypatch.setattr(by_kmeans, "centroids", lambda *a: seen.append(centroids(*a)) or seen[-1])
    found = choose(path, budget, labels=labels, strategy={"clusters": clusters})
    units = kmeans.unit_rows(torch.from_numpy(matrix.astype(np.float32))).double().numpy()
    known = np.array([name in labels for name in names])
    near = ((units[:, None] - seen[0].double().numpy()) ** 2).sum(axis=2).argmin(axis=1)
    labelled = np.bincount(near[known], minlength=len(seen[0]))
    slow = brute(units, names, np.where(known, -1, near), labelled, budget)
    assert found.picks.ids.tolist() == slow and found.report["clusters_sampled"] == 0


def test_more_picks_than_a_sample_of_a_cluster_holds(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(120, 80), dim=DIM)
    found = choose(path, 150, strategy={"clusters": 2, "most": 10})
    assert len(set(found.picks.ids)) == 150 and found.report["clusters_sampled"] == 2
    assert found.report["filled"] == 0


def test_large_clusters_are_represented_by_the_same_rows_for_any_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(300,), dim=DIM)
    strategy = {"clusters": 4, "most": 20}
    whole = choose(path, 20, strategy=strategy)
    assert whole.report["clusters_sampled"] == 4
    monkeypatch.setattr(typical, "BATCH_BYTES", 20 * DIM * 2)  # a batch a cluster
    for rows in (7, 100):
        again = choose(Pool.open(path, rows_per_shard=rows), 20, strategy=strategy, regime="central")
        assert again.picks.digest() == whole.picks.digest()


def test_no_batch_is_larger_than_a_worker_can_gather(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typical, "BATCH_BYTES", 100 * 2 * 4)
    found = typical.batches(np.array([60, 0, 40, 1, 500, 99, 2]), 4)
    assert [batch.tolist() for batch in found] == [[0, 2], [3], [4], [5], [6]]


def test_the_coreset_regime_serves_as_well(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(100,) * 6, dim=DIM)
    found = choose(path, 30, regime="coreset")
    assert found.report["regime"] == "coreset" and len(set(found.picks.ids)) == 30
