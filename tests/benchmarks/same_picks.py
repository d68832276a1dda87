"""The same picks, whatever runs them: prints the sha256 of the ordered ids for every way of running a selection.

    python tests/benchmarks/same_picks.py POOL LABELS [--budget 500]

Rewrites the features pool class-sorted into files of very uneven size, then selects with margin, and with ALFA-Mix in
both regimes: in this process; on Ray with 1, 2 and 4 workers; with the shards shuffled; and with a shard actor killed
by SIGKILL in the middle of the scan. Exits non-zero when a digest differs.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])

import faults

import alray.selection as selection
from alray.features import FeatureSet, from_pool
from alray.labelling import read_labels
from alray.pool import Pool
from alray.runtime import LocalRuntime, Runtime, RuntimeConfig, open_runtime
from alray.storage import expand
from alray.strategies import Strategy, find

CASES = [("margin", "auto"), ("alfa_mix", "central"), ("alfa_mix", "coreset")]
SHARES = (0.55, 0.02, 0.001, 0.3, 0.129)


def rewrite(pool: str, labels: dict[str, str], folder: Path) -> None:
    """Write the pool again, sorted by class, in files of these shares."""
    table = ds.dataset(expand(pool)).to_table()
    classes = np.array([labels[i] for i in table["id"].to_pylist()])
    table = table.take(pa.array(np.argsort(classes, kind="stable")))
    at = 0
    for number, share in enumerate(SHARES):
        rows = min(table.num_rows - at, max(1, round(share * table.num_rows)))
        pq.write_table(table.slice(at, rows), folder / f"pool-{number}.parquet", use_dictionary=["id"])
        at += rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool")
    parser.add_argument("labels", help="labels of every row; 300 of them are used")
    parser.add_argument("--budget", type=int, default=500)
    args = parser.parse_args()
    truth = read_labels(args.labels).mapping()
    known = {i: truth[i] for i in sorted(truth)[:300]}
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        rewrite(args.pool, truth, Path(folder))
        features = from_pool(Pool.open(folder, rows_per_shard=4096))
        shuffled = [features.shards[i] for i in np.random.default_rng(0).permutation(len(features.shards))]
        print(f"{features.rows} rows in {len(features.shards)} shards of {len(SHARES)} class-sorted files")
        with open_runtime(RuntimeConfig(workers=4)) as four:
            from alray.runtime.ray import RayRuntime

            for name, regime in CASES:
                marker = Path(folder, f"died-{name}-{regime}")
                dying = faults.DyingMargin if name == "margin" else faults.DyingAlfaMix
                ways: list[tuple[str, Runtime, FeatureSet, Strategy]] = [
                    ("local", LocalRuntime(), features, find(name)),
                    ("local, shards shuffled", LocalRuntime(), with_shards(features, shuffled), find(name)),
                    ("ray, 1 worker", RayRuntime(RuntimeConfig(workers=1)), features, find(name)),
                    ("ray, 2 workers", RayRuntime(RuntimeConfig(workers=2)), features, find(name)),
                    ("ray, 4 workers, shuffled", four, with_shards(features, shuffled), find(name)),
                    (
                        "ray, 2 workers, SIGKILL",
                        RayRuntime(RuntimeConfig(workers=2)),
                        features,
                        dying(marker=str(marker)),
                    ),
                ]
                digests = set()
                for way, runtime, rows, strategy in ways:
                    found = selection.select(
                        strategy, rows, budget=args.budget, labels=known, regime=regime, runtime=runtime
                    )
                    digests.add(found.picks.digest())
                    print(f"{name:9s} {regime:8s} {way:26s} {found.picks.digest()}", flush=True)
                assert marker.exists(), "no worker was killed"
                different += len(digests) - 1
    print("all the same" if not different else f"{different} DIFFER")
    sys.exit(different)


def with_shards(features: FeatureSet, shards: list[object]) -> FeatureSet:
    """Return the same features with the shards in another order."""
    return dataclasses.replace(features, shards=tuple(shards))


if __name__ == "__main__":
    main()
