"""Accuracy from counts of shards: the same as over all rows at once."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pytest
import torch
from campaigns import CLASSES, DIM, TESTS

from alray.campaign import measure
from alray.campaign.material import open_test
from alray.campaign.settings import TestConfig
from alray.features import from_pool
from alray.models import Head
from alray.pool import Pool
from alray.runtime import LocalRuntime


def head(classes: list[str]) -> Head:
    return Head.linear(np.eye(DIM, dtype=np.float32)[: len(classes)], np.zeros(len(classes), np.float32), classes)


def test_counts_of_shards_make_the_whole(data: Path) -> None:
    test = open_test(TestConfig(path=f"{data}/test.parquet", labels=f"{data}/test.parquet"))
    classes = [f"class-{c}" for c in range(CLASSES)]
    pool = Pool.open(f"{data}/test.parquet", rows_per_shard=7)
    assert len(pool.shards) == 5
    found = measure.head_metrics(head(classes), from_pool(pool), test.labels, LocalRuntime())
    rows = [s.features()[0] for s in pool.shards]
    logp = torch.log_softmax(torch.from_numpy(np.concatenate(rows)[:, :CLASSES].astype(np.float64)), 1).numpy()
    target = np.array([classes.index(test.labels[i]) for s in pool.shards for i in s.ids()])
    right = logp.argmax(1) == target
    assert found["rows"] == TESTS
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["nll"] == pytest.approx(-logp[np.arange(TESTS), target].mean(), rel=1e-6)
    assert found["per_class"] == {n: pytest.approx(right[target == c].mean()) for c, n in enumerate(classes)}


def test_a_class_that_the_head_does_not_know_counts_as_wrong(data: Path) -> None:
    test = open_test(TestConfig(path=f"{data}/test.parquet", labels=f"{data}/test.parquet"))
    features = from_pool(test.pool)
    found = measure.head_metrics(head(["class-0"]), features, test.labels, LocalRuntime())
    share = list(test.labels.values()).count("class-0") / TESTS
    assert found["accuracy"] == pytest.approx(share)
    assert found["per_class"] == {"class-0": 1.0, "class-1": 0.0, "class-2": 0.0}


def test_an_unreadable_row_counts_as_wrong_and_not_in_nll(tmp_path: Path) -> None:
    matrix = np.tile(np.eye(DIM)[0], (4, 1)).astype(np.float16)
    matrix[1] = np.nan
    ids = builders.ids(4)
    path = builders.parquet(tmp_path / "t.parquet", {"id": ids, "features": builders.vectors(matrix)})
    found = measure.head_metrics(head(["a", "b"]), from_pool(Pool.open(path)), dict.fromkeys(ids, "a"), LocalRuntime())
    assert (found["rows"], found["accuracy"], found["per_class"]) == (4, 0.75, {"a": 0.75})
    assert found["nll"] == pytest.approx(np.log(1 + np.exp(-1)), abs=1e-6)
