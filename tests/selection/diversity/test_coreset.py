"""The coreset regime's own parts: what a block gathers, and of how many shards."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pytest
import torch

import alray.selection as selection
from alray import seeds
from alray.features import from_pool
from alray.pool import Pool
from alray.selection.diversity import coreset
from alray.selection.resident import Exclusion, Resident, Scan
from alray.selection.shortlisted import Limit
from alray.strategies import find


def test_a_block_of_many_shards_gathers_little_more_than_its_sample(tmp_path: Path) -> None:
    path, _, names, _ = builders.features_pool(tmp_path, files=(500,) * 12, dim=4)
    features = from_pool(Pool.open(path))
    shards = [Resident(spec) for spec in features.shards]
    scan = Scan("a", features.version, find("random"), {"stream": 1}, None, Exclusion(frozenset()))
    limit, stream = Limit(-np.inf), seeds.key(0, "coreset", 1)
    plan = coreset.Plan.of({spec.number: 0 for spec in features.shards}, np.array([6000]), 1)
    assert plan.rows == (256,)
    parts = [coreset.draw(shard, scan, limit, stream, plan) for shard in shards]
    assert 256 <= sum(len(part.numbers) for part in parts) < 2 * 256
    numbers = seeds.uniform(stream, seeds.hash_ids(names))
    found = coreset.pool_draws(parts).highest(256)
    assert np.array_equal(found.numbers, np.sort(numbers)[::-1][:256])


def test_a_block_that_samples_all_its_rows_gathers_them_all() -> None:
    plan = coreset.Plan.of({0: 0, 1: 1}, np.array([40, 0]), 10)
    assert (plan.rows, plan.centres, plan.above) == ((40, 0), (40, 0), (0.0, 0.0))


def test_the_root_weighs_a_centre_by_the_rows_it_stands_for() -> None:
    # Three spots on a line for two centroids: 90 rows at 0, 1 at 3 and 90 at 4. Without weights 0 | 3, 4 and 0, 3 | 4
    # differ by little; with them the middle one moves the right-hand mean by 1/91.
    sums_KD = torch.tensor([[0.0], [0.0], [3.0], [360.0]], dtype=torch.float64)
    means, weights = coreset.to_means((sums_KD, torch.tensor([90, 0, 1, 90])))
    assert means.tolist() == [[0], [3], [4]] and weights.tolist() == [90, 1, 90]
    found = coreset.solve_root([(means[:1], weights[:1]), (means[1:], weights[1:])], 2, 0, 1)
    assert np.allclose(np.sort(found, axis=0), [[0], [363 / 91]])


def test_exact_passes_after_the_root_lower_the_inertia(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _, names, classes = builders.features_pool(tmp_path, files=(700,) * 6, dim=12)
    labels = dict(zip(names[:60], classes[:60], strict=True))

    def inertia() -> float:
        found = selection.select(
            {"name": "alfa_mix", "cap_step": 1.0}, path, budget=30, labels=labels, regime="coreset"
        )
        assert found.report["regime"] == "coreset" and found.report["candidates"] > 1000
        return float(found.report["inertia"])

    refined = inertia()
    monkeypatch.setattr(coreset, "REFINES", 0)
    assert refined < 0.99 * inertia()
