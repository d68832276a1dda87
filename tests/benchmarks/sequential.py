"""BADGE and CoreSet against the naive form and against other libraries: seconds, peak memory, and what was picked.

    python tests/benchmarks/sequential.py FOLDER [--rows 50000] [--dim 512] [--classes 100] [--budget 1000]
        [--peers PYTHON] [--heavy-budget 50] [--bytes 4000000000] [--seconds 1200] [--only coreset,badge]

Writes a seeded mixture (fp16) and a linear head into FOLDER. Every run is a process of its own, with one thread; its
memory is its peak above what it held with the data loaded. `--peers` names the Python of an environment with
scikit-activeml and small-text. Contenders that make N × C × D numbers, or that begin anew for every pick, run at a
budget of `--heavy-budget`, and on as many rows as `--bytes` holds; alray runs on the same rows and budget beside them.
The last columns are the radius (CoreSet) or the potential (BADGE) over alray's, and how many picks are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LABELLED = 200
COLUMNS = "{kind:8} {who:16} {rows:>8} {budget:>7} {seconds:>9} {memory:>9} {slower:>8} {quality:>8} {same:>6}"
Data = dict[str, np.ndarray]


def make(folder: Path, rows: int, dim: int, classes: int) -> Path:
    """Write the data of one size and return its file: the labelled rows last, as small-text wants them."""
    path = folder / f"data-{rows}-{dim}-{classes}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(0)
        centres = rng.normal(size=(classes, dim)).astype(np.float32)
        label = rng.integers(classes, size=rows)
        x = (centres[label] + 2 * rng.standard_normal((rows, dim), dtype=np.float32)).astype(np.float16)
        weight = (0.01 * centres + 0.005 * rng.normal(size=centres.shape)).astype(np.float32)
        np.savez(path, x=x, label=label, weight=weight, bias=np.zeros(classes, dtype=np.float32))
    return path


def ids(rows: int) -> list[str]:
    return [f"row-{i:08d}" for i in range(rows)]


def probabilities(data: Data, x_ND: np.ndarray) -> np.ndarray:
    """Return what the head predicts."""
    logits = x_ND @ data["weight"].T + data["bias"]
    out: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    return out / out.sum(axis=1, keepdims=True)


# contenders: each prepares, and returns the call that is timed


def alray_picks(strategy: str) -> Callable[[Data, int, Path], Callable[[], list[int]]]:
    def ready(data: Data, budget: int, path: Path) -> Callable[[], list[int]]:
        import pyarrow as pa
        import pyarrow.parquet as pq
        import torch

        from alray.models.head import Head
        from alray.selection import select

        torch.set_num_threads(1)
        names, pool = ids(len(data["x"])), path.with_suffix(".parquet")
        if not pool.exists():
            column = pa.FixedSizeListArray.from_arrays(pa.array(data["x"].ravel()), data["x"].shape[1])
            pq.write_table(pa.table({"id": names, "features": column}), pool, compression="none")
        classes = [f"c{n}" for n in range(len(data["bias"]))]
        head = Head.linear(data["weight"], data["bias"], classes)
        select("random", str(pool), budget=1)  # so that all is imported
        labels = {i: classes[c] for i, c in zip(names[-LABELLED:], data["label"][-LABELLED:], strict=True)}

        def run() -> list[int]:
            found = select(strategy, str(pool), budget=budget, labels=labels, head=head)
            return [int(i.removeprefix("row-")) for i in found.picks.ids]

        return run

    return ready


def labels_for_scikit(data: Data) -> np.ndarray:
    y = np.full(len(data["x"]), np.nan)
    y[-LABELLED:] = data["label"][-LABELLED:]
    return y


def scikit_coreset(data: Data, budget: int, path: Path) -> Callable[[], list[int]]:
    from skactiveml.pool import CoreSet

    x, y = data["x"].astype(np.float32), labels_for_scikit(data)
    return lambda: [int(i) for i in CoreSet(random_state=0).query(x, y, batch_size=budget)]


def scikit_badge(data: Data, budget: int, path: Path) -> Callable[[], list[int]]:
    from skactiveml.base import SkactivemlClassifier
    from skactiveml.pool import Badge

    class Fixed(SkactivemlClassifier):  # type: ignore[misc]
        """The same head."""

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
            self.classes_ = np.arange(len(data["bias"]))
            return self

        def predict_proba(self, X: Any) -> np.ndarray:
            return probabilities(data, X)

    x, y = data["x"].astype(np.float32), labels_for_scikit(data)
    head = Fixed(classes=np.arange(len(data["bias"]))).fit(x, y)
    return lambda: [int(i) for i in Badge(random_state=0).query(x, y, clf=head, fit_clf=False, batch_size=budget)]


def small_text_coreset(data: Data, budget: int, path: Path) -> Callable[[], list[int]]:
    from small_text.query_strategies.coresets import greedy_coreset

    x, last = data["x"].astype(np.float32), len(data["x"]) - LABELLED
    known, unknown = np.arange(last, len(x)), np.arange(last)
    return lambda: greedy_coreset(x, unknown, known, budget, distance_metric="euclidean", batch_size=4096).tolist()  # type: ignore[no-any-return]


def naive_badge(data: Data, budget: int, path: Path) -> Callable[[], list[int]]:
    """k-means++ over the gradients themselves, N × (C·D) fp32."""
    x = data["x"][:-LABELLED].astype(np.float32)

    def run() -> list[int]:
        a = probabilities(data, x)
        a[np.arange(len(a)), a.argmax(axis=1)] -= 1
        g = (a[:, :, None] * x[:, None, :]).reshape(len(x), -1)
        own, rng = np.einsum("ng,ng->n", g, g), np.random.default_rng(0)
        chosen = [int(own.argmax())]
        squared = np.full(len(g), np.inf)
        while len(chosen) < budget:
            squared = np.minimum(squared, np.maximum(own + own[chosen[-1]] - 2 * (g @ g[chosen[-1]]), 0))
            squared[chosen] = 0
            chosen.append(int(rng.choice(len(g), p=squared / squared.sum())))
        return chosen

    return run


CONTENDERS = {
    "coreset/alray": alray_picks("coreset"),
    "coreset/scikit-activeml": scikit_coreset,
    "coreset/small-text": small_text_coreset,
    "badge/alray": alray_picks("badge"),
    "badge/naive": naive_badge,
    "badge/scikit-activeml": scikit_badge,
}


def one(name: str, path: Path, budget: int) -> None:
    """Run one contender in this process and print what it took."""
    call = CONTENDERS[name](dict(np.load(path)), budget, path)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    start = time.perf_counter()
    picks = call()
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "bytes": memory("VmHWM") - before, "picks": picks}))


def memory(name: str) -> int:
    """Return one of the numbers of bytes that the system keeps of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(name)).split()[1])


