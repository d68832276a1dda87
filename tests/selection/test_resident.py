"""What a resident shard remembers between the passes of a scan, and forgets after it."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import builders
import numpy as np

from alray.features import from_pool
from alray.pool import Pool
from alray.selection.resident import Resident


def test_a_new_scan_lets_go_of_all_that_the_last_one_held(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(20,))
    shard = Resident(from_pool(Pool.open(path)).shards[0])
    made = shard.remember("scan 1", ("units", -0.2), lambda: np.zeros(8))
    assert shard.remember("scan 1", ("units", -0.2), lambda: np.ones(8)) is made
    assert shard.remember("scan 1", ("units", -0.4), lambda: np.ones(8)) is not made
    held = weakref.ref(made)
    del made
    assert shard.remember("scan 2", ("units", -0.2), lambda: np.ones(8)).sum() == 8
    gc.collect()
    assert held() is None
