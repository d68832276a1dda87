"""`alray select --strategy alfa_mix` on a million rows: seconds, memory a process, and the scan against its floor.

    python tests/benchmarks/million.py FOLDER [--rows 1000000] [--runtime local]

Writes a seeded mixture (fp16, 512 dimensions, 100 classes) into FOLDER unless it is there, runs the command as a user
would, and samples the anonymous memory of every process below it twice a second. Then, in one process and one thread,
interleaved: the scan (scores of resident shards) and its floor, which is one read and conversion of the same chunks,
X·Wᵀ and X·Aᵀ, and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alray import seeds
from alray.features import from_pool
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import one_thread
from alray.selection.resident import Exclusion, Resident, Scan, scores
from alray.strategies import Given, find
from alray.table import Table

DIM, CLASSES, LABELS_A_CLASS = 512, 100, 10
FILE_ROWS = 62_500


def write_pool(folder: Path, rows: int) -> None:
    """Write the mixture: class centres and rows around them, ids in file order, ten labels a class."""
    folder.mkdir(parents=True, exist_ok=True)
    centres = np.random.default_rng(0).normal(size=(CLASSES, DIM)).astype(np.float32)
    labels: list[tuple[str, str]] = []
    left = dict.fromkeys(range(CLASSES), LABELS_A_CLASS)
    for number, start in enumerate(range(0, rows, FILE_ROWS)):
        rng = np.random.default_rng([1, number])
        count = min(FILE_ROWS, rows - start)
        label = rng.integers(CLASSES, size=count)
        matrix = (centres[label] + 3 * rng.standard_normal((count, DIM), dtype=np.float32)).astype(np.float16)
        ids = [f"row-{i:08d}" for i in range(start, start + count)]
        for i in np.flatnonzero(np.array([left[int(c)] > 0 for c in label])):
            if left[int(label[i])]:
                left[int(label[i])] -= 1
                labels.append((ids[i], f"class-{label[i]:03d}"))
        column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), DIM)
        table = pa.table({"id": ids, "features": column})
        pq.write_table(table, folder / f"pool-{number:03d}.parquet", use_dictionary=["id"], compression="none")
    (folder / "labels.csv").write_text("id,label\n" + "\n".join(f"{i},{c}" for i, c in labels) + "\n")


def anonymous(root: int) -> dict[int, int]:
    """Return the anonymous bytes of each process at or below `root`."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue  # it ended while we looked
    below = {root}
    for _ in range(8):
        below |= {pid for pid, parent in parents.items() if parent in below}
    out = {}
    for pid in below:
        try:
            line = next(
                x for x in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if x.startswith("Anonymous")
            )
            out[pid] = int(line.split()[1]) * 1024
        except (OSError, StopIteration):
            continue
    return out


def run_select(folder: Path, runtime: str, budget: int) -> dict[str, object]:
    """Run the command, watching its processes."""
    command = [
        sys.executable,
        "-m",
        "alray",
        "select",
        "--pool",
        f"{folder}/pool-*.parquet",
        "--labels",
        f"{folder}/labels.csv",
        "--strategy",
        "alfa_mix",
        "--budget",
        str(budget),
        "--out",
        f"{folder}/picks.parquet",
        "--runtime",
        runtime,
    ]
    start, peak = time.perf_counter(), {}
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            for pid, size in anonymous(process.pid).items():
                peak[pid] = max(peak.get(pid, 0), size)
            time.sleep(0.5)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "exit": process.returncode,
        "peak_gib": max(peak.values()) / 2**30,
        "processes": len(peak),
    }


def scan_against_floor(folder: Path, shards: int, repeats: int) -> dict[str, float]:
    """Return median seconds of the scan and of its floor over the same resident shards, one thread, interleaved."""
    features = from_pool(Pool.open(f"{folder}/pool-*.parquet"))
    residents = [Resident(spec) for spec in features.shards[:shards]]
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(CLASSES, DIM)).astype(np.float32) / 20
    head = Head.linear(weight, np.zeros(CLASSES, np.float32), [str(c) for c in range(CLASSES)])
    labelled = Table([str(c) for c in range(CLASSES)], {})
    anchors = torch.from_numpy(rng.normal(size=(CLASSES, DIM)).astype(np.float32))
    labelled = labelled.with_columns(features=anchors, hidden=anchors)
    strategy = find("alfa_mix")
    given = Given(budget=1000, seed=0, round=0, labelled=labelled, label_M=torch.arange(CLASSES), head=head)
    prepared = strategy.prepare(given)
    weight_CD = torch.from_numpy(weight)
    times: dict[str, list[float]] = {"scan": [], "floor": []}
    with one_thread():
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            for shard in residents:
                scores(shard, Scan(f"{repeat}", features.version, strategy, prepared, head, Exclusion(frozenset())))
            middle = time.perf_counter()
            for shard in residents:
                for _, x_ND in shard.chunks():
                    x_ND @ weight_CD.T
                    x_ND @ anchors.T
            end = time.perf_counter()
            if repeat:  # the first warms up
                times["scan"].append(middle - start)
                times["floor"].append(end - middle)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--runtime", default="ray", choices=["ray", "local"])
    parser.add_argument("--shards", type=int, default=4, help="of the scan that is held against its floor")
    parser.add_argument("--skip-select", action="store_true")
    args = parser.parse_args()
    if not (args.folder / "labels.csv").exists():
        write_pool(args.folder, args.rows)
    found: dict[str, object] = {"load": os.getloadavg()[0], "seed_key": seeds.key(0, "million")}
    if not args.skip_select:
        found |= run_select(args.folder, args.runtime, args.budget)
        peak = f"largest process {found['peak_gib']:.2f} GiB anonymous"
        print(f"select: {found['seconds']:.1f} s, exit {found['exit']}, {peak}")
    floor = scan_against_floor(args.folder, args.shards, repeats=5)
    found |= {**floor, "ratio": floor["scan"] / floor["floor"]}
    ratio = f"ratio {found['ratio']:.2f} (load {found['load']:.1f})"
    print(f"scan {floor['scan']:.2f} s, floor {floor['floor']:.2f} s, {ratio}")
    if out := os.environ.get("OUT"):
        Path(out, "million.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