# the comparison


def child(python: str, name: str, path: Path, budget: int, limit: float) -> dict[str, Any] | str:
    """Return what a contender reports, or why it does not."""
    command = [python, str(Path(__file__).resolve()), str(path.parent), "--one", name, "--data", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        done = subprocess.run(
            [*command, "--budget", str(budget)], env=environment, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return f"longer than {limit:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1][:60]
    out: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return out


def quality(kind: str, data: Data, picks: list[int]) -> float:
    """Return the covering radius of all rows, or the potential of their gradients."""
    import torch

    from alray.ops.distances import metric
    from alray.ops.gradients import residuals

    x_ND, centres = torch.from_numpy(data["x"].astype(np.float32)), picks
    measure = metric("euclidean" if kind == "coreset" else "gradient", len(data["bias"]))
    if kind == "coreset":
        centres = [*picks, *range(len(x_ND) - LABELLED, len(x_ND))]
    else:
        probs_NC = torch.from_numpy(probabilities(data, data["x"].astype(np.float32)).astype(np.float32))
        x_ND = torch.cat([residuals(probs_NC), x_ND], dim=1)[:-LABELLED]
    placed = measure.place(x_ND)
    nearest_N = torch.cat([measure.squared(part, placed[centres]).amin(dim=1) for part in placed.split(2048)])
    return float(nearest_N.max().sqrt() if kind == "coreset" else nearest_N.sum())


def rows_that_fit(args: argparse.Namespace, name: str) -> int:
    """Return on how many rows a contender runs."""
    numbers = {"badge/naive": 4, "badge/scikit-activeml": 8 * 2}.get(name)  # bytes held for each of N × C × D
    if numbers is None:
        return int(args.rows)
    return int(min(args.rows, args.bytes // (numbers * args.classes * args.dim) + LABELLED))


def compare(args: argparse.Namespace, name: str) -> None:
    """Run one contender, and alray on the same rows and budget; print both."""
    kind, who = name.split("/")
    heavy = who in ("naive", "small-text") or name == "badge/scikit-activeml"
    rows, budget = rows_that_fit(args, name), args.heavy_budget if heavy else args.budget
    path = make(args.folder, rows, args.dim, args.classes)
    ours = child(sys.executable, f"{kind}/alray", path, budget, args.seconds)
    assert isinstance(ours, dict), ours
    report(kind, "alray", rows, budget, ours, ours, path)
    if who != "alray":
        python = sys.executable if who == "naive" else args.peers
        report(kind, who, rows, budget, child(python, name, path, budget, args.seconds), ours, path)


def report(
    kind: str, who: str, rows: int, budget: int, found: dict[str, Any] | str, ours: dict[str, Any], path: Path
) -> None:
    """Print one line."""
    if isinstance(found, str):
        print(f"{kind:8} {who:16} {rows:8} {budget:7}   {found}", flush=True)
        return
    data = dict(np.load(path))
    ratio = quality(kind, data, found["picks"]) / quality(kind, data, ours["picks"])
    print(
        COLUMNS.format(
            kind=kind,
            who=who,
            rows=rows,
            budget=budget,
            seconds=f"{found['seconds']:.2f} s",
            memory=f"{found['bytes'] / 2**20:.0f} MB",
            slower=f"{found['seconds'] / ours['seconds']:.1f}×",
            quality=f"{ratio:.3f}",
            same=len(set(found["picks"]) & set(ours["picks"])),
        ),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--budget", type=int, default=1000)
    parser.add_argument("--heavy-budget", type=int, default=50)
    parser.add_argument("--bytes", type=int, default=4 * 10**9)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--peers", default=None)
    parser.add_argument("--only", default="coreset,badge")
    parser.add_argument("--one", choices=CONTENDERS)
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    if args.one:
        one(args.one, args.data, args.budget)
        return
    header = dict(kind="", who="", rows="rows", budget="budget", seconds="seconds", memory="memory")
    print(COLUMNS.format(**header, slower="slower", quality="quality", same="same"))
    for name in CONTENDERS:
        kind, who = name.split("/")
        if kind in args.only.split(",") and (args.peers or who in ("alray", "naive")):
            compare(args, name)


if __name__ == "__main__":
    main()
