"""Sums over a resident pool: however it is cut and wherever its shards are, they say what its rows say."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import builders
import numpy as np
import pytest
import torch
from direct_evidence import clusters, direct

from alray.errors import LabelsError
from alray.features import FeatureSet, from_pool
from alray.ops.logme import logme
from alray.ops.moments import Coordinates, Moments
from alray.pool import Pool
from alray.runtime import LocalRuntime, Runtime
from alray.selection import ResidentPool
from alray.selection.statistics import ROWS_PER_DIM

CLASSES = ["a", "b", "c", "d"]
SHAPES = {"n > D": (200, 16, 16), "n < D": (60, 90, 90), "rank-deficient": (100, 24, 9)}
ROWS = 700


def pool_of(folder: Path, shape: tuple[int, int, int]) -> tuple[FeatureSet, dict[str, str], float]:
    """Write a pool of 7 uneven shards; return it, labels of some rows, and the LogME of those by their own SVD."""
    labelled, dim, rank = shape
    rows_ND, target_N = clusters(ROWS, min(dim, rank), rank)
    half_ND = rows_ND.numpy().astype(np.float16)
    if dim > rank:  # exact in fp16: repeated coordinates and zeros
        half_ND = np.concatenate([half_ND, half_ND[:, : dim - rank - 5], np.zeros((ROWS, 5), np.float16)], axis=1)
        half_ND = np.pad(half_ND, ((0, 0), (0, dim - half_ND.shape[1])))
    names = builders.ids(ROWS)
    order, at = np.argsort(target_N.numpy(), kind="stable"), 0  # sorted by class, so that shards lack classes
    for number, rows in enumerate((250, 30, 1, 19, 100, 280, 20)):
        part = order[at : at + rows]
        columns = {"id": [names[i] for i in part], "features": builders.vectors(half_ND[part])}
        builders.parquet(folder / f"pool-{number}.parquet", columns)
        at += rows
    chosen = np.random.default_rng(0).permutation(ROWS)[:labelled]
    labels = {names[i]: CLASSES[target_N[i]] for i in chosen}
    expected = direct(torch.from_numpy(half_ND[chosen]), target_N[torch.from_numpy(chosen)])
    return from_pool(Pool.open(str(folder / "*.parquet"))), labels, float(np.mean([each[0] for each in expected]))


def shuffled(features: FeatureSet, seed: int) -> FeatureSet:
    order = np.random.default_rng(seed).permutation(len(features.shards))
    return dataclasses.replace(features, shards=tuple(features.shards[i] for i in order))


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_logme_of_seven_shuffled_shards_is_that_of_the_rows(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    features, labels, expected = pool_of(tmp_path, shape)
    assert len(features.shards) == 7
    for seed in range(4):
        with ResidentPool(shuffled(features, seed), LocalRuntime()) as pool:
            assert logme(pool.moments(labels, CLASSES)).score == pytest.approx(expected, abs=1e-8)


@pytest.mark.ray
def test_logme_of_shards_on_two_workers_is_that_of_the_rows(tmp_path: Path, ray_runtime: Runtime) -> None:
    for number, shape in enumerate(SHAPES.values()):
        features, labels, expected = pool_of(tmp_path / str(number), shape)
        with ResidentPool(shuffled(features, 1), ray_runtime) as there:
            found, general = there.moments(labels, CLASSES), there.coordinates()
        with ResidentPool(shuffled(features, 1), LocalRuntime()) as here:
            same, same_general = here.moments(labels, CLASSES), here.coordinates()
        assert logme(found).score == pytest.approx(expected, abs=1e-8)
        assert torch.equal(found.gram_DD, same.gram_DD) and torch.equal(found.sum_CD, same.sum_CD)
        assert general.rows == same_general.rows == ROWS
        assert torch.equal(general.sum_D, same_general.sum_D) and torch.equal(general.square_D, same_general.square_D)


def test_few_rows_travel_as_they_are_and_many_as_sums(tmp_path: Path) -> None:
    path, matrix_ND, names, labels = builders.features_pool(tmp_path, files=(90, 10, 60), dim=8)
    assert 10 < ROWS_PER_DIM * 8 < 60  # the second shard sends rows, the others sums
    with ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        found = pool.moments(dict(zip(names, labels, strict=True)), sorted(set(labels)))
    number = {name: n for n, name in enumerate(sorted(set(labels)))}
    whole = Moments.of(matrix_ND, np.array([number[label] for label in labels]), len(number))
    for name in ("gram_DD", "sum_CD", "square_CD"):
        torch.testing.assert_close(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-12)
    assert found.count_C.tolist() == whole.count_C.tolist()


def test_bad_rows_are_left_out_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    matrix_ND, labels = builders.features(300, 4)
    matrix_ND[[7, 130, 131], 2] = np.nan, np.inf, np.nan
    names = builders.ids(300)
    path = builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(matrix_ND)})
    known = {names[i]: labels[i] for i in range(20)}
    with ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        with caplog.at_level(logging.WARNING):
            moments = pool.moments(known, sorted(set(labels)))
        general = pool.coordinates()
    assert moments.rows == 19 and "1 labelled rows cannot be read and are no evidence" in caplog.text
    good = np.isfinite(matrix_ND).all(axis=1)
    exact = Coordinates.of(torch.from_numpy(matrix_ND[good]))
    assert general.rows == 297
    torch.testing.assert_close(general.sum_D, exact.sum_D, rtol=1e-13, atol=1e-11)
    torch.testing.assert_close(general.square_D, exact.square_D, rtol=1e-13, atol=1e-11)


def test_coordinates_are_summed_once(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path)
    with ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        assert pool.coordinates() is pool.coordinates()


def test_no_labels_are_no_rows(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path)
    with ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        nothing = pool.moments({}, CLASSES)
    assert (nothing.rows, nothing.classes, nothing.dim) == (0, 4, 8)
    assert logme(nothing).reason == "0 labelled rows; evidence needs at least 2"


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path, _, names, _ = builders.features_pool(tmp_path)
    with ResidentPool(from_pool(Pool.open(path)), LocalRuntime()) as pool:
        with pytest.raises(LabelsError, match="1 of 2 labelled ids are not in the pool: 'who'"):
            pool.moments({names[0]: "a", "who": "b"}, CLASSES)
        with pytest.raises(LabelsError, match=r"1 labels are not among the 4 classes: 'z'\. Name these classes too"):
            pool.moments({names[0]: "z"}, CLASSES)
