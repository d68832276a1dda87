"""Uncertainty's best B of a million rows, and scikit-activeml's at the largest size that it survives.

    python tests/benchmarks/uncertainty_million.py WORK [--rows 1000000] [--budget 5000] [--peers PYTHON] [--memory 12]

Both look at the same fp16 rows and the same linear head, and take the best by entropy. Every run is a process of its
own that may hold `--memory` GiB of data (RLIMIT_DATA): one that asks for more ends with what it asked for. `--peers`
names an interpreter that can import scikit-activeml; its sizes are halved until one survives. alray is run at this size
too, so that seconds and memory stand side by side, and the picks are compared. Seconds are of the query alone, rows in
memory and head fitted, once each on one thread: run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import clustered_pool
import numpy as np
from clustered_pool import Shape

GIB = 2**30

PEER = """
import json, resource, sys, time
import numpy as np
folder, rows, budget, memory, out = sys.argv[1], *map(int, sys.argv[2:5]), sys.argv[5]
resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
import skactiveml
from sklearn.linear_model import LogisticRegression
from skactiveml.classifier import SklearnClassifier
from skactiveml.pool import UncertaintySampling
X = np.load(f"{folder}/rows.npy", mmap_mode="r")[:rows].astype(np.float32)
head = np.load(f"{folder}/head.npz")
labelled, label = head["labelled"], head["label"]
y = np.full(rows, np.nan)
y[labelled] = label
classifier = SklearnClassifier(LogisticRegression(max_iter=1), classes=range(len(head["bias"])))
classifier.fit(X[labelled], y[labelled])
classifier.estimator_.coef_, classifier.estimator_.intercept_ = head["weight"], head["bias"]
start = time.perf_counter()
picks = UncertaintySampling(method="entropy", random_state=0).query(X, y, classifier, fit_clf=False, batch_size=budget)
seconds = time.perf_counter() - start
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
with open(out, "w") as file:
    found = {"seconds": seconds, "peak_gib": peak, "picks": sorted(map(int, picks))}
    json.dump({**found, "version": skactiveml.__version__}, file)
