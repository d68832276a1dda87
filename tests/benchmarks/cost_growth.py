"""Seconds of one selection by each strategy as the pool grows, and the exponent that fits them.

    python tests/benchmarks/cost_growth.py WORK [--sizes 125000,250000,500000,1000000] [--strategies a,b] [--limit 600]

One process a cell, in-process runtime, one thread: run it on a machine that does nothing else. A cell that takes longer
than `--limit` seconds is stopped and named, and larger pools are not tried for that strategy. Run it again to go on:
cells that are in WORK/cells are not run again (`--again a,b` does). WORK/cost_growth.md has the table.

Seconds are of selection alone: the pool is resident, its head is fitted. The exponent is the slope of log seconds by
log rows over all finished sizes; beside it the slope between the two largest, which a constant part flattens less.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import clustered_pool
from clustered_pool import Shape

SIZES = "125000,250000,500000,1000000"
STEEP = 1.1
"""Exponents above this are marked: they want an explanation."""


@dataclass(frozen=True)
class Cell:
    """One selection: by which strategy, of how many rows."""

    strategy: str
    rows: int
    budget: int
    shape: Shape

    def path(self, work: Path) -> Path:
        """Return where its result is kept."""
        return work / "cells" / f"{self.strategy}-{self.rows}.json"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that a cell is ended too
    args = parse()
    if args.cell:
        return measure(args)
    sizes = sorted(int(size) for size in args.sizes.split(","))
    shape = Shape.of(sizes, dim=args.dim, classes=args.classes, labels=args.labels)
    clustered_pool.write(args.work / "pool", sizes[-1], shape)
    (args.work / "cells").mkdir(exist_ok=True)
    cells = [[Cell(name, rows, args.budget, shape) for rows in sizes] for name in names(args.strategies)]
    for row in cells:
        run_row(row, args)
    text = table(args.work, cells)
    (args.work / "cost_growth.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--strategies", help="names with commas between; default: every strategy that there is")
    parser.add_argument("--again", default="", help="strategies whose cells are run again")
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--labels", type=int, default=1000)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of a cell, loading included")
    parser.add_argument("--cell", help=argparse.SUPPRESS)
    return parser.parse_args()


def names(wanted: str | None) -> list[str]:
    """Return the strategies to run."""
    from alray.strategies import STRATEGIES

    return wanted.split(",") if wanted else sorted(STRATEGIES())


# Running cells


def run_row(row: Sequence[Cell], args: argparse.Namespace) -> None:
    """Run a strategy's cells from the smallest pool on, and stop at the first that is stopped or fails."""
    for cell in row:
        found = known(cell, args.work)
        if found is None or cell.strategy in args.again.split(","):
            found = run(cell, args)
        if found["state"] != "done":
            return


def known(cell: Cell, work: Path) -> dict[str, Any] | None:
    """Return what an earlier run found for this very cell."""
    if not cell.path(work).exists():
        return None
    found: dict[str, Any] = json.loads(cell.path(work).read_text())
    return found if found["cell"] == asdict(cell) else None


