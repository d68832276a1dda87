"""What the coreset regime costs against central k-means, in inertia, with every row of a features pool a candidate.

    python tests/benchmarks/coreset_quality.py FOLDER --budget 1000

Inertia is the sum of squared distances of the L2-normalised rows to the final centroids, before medoids; the ratio is
of medians over three seeds. scikit-learn's KMeans (k-means++, n_init 1, at most 100 iterations) on the same rows is the
independent reference, run once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import numpy as np
import torch

from alray.features import from_pool
from alray.pool import Pool
from alray.runtime import LocalRuntime, one_thread
from alray.selection import ResidentPool
from alray.selection.diversity import central, coreset
from alray.selection.diversity.clusters import medoids
from alray.selection.resident import Exclusion, Scan
from alray.selection.shortlisted import Limit
from alray.strategies import Given, find


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", help="files, glob or folder of a features pool")
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sklearn", action="store_true", help="also run scikit-learn's KMeans, with all threads")
    args = parser.parse_args()
    features = from_pool(Pool.open(args.pool))
    strategy = find("random")
    prepared = strategy.prepare(Given(budget=args.budget, seed=0, round=0))
    scan = Scan("all", features.version, strategy, prepared, None, Exclusion(frozenset()))
    every = Limit(-1.0)  # random scores are above 0: every row is a candidate
    found: dict[str, list[float]] = {"central": [], "coreset": []}
    print(f"{features.rows} rows x {features.dim}, {len(features.shards)} shards, B = {args.budget}, one thread")
    with ResidentPool(features, LocalRuntime()) as pool:
        for seed in range(args.seeds):
            for regime in found:
                start = time.perf_counter()
                keyed = {"clusters": args.budget, "seed": seed, "round": 0}
                if regime == "central":
                    centroids = central.centroids(pool.held, scan, every, **keyed)
                else:
                    centroids = coreset.centroids(pool.held, pool.runtime, pool.numbers, scan, every, **keyed)
                _, _, inertia = medoids(pool.held, scan, every, centroids, args.budget)
                found[regime].append(inertia)
                seconds = time.perf_counter() - start
                print(f"seed {seed}  {regime:8s} inertia {inertia:12.3f}  {seconds:7.1f} s", flush=True)
        if args.sklearn:
            with one_thread():
                _, units = central.join(pool.held.map(central.gather, scan, every))
    middle = {regime: statistics.median(values) for regime, values in found.items()}
    print(f"ratio of medians, coreset / central: {middle['coreset'] / middle['central']:.4f}")
    if args.sklearn:
        print(f"scikit-learn / central: {reference(units, args.budget) / middle['central']:.4f}")
    if out := os.environ.get("OUT"):
        with open(os.path.join(out, "coreset_quality.json"), "w") as file:
            json.dump({"inertia": found, "median": middle}, file)


def reference(units_ND: torch.Tensor, clusters: int) -> float:
    """Return the inertia of scikit-learn's k-means on the same rows."""
    from sklearn.cluster import KMeans

    fit = KMeans(clusters, init="k-means++", n_init=1, max_iter=100, random_state=0).fit(
        units_ND.numpy().astype(np.float32)
    )
    return float(fit.inertia_)


if __name__ == "__main__":
    main()
