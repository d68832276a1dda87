"""The coreset regime's own parts: what a block gathers, and of how many shards."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np

from alray import seeds
from alray.features import from_pool
from alray.pool import Pool
from alray.selection import coreset
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
