"""Campaigns to test forecasts on: every round delivers its head, and no two seeds share a row of pool or test set.

    python tests/benchmarks/forecast_runs.py WORK --pool FEATURES --labels oracle.parquet --test-labels test.parquet
    python tests/benchmarks/forecast_runs.py WORK                            # digits, as pixels; splits overlap
    python tests/benchmarks/forecast_backtest.py WORK/runs/* --test-rows N   # N is printed

FEATURES is a folder of `pool-*.parquet` and `test.parquet` with `id` and `features`. Its rows are shuffled once and
dealt out to the seeds. Digits has too few rows for that: each seed draws a pool and a test set of its own from all of
them. Run it again to go on.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from regimes import Campaign, run_all

from alray import config, storage
from alray.campaign import Settings

DIGITS_TESTS = 359


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--pool", type=Path, help="folder of features; else digits")
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--test-labels", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--strategies", default="random,margin,alfa_mix")
    parser.add_argument("--budget", default="initial=100,per_round=50,total=600,control=0.2")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nice", type=int, default=0)
    args = parser.parse_args()
    work: Path = args.work.resolve()
    splits = list(of_digits(args.seeds) if args.pool is None else of_features(args))
    for seed, tables in enumerate(splits):
        for name, table in tables.items():
            storage.write_parquet(str(work / f"data/{seed}/{name}.parquet"), table)
    print(f"pool {len(splits[0]['pool'])} rows, test {len(splits[0]['test'])} rows")
    run_all(work, [campaign(work, s, name, args.budget) for s in range(args.seeds) for name in names(args)], args)


def names(args: argparse.Namespace) -> list[str]:
    return str(args.strategies).split(",")


def campaign(work: Path, seed: int, strategy: str, budget: str) -> Campaign:
    """Return a campaign of proxy rounds, each of which delivers its head."""
    name, data = f"{strategy}-{seed}", work / f"data/{seed}"
    told = work / "settings/none.yaml"
    storage.write_bytes(str(told), b"{}\n")  # all settings are words
    words = [
        f"run={work}/runs/{name}",
        f"seed={seed}",
        f"pool.path={data}/pool.parquet",
        f"test.path={data}/test.parquet",
        f"test.labels={data}/test.parquet",
        "labeller.name=oracle",
        f"labeller.path={data}/oracle.parquet",
        f"features.path={work}/features/{name}",
        f"strategy.name={strategy}",
        *(f"budget.{word}" for word in budget.split(",")),
        "regime=svpp",
        "training.recipe.name=linear_probe",
        "training.when=every",
        "runtime.name=local",
    ]
    return Campaign(name, config.load(str(told), words, Settings))


Tables = dict[str, pa.Table]


def of_digits(seeds: int) -> Iterator[Tables]:
    """Yield pixels of digits, divided anew for each seed."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    ids = [f"digit-{i:04d}" for i in range(len(digits.target))]
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(ids))
        yield tables(
            ids, digits.data / 16.0, [str(t) for t in digits.target], order[DIGITS_TESTS:], order[:DIGITS_TESTS]
        )


def of_features(args: argparse.Namespace) -> Iterator[Tables]:
    """Yield equal shares of a folder's rows."""
    pool = [pq.read_table(file) for file in sorted(args.pool.glob("pool*.parquet"))]
    test = pq.read_table(args.pool / "test.parquet")
    both = pa.concat_tables([*pool, test])
    labels = {
        row["id"]: row["label"]
        for path in (args.labels, args.test_labels)
        for row in pq.read_table(path, columns=["id", "label"]).to_pylist()
    }
    ids, pools = both["id"].to_pylist(), sum(map(len, pool))
    matrix = np.stack(both["features"].to_numpy())
    truth, rng = [labels[i] for i in ids], np.random.default_rng(0)
    pool_order, test_order = rng.permutation(pools), pools + rng.permutation(len(test))
    yield from (
        tables(ids, matrix, truth, ours, theirs)
        for ours, theirs in zip(
            np.array_split(pool_order, args.seeds), np.array_split(test_order, args.seeds), strict=True
        )
    )


def tables(ids: list[str], matrix_ND: np.ndarray, labels: list[str], pool: np.ndarray, test: np.ndarray) -> Tables:
    """Return the pool, its oracle, and the test set with its labels."""
    made = {}
    for name, rows in (("pool", np.sort(pool)), ("test", np.sort(test))):
        made[name] = pa.table(
            {
                "id": [ids[row] for row in rows],
                "features": pa.FixedSizeListArray.from_arrays(
                    pa.array(matrix_ND[rows].astype(np.float16).ravel()), matrix_ND.shape[1]
                ),
                "label": [labels[row] for row in rows],
            }
        )
    made["oracle"] = made["pool"].select(["id", "label"])
    made["pool"] = made["pool"].select(["id", "features"])
    return made


if __name__ == "__main__":
    main()
