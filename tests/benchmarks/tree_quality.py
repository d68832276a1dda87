"""What the tree costs: how good picks are when a pool is cut into 1, 10 and 100 shards, relative to one machine.

    python tests/benchmarks/tree_quality.py WORK [FOLDER --labels FILE] [--budget 500] [--seeds 3] [--sorted]

Covering radius of CoreSet and CDAL (the largest distance of a row to its nearest centre), D² potential of BADGE (the
sum of squared distances of all rows to their nearest pick), inertia of k-means: all measured here on the whole pool, in
plain NumPy; only inertia is the pipeline's own. One machine is one shard, exact or central. The exact sequences pick
the same rows for any shards, which the table shows; what costs is `rounds: two_round`, and the coreset regime of
k-means, which TypiClust's and ALFA-Mix's clusters come from as well. FOLDER has features as Parquet (`pool-*.parquet`),
and `--labels` the labels of its rows, of which each seed knows `--labelled`; without it, scikit-learn's digits.
`--sorted` cuts shards of one class each, the worst that files can do. Cells that WORK/tree.jsonl has are not run again;
the table is WORK/tree.csv and the plot WORK/tree.svg.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from alray import selection
from alray.labelling import read_labels
from alray.models.head import Head
from alray.pool import Pool
from alray.training.probe import HeadConfig, fit_head

SHARDS = (1, 10, 100)
METHODS = {
    "coreset": ("radius", {"exact": {"rounds": "exact"}, "two_round": {"rounds": "two_round"}}),
    "cdal": ("radius", {"exact": {"rounds": "exact"}, "two_round": {"rounds": "two_round"}}),
    "badge": ("potential", {"exact": {"rounds": "exact"}, "two_round": {"rounds": "two_round"}}),
    "kmeans": ("inertia", {"central": {}, "coreset": {}}),
}
"""Of each strategy: what is measured, and the ways it goes over shards, the one of one machine first."""

COLOURS = ("#0b6e99", "#b4442c", "#5b8c2a", "#7a4fa3")
BLOCK = 1024


@dataclass(frozen=True)
class Cell:
    """One selection."""

    strategy: str
    way: str
    shards: int
    seed: int

    @property
    def central(self) -> Cell:
        """The same on one machine."""
        return Cell(self.strategy, next(iter(METHODS[self.strategy][1])), 1, self.seed)


@dataclass(frozen=True)
class World:
    """A pool's rows in the order of its file, what is labelled, and a head for those labels."""

    path: str
    ids: list[str]
    features_ND: np.ndarray
    labels: dict[str, str]
    head: Head

    def probs_NC(self) -> np.ndarray:
        """Return the head's probabilities, fp64."""
        weight_CD, bias_C = (t.double().numpy() for t in self.head.last)
        logits_NC = self.features_ND.astype(np.float64) @ weight_CD.T + bias_C
        p_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
        return np.asarray(p_NC / p_NC.sum(axis=1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("pool", nargs="?", type=Path, help="folder of a features pool; digits by default")
    parser.add_argument("--labels", help="labels of the pool's rows")
    parser.add_argument("--labelled", type=int, default=500)
    parser.add_argument("--budget", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sorted", action="store_true", help="rows sorted by class before they are cut")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    ids, features_ND, classes = read_folder(args.pool, args.labels) if args.pool else digits()
    if args.sorted:
        order = sorted(range(len(ids)), key=lambda n: (classes[ids[n]], n))
        ids, features_ND = [ids[n] for n in order], features_ND[order]
    path = written(args.work, ids, features_ND)
    worlds = [world(path, ids, features_ND, classes, args.labelled, seed) for seed in range(args.seeds)]
    log = args.work / "tree.jsonl"
    setting = {"pool": str(args.pool), "budget": args.budget, "labelled": args.labelled, "sorted": args.sorted}
    done = read_cells(log, setting)
    for cell in cells(args.seeds):
        if cell not in done:
            done[cell] = run(worlds[cell.seed], cell, args.budget)
            with log.open("a") as file:
                file.write(json.dumps({**setting, **vars(cell), **done[cell]}) + "\n")
            print(
                f"{cell.strategy:8s} {cell.way:9s} {cell.shards:4d} shards, seed {cell.seed}: {done[cell]}", flush=True
            )
    rows = table(done)
    write_csv(args.work / "tree.csv", rows)
    (args.work / "tree.svg").write_text(svg(rows))
    print((args.work / "tree.csv").read_text())


def cells(seeds: int) -> Iterator[Cell]:
    """Yield every cell; the ways that have no business on one machine are there too, as a measure of themselves."""
    for seed in range(seeds):
        for strategy, (_, ways) in METHODS.items():
            for way in ways:
                yield from (Cell(strategy, way, shards, seed) for shards in SHARDS if way != "central" or shards == 1)


# pools


def read_folder(folder: Path, labels: str | None) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Return ids, fp16 features and labels of `pool-*.parquet`."""
    if labels is None:
        raise SystemExit("CDAL and BADGE need a head: give --labels.")
    parts = [pq.read_table(path, columns=["id", "features"]) for path in sorted(folder.glob("pool-*.parquet"))]
    whole = pa.concat_tables(parts).combine_chunks()
    flat = whole["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    known = read_labels(labels).mapping()
    ids = whole["id"].to_pylist()
    return ids, flat.reshape(len(ids), -1).astype(np.float16), {i: known[i] for i in ids}


def digits() -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Return scikit-learn's digits, their pixels as features."""
    from sklearn.datasets import load_digits

    found = load_digits()
    ids = [f"digit-{n:04d}" for n in range(len(found.target))]
    return ids, found.data.astype(np.float16), dict(zip(ids, found.target.astype(str).tolist(), strict=True))


def written(work: Path, ids: list[str], features_ND: np.ndarray) -> str:
    """Write the pool as one file, which can be cut anywhere, and return its path."""
    column = pa.FixedSizeListArray.from_arrays(pa.array(features_ND.ravel()), features_ND.shape[1])
    path = str(work / "pool.parquet")
    pq.write_table(pa.table({"id": ids, "features": column}), path, row_group_size=4096)
    return path


def world(
    path: str, ids: list[str], features_ND: np.ndarray, classes: dict[str, str], labelled: int, seed: int
) -> World:
    """Draw `labelled` rows at random, at most a fifth of the pool, and fit a head to them."""
    drawn = np.random.default_rng(seed).choice(sorted(ids), min(labelled, len(ids) // 5), replace=False)
    known = sorted(drawn.tolist())
    place = {i: n for n, i in enumerate(ids)}
    rows = features_ND[[place[i] for i in known]].astype(np.float32)
    names = tuple(sorted(set(classes.values())))
    head = fit_head(HeadConfig(), rows, [classes[i] for i in known], names, 0)
    return World(path, ids, features_ND, {i: classes[i] for i in known}, head)


# one cell


def run(world: World, cell: Cell, budget: int) -> dict[str, float]:
    """Return what is measured of the picks, and seconds."""
    measure, ways = METHODS[cell.strategy]
    rows = -(-len(world.ids) // cell.shards)
    pool = Pool.open(world.path, rows_per_shard=rows)
    more: dict[str, Any] = {"regime": cell.way} if cell.strategy == "kmeans" else {}
    strategy = {"name": cell.strategy, **ways[cell.way]}
    head = None if cell.strategy in ("coreset", "kmeans") else world.head
    start = time.perf_counter()
    found = selection.select(
        strategy, pool, budget=budget, labels=world.labels, head=head, seed=cell.seed, runtime="local", **more
    )
    seconds = time.perf_counter() - start
    if measure == "inertia":
        return {"value": float(found.report["inertia"]), "seconds": round(seconds, 2)}
    picked = set(found.picks.ids.tolist())
    centres = picked if cell.strategy == "badge" else picked | set(world.labels)
    squared_N = least_squared(world, cell.strategy, np.array([i in centres for i in world.ids]))
    squared_N = squared_N[[i not in world.labels for i in world.ids]]
    radius = float(squared_N.max() if cell.strategy == "cdal" else np.sqrt(squared_N.max()))
    value = float(squared_N.sum()) if measure == "potential" else radius
    return {"value": value, "seconds": round(seconds, 2)}


def least_squared(world: World, strategy: str, centre_N: np.ndarray) -> np.ndarray:
    """Return each row's squared distance (CDAL: divergence) to its nearest centre, fp64 [N]."""
    left, right = factors(world, strategy)
    own_N = np.prod([(a * b).sum(axis=1) for a, b in zip(left, right, strict=True)], axis=0)
    out = []
    for at in range(0, len(own_N), BLOCK):
        both = [a[at : at + BLOCK] @ b[centre_N].T for a, b in zip(left, right, strict=True)]
        if strategy == "cdal":
            both = [both[0] / 2 + (right[0][at : at + BLOCK] @ left[0][centre_N].T) / 2]
        out.append((own_N[at : at + BLOCK, None] + own_N[centre_N] - 2 * np.prod(both, axis=0)).min(axis=1))
    return np.maximum(np.concatenate(out), 0)


def factors(world: World, strategy: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return matrices whose row-wise products make k of k(x, x) + k(y, y) − 2 k(x, y), the squared distance."""
    x_ND = world.features_ND.astype(np.float64)
    if strategy == "coreset":
        return [x_ND], [x_ND]
    p_NC = world.probs_NC()
    if strategy == "cdal":
        return [p_NC / 2], [np.log(np.maximum(p_NC, 1e-12))]
    g_NC = p_NC.copy()
    g_NC[np.arange(len(g_NC)), p_NC.argmax(axis=1)] -= 1
    return [g_NC, x_ND], [g_NC, x_ND]


# answers


def read_cells(log: Path, setting: dict[str, Any]) -> dict[Cell, dict[str, float]]:
    """Return the cells that were run with this setting."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    alike = [line for line in lines if all(line[key] == value for key, value in setting.items())]
    return {
        Cell(line["strategy"], line["way"], line["shards"], line["seed"]): {
            "value": line["value"],
            "seconds": line["seconds"],
        }
        for line in alike
    }


def table(done: dict[Cell, dict[str, float]]) -> list[dict[str, Any]]:
    """Return per strategy, way and number of shards the median, least and greatest ratio to one machine."""
    ratios: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    seconds: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for cell, found in done.items():
        key = (cell.strategy, cell.way, cell.shards)
        ratios[key].append(found["value"] / done[cell.central]["value"])
        seconds[key].append(found["seconds"])
    return [
        {
            "strategy": key[0],
            "measure": METHODS[key[0]][0],
            "way": key[1],
            "shards": key[2],
            "ratio": round(median(values), 4),
            "least": round(min(values), 4),
            "greatest": round(max(values), 4),
            "seconds": round(median(seconds[key]), 1),
        }
        for key, values in ratios.items()
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the table."""
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def svg(rows: list[dict[str, Any]]) -> str:
    """Return a plot of the ratios by the number of shards: bars from least to greatest, a line through the medians."""
    left, top, wide, high = 60, 20, 420, 260
    low = min(0.98, *(row["least"] for row in rows))
    span = max(1.02, *(row["greatest"] for row in rows)) - low

    def y(value: float) -> float:
        return round(top + high * (1 - (value - low) / span), 1)

    parts = [f'<line x1="{left}" x2="{left + wide}" y1="{y(1)}" y2="{y(1)}" stroke="#999" stroke-dasharray="4 3"/>']
    for step in range(5):
        at = low + span * step / 4
        parts.append(f'<text x="{left - 6}" y="{y(at) + 4}" text-anchor="end">{at:.2f}</text>')
    for n, shards in enumerate(SHARDS):
        x = left + wide * (n + 0.5) / len(SHARDS)
        parts.append(f'<text x="{x}" y="{top + high + 18}" text-anchor="middle">{shards} shards</text>')
    series = dict.fromkeys((row["strategy"], row["way"], row["measure"]) for row in rows if row["way"] != "central")
    for number, name in enumerate(series):
        colour = COLOURS[list(METHODS).index(name[0]) % len(COLOURS)]
        dash = ' stroke-dasharray="2 4"' if name[1] == "exact" else ""
        spots = []
        for row in rows:
            if (row["strategy"], row["way"], row["measure"]) == name:
                x = left + wide * (SHARDS.index(row["shards"]) + 0.5) / len(SHARDS) + 5 * (number - len(series) / 2)
                spots.append(f"{x},{y(row['ratio'])}")
                bar = f'x1="{x}" x2="{x}" y1="{y(row["least"])}" y2="{y(row["greatest"])}"'
                parts.append(f'<line {bar} stroke="{colour}" stroke-width="3" opacity="0.5"/>')
        parts.append(f'<polyline points="{" ".join(spots)}" fill="none" stroke="{colour}"{dash}/>')
        legend = f'fill="{colour}">{name[0]}, {name[1]}: {name[2]}'
        parts.append(f'<text x="{left + wide + 16}" y="{top + 14 + 18 * number}" {legend}</text>')
    frame = f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{top + high + 40}" font-family="sans-serif"'
    return f'{frame} font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'


if __name__ == "__main__":
    main()