def run(cell: Cell, args: argparse.Namespace) -> dict[str, Any]:
    """Run a cell in a process of its own, and keep what came of it."""
    out = cell.path(args.work)
    out.unlink(missing_ok=True)
    command = [sys.executable, __file__, str(args.work), "--cell", json.dumps(asdict(cell))]
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    load = os.getloadavg()[0]
    print(f"{cell.strategy} {cell.rows:,} …", end=" ", flush=True)
    process = subprocess.Popen(command, env={**os.environ, **threads}, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        _, errors = process.communicate(timeout=args.limit)
        state = "done" if process.returncode == 0 and out.exists() else "failed"
    except subprocess.TimeoutExpired:
        process.kill()
        _, errors = process.communicate()
        state = "stopped"
    finally:
        process.kill()  # when this run itself is being ended
    found = json.loads(out.read_text()) if state == "done" else {"why": why(state, args.limit, errors)}
    found |= {"state": state, "cell": asdict(cell), "load": load}
    out.write_text(json.dumps(found))
    print(f"{found['seconds']:.2f} s" if state == "done" else found["why"], flush=True)
    return dict(found)


def why(state: str, limit: float, errors: bytes) -> str:
    """Return in a few words why there is no number."""
    lines = errors.decode(errors="replace").strip().splitlines()
    return f"stopped at {limit:g} s" if state == "stopped" else f"failed: {lines[-1] if lines else 'no message'}"


def measure(args: argparse.Namespace) -> None:
    """Select once from a resident pool, and write seconds and memory to the cell's file."""
    from alray.features import from_pool
    from alray.labelling import read_labels
    from alray.pool import Pool
    from alray.runtime import LocalRuntime
    from alray.selection.resident_pool import ResidentPool
    from alray.selection.select import prepare_given
    from alray.strategies import find

    raw = json.loads(args.cell)
    cell = Cell(**{**raw, "shape": Shape(**raw["shape"])})
    paths, labels_path = clustered_pool.write(args.work / "pool", cell.rows, cell.shape)
    strategy, labels = find(cell.strategy), read_labels(labels_path)
    clock = [time.perf_counter()]
    with ResidentPool(from_pool(Pool.open(paths)), LocalRuntime()) as pool:
        pool.quarantine()  # touches every shard
        clock.append(time.perf_counter())
        given = prepare_given(pool, strategy, labels, None, cell.budget, 0, 1)
        clock.append(time.perf_counter())
        found = pool.select(strategy, given, excluded=labels.paid_ids())
        clock.append(time.perf_counter())
    load, fit, seconds = (after - before for before, after in itertools.pairwise(clock))
    kept = {"seconds": seconds, "load_seconds": load, "fit_seconds": fit, "report": found.report}
    kept |= {"peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, "digest": found.picks.digest()}
    assert len(found.picks) == cell.budget
    cell.path(args.work).write_text(json.dumps(kept, default=str))


# The table


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Return the least-squares slope of log seconds by log rows; NaN for fewer than two points."""
    if len(points) < 2:
        return math.nan
    x, y = [math.log(rows) for rows, _ in points], [math.log(seconds) for _, seconds in points]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / sum((a - mean_x) ** 2 for a in x)


def table(work: Path, cells: Sequence[Sequence[Cell]]) -> str:
    """Return all cells as a Markdown table, and below it what was stopped or failed."""
    shape, sizes = cells[0][0].shape, [cell.rows for cell in cells[0]]
    head = ["strategy", *(f"{rows:,}" for rows in sizes), "exponent", "at the end", "GiB", "loading s", "most of it"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    notes = []
    for row in cells:
        found = [known(cell, work) for cell in row]
        done = [(c.rows, f) for c, f in zip(row, found, strict=True) if f is not None and f["state"] == "done"]
        points = [(rows, f["seconds"]) for rows, f in done]
        slope, last = exponent(points), exponent(points[-2:])
        numbers = [f"{f['seconds']:.2f}" if f and f["state"] == "done" else (f["state"] if f else "–") for f in found]
        more = [f"{slope:.2f}" + (" **↑**" if slope > STEEP else ""), f"{last:.2f}"]
        more += [f"{done[-1][1]['peak_gib']:.2f}", f"{done[-1][1]['load_seconds']:.1f}"] if done else ["–", "–"]
        lines.append("| " + " | ".join([row[0].strategy, *numbers, *more, stages(done[-1][1]) if done else "–"]) + " |")
        notes += [
            f"- {c.strategy} at {c.rows:,}: {f['why']}" for c, f in zip(row, found, strict=True) if f and "why" in f
        ]
    title = f"Seconds of a selection, D = {shape.dim}, B = {cells[0][0].budget}, C = {shape.classes}, "
    return "\n".join(
        [f"{title}{shape.labels} labels, files of {shape.file_rows:,} rows, one thread.", "", *lines, "", *notes]
    )


def stages(found: dict[str, Any]) -> str:
    """Return the stages that took a tenth of the time or more."""
    seconds = found["report"]["seconds"]
    long = [(name, s) for name, s in seconds.items() if s >= 0.1 * found["seconds"]]
    return ", ".join(f"{name} {s:.1f}" for name, s in sorted(long, key=lambda pair: -pair[1]))


if __name__ == "__main__":
    main()