"""


def main() -> None:
    args = parse()
    if args.cell:
        return measure(args, args.cell)
    if args.memory > (free := os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB):
        sys.exit(f"--memory {args.memory:g} is more than the machine's {free:.0f} GiB. Give less.")
    shape = shape_of(args)
    clustered_pool.write(args.work / "pool", args.rows, shape)
    prepare(args, shape)
    found: dict[str, Any] = {"memory_gib": args.memory, "budget": args.budget, "dim": args.dim}
    found["alray"] = {args.rows: run(ours(args, args.rows), args)}
    say("alray", args.rows, found["alray"][args.rows])
    if args.peers:
        compare(args, shape, found)
    (args.work / "uncertainty_million.json").write_text(json.dumps(found))


def compare(args: argparse.Namespace, shape: Shape, found: dict[str, Any]) -> None:
    """Halve the peer's size until it survives, and run alray at that size."""
    found["peer"], rows = {}, args.rows
    while rows >= max(2 * args.budget, shape.file_rows):
        came = found["peer"][rows] = run(theirs(args, rows), args)
        say("scikit-activeml", rows, came)
        if "seconds" in came:
            break
        rows = rows // 2 // shape.file_rows * shape.file_rows
    else:
        return
    mine = found["alray"][rows] = found["alray"].get(rows) or run(ours(args, rows), args)
    say("alray", rows, mine)
    shared = len(set(mine["picks"]) & set(came["picks"]))
    ratio, memory = came["seconds"] / mine["seconds"], came["peak_gib"] / mine["peak_gib"]
    print(
        f"at {rows:,} rows: {ratio:.1f}× the seconds, {memory:.1f}× the memory, {shared} of {args.budget} picks shared"
    )
    found["ratio"] = {"rows": rows, "seconds": ratio, "memory": memory, "shared": shared}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--budget", type=int, default=5000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--memory", type=float, default=12.0, help="GiB that a process may hold")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds of a process")
    parser.add_argument("--peers", help="an interpreter that has scikit-activeml")
    parser.add_argument("--cell", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def shape_of(args: argparse.Namespace) -> Shape:
    """Return the pool's shape: in files that make a sixteenth of it too, where it has one."""
    return Shape.of([args.rows, args.rows // 16], dim=args.dim, classes=args.classes)


def prepare(args: argparse.Namespace, shape: Shape) -> None:
    """Write the rows as one array, and the head with the numbers of the rows that it was fitted on."""
    if (args.work / "head.npz").exists() and (args.work / "rows.npy").exists():
        return
    from alray.features import from_pool
    from alray.labelling import read_labels
    from alray.pool import Pool
    from alray.training import HeadConfig, fit_head

    paths, labels = clustered_pool.write(args.work / "pool", args.rows, shape)
    out = np.lib.format.open_memmap(args.work / "rows.npy", mode="w+", dtype=np.float16, shape=(args.rows, args.dim))
    at = 0
    for shard in from_pool(Pool.open(paths)).shards:
        matrix = shard.read().features_ND
        out[at : at + len(matrix)] = matrix
        at += len(matrix)
    said = read_labels(labels).mapping()
    labelled = np.array(sorted(int(i.split("-")[1]) for i in said))
    classes = sorted(set(said.values()))
    texts = [said[f"row-{i:08d}"] for i in labelled]
    head = fit_head(HeadConfig(), out[labelled], texts, classes, 0)
    head.save(str(args.work / "head.safetensors"))
    number = np.array([classes.index(text) for text in texts])
    np.savez(args.work / "head.npz", **head.weights, labelled=labelled, label=number)


def ours(args: argparse.Namespace, rows: int) -> list[str]:
    """Return the command that runs alray."""
    words = ["--rows", args.rows, "--budget", args.budget, "--dim", args.dim, "--classes", args.classes]
    return [
        sys.executable,
        __file__,
        str(args.work),
        *map(str, words),
        "--memory",
        str(args.memory),
        "--cell",
        str(rows),
    ]


def theirs(args: argparse.Namespace, rows: int) -> list[str]:
    """Return the command that runs the peer."""
    memory = int(args.memory * GIB)
    return [args.peers, "-c", PEER, *map(str, (args.work, rows, args.budget, memory, args.work / "cell.json"))]


def run(command: list[str], args: argparse.Namespace) -> dict[str, Any]:
    """Run a process and return what it wrote, or why it wrote nothing."""
    out = args.work / "cell.json"
    out.unlink(missing_ok=True)
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    load = os.getloadavg()[0]
    try:
        done = subprocess.run(
            command, env={**os.environ, **threads}, capture_output=True, text=True, timeout=args.limit
        )
    except subprocess.TimeoutExpired:
        return {"why": f"stopped at {args.limit:g} s", "load": load}
    if done.returncode or not out.exists():
        lines = done.stderr.strip().splitlines()
        return {"why": lines[-1] if lines else f"ended with {done.returncode}", "load": load}
    return {**json.loads(out.read_text()), "load": load}


def say(name: str, rows: int, found: dict[str, Any]) -> None:
    """Print a run."""
    numbers = f"{found['seconds']:.2f} s, {found['peak_gib']:.2f} GiB at most" if "seconds" in found else found["why"]
    print(f"{name} at {rows:,} rows: {numbers} (load {found['load']:.1f})", flush=True)


def measure(args: argparse.Namespace, rows: int) -> None:
    """Select the most uncertain rows of the first `rows`, which are resident, and write what it took."""
    from alray.features import from_pool
    from alray.labelling import read_labels
    from alray.models.head import Head
    from alray.pool import Pool
    from alray.runtime import LocalRuntime
    from alray.selection.resident_pool import ResidentPool
    from alray.strategies import Given, find

    limit = int(args.memory * GIB)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    paths, labels = clustered_pool.write(args.work / "pool", rows, shape_of(args))
    given = Given(budget=args.budget, seed=0, round=1, head=Head.load(str(args.work / "head.safetensors")))
    with ResidentPool(from_pool(Pool.open(paths)), LocalRuntime()) as pool:
        pool.quarantine()  # touches every shard
        start = time.perf_counter()
        found = pool.select(find("entropy"), given, excluded=read_labels(labels).paid_ids())
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    picks = sorted(int(str(i).split("-")[1]) for i in found.picks.ids)
    (args.work / "cell.json").write_text(json.dumps({"seconds": seconds, "peak_gib": peak, "picks": picks}))


if __name__ == "__main__":
    main()
