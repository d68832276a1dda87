"""Average linkage against scikit-learn's, on points alone and on points that stand for many rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from alray.ops import linkage


def points(rows: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(6, dim))[rng.integers(6, size=rows)] * 2 + rng.normal(size=(rows, dim))


@pytest.mark.parametrize("clusters", [1, 2, 7, 60, 199, 200])
def test_as_many_clusters_as_scikit_learn_finds(clusters: int) -> None:
    for seed in range(3):
        x = points(200, seed=seed)
        found = linkage.average(x, np.ones(200, dtype=np.int64), clusters=clusters)
        theirs = AgglomerativeClustering(clusters, linkage="average").fit_predict(x)
        assert adjusted_rand_score(found, theirs) == 1.0 and found.max() == clusters - 1


@pytest.mark.parametrize("distance", [0.5, 2.0, 4.0, 50.0])
def test_the_clusters_that_scikit_learn_finds_at_a_distance(distance: float) -> None:
    x = points(150)
    found = linkage.average(x, np.ones(150, dtype=np.int64), clusters=1, distance=distance)
    fit = AgglomerativeClustering(None, linkage="average", distance_threshold=distance).fit(x)
    assert adjusted_rand_score(found, fit.labels_) == 1.0 and found.max() + 1 == fit.n_clusters_


@pytest.mark.parametrize("clusters", [2, 5, 20])
def test_a_weight_is_as_many_rows_in_one_place(clusters: int) -> None:
    x, weight = points(60), np.random.default_rng(1).integers(1, 9, size=60)
    found = linkage.average(x, weight, clusters=clusters)
    repeated = AgglomerativeClustering(clusters, linkage="average").fit_predict(np.repeat(x, weight, axis=0))
    assert adjusted_rand_score(np.repeat(found, weight), repeated) == 1.0


def test_a_hand_example_in_which_the_weight_decides() -> None:
    # 0 and 1 merge. On average 3.4 is 2.9 from them if they weigh alike, and 3.3 if the left one weighs nine times as
    # much; 6.5 is 3.1 from 3.4.
    x = np.array([[0.0], [1.0], [3.4], [6.5]])
    assert linkage.average(x, np.array([1, 1, 1, 1]), clusters=2).tolist() == [0, 0, 0, 1]
    assert linkage.average(x, np.array([9, 1, 1, 1]), clusters=2).tolist() == [0, 0, 1, 1]


def test_rows_that_are_alike_merge_first_and_one_point_is_a_cluster() -> None:
    x = np.repeat([[0.0, 1.0], [1.0, 0.0]], 5, axis=0)
    assert linkage.average(x, np.ones(10, dtype=np.int64), clusters=2).tolist() == [0] * 5 + [1] * 5
    assert linkage.average(x[:1], np.ones(1, dtype=np.int64), clusters=5).tolist() == [0]
    assert linkage.average(x, np.ones(10, dtype=np.int64), clusters=99).tolist() == list(range(10))


@pytest.mark.parametrize(("rows", "clusters"), [(10, 12), (10, 10), (10, 19), (300, 500), (499, 500)])
def test_no_more_points_than_clusters_are_wanted_leaves_each_alone(rows: int, clusters: int) -> None:
    found = linkage.average(points(rows), np.ones(rows, dtype=np.int64), clusters=clusters)
    assert found.tolist() == list(range(rows))


def test_clusters_are_numbered_by_their_first_points() -> None:
    x = np.array([[9.0], [0.0], [9.1], [4.0], [0.1]])
    assert linkage.average(x, np.ones(5, dtype=np.int64), clusters=3).tolist() == [0, 1, 0, 2, 1]
