"""One picture a strategy, all on the same toy pool: what is labelled, where the head's boundary runs, what is picked.

    python tests/benchmarks/gallery.py [FOLDER] [--only NAME …]

Needs matplotlib (the extra `bench`). The pool lies in a plane that is lifted off the origin, since diversity is
measured between directions: seen from there, two points of the plane are as far apart as they look. Three classes: a
dense one; a wide one, of which 16 rows are copies of each other; and a rare one in two places, one of them far out and
without a label.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from alray.selection import Selection, select
from alray.strategies import STRATEGIES
from alray.training.probe import HeadConfig, fit_head

HOME = Path(__file__).parents[2] / "alray" / "strategies" / "gallery"
HEIGHT, BUDGET, LABELS, SEED = 4.0, 16, 18, 3
SIDE, DOTS = 2.4, 110  # inches, dots an inch
CLASSES = ["dense", "wide", "rare"]
COLOURS = ["#2b6cb0", "#c05621", "#2f855a"]
PALE = ["#dbe9f6", "#fbe6d4", "#dcefe2"]


@dataclass
class Toy:
    """Points of the plane, their classes, and the numbers of the labelled ones."""

    points_N2: np.ndarray
    truth_N: np.ndarray
    labelled_M: np.ndarray

    @property
    def features_N3(self) -> np.ndarray:
        """The points lifted off the origin."""
        return lifted(self.points_N2).astype(np.float16)

    @property
    def ids(self) -> list[str]:
        """Their names."""
        return [f"row-{n:04d}" for n in range(len(self.points_N2))]

    @property
    def labels(self) -> dict[str, str]:
        """Class by id of the labelled rows."""
        return {self.ids[n]: CLASSES[self.truth_N[n]] for n in self.labelled_M}


def lifted(points_N2: np.ndarray) -> np.ndarray:
    """Return points of the plane at `HEIGHT` above the origin, [N, 3]."""
    return np.column_stack([points_N2, np.full(len(points_N2), HEIGHT)])


def toy() -> Toy:
    """Return the pool that every picture shows."""
    rng = np.random.default_rng(SEED)
    parts = [
        rng.normal((-1.5, 0.6), 0.45, (220, 2)),
        rng.normal((1.2, -0.3), (1.0, 0.8), (140, 2)),
        rng.normal((2.1, 0.9), 0.02, (16, 2)),
        rng.normal((0.3, 1.9), 0.3, (28, 2)),
        rng.normal((-2.4, -1.9), 0.15, (12, 2)),
    ]
    truth_N = np.repeat([0, 1, 1, 2, 2], [len(part) for part in parts])
    near_N = np.repeat([1, 1, 1, 1, 0], [len(part) for part in parts]).astype(bool)
    labelled_M = rng.choice(np.flatnonzero(near_N), LABELS, replace=False)
    return Toy(np.concatenate(parts), truth_N, np.sort(labelled_M))


def picks(name: str, pool: Toy, folder: Path) -> Selection:
    """Return what a strategy picks of the toy pool."""
    path = folder / "pool.parquet"
    if not path.exists():
        flat = pa.array(pool.features_N3.ravel())
        features = pa.FixedSizeListArray.from_arrays(flat, 3)
        pq.write_table(pa.table({"id": pool.ids, "features": features}), path)
    return select(name, str(path), budget=BUDGET, labels=pool.labels, classes=CLASSES, seed=SEED)


def draw(name: str, pool: Toy, chosen: Selection) -> bytes:
    """Return the picture as PNG."""
    figure, axes = plt.subplots(figsize=(SIDE, SIDE), dpi=DOTS)
    low, high = pool.points_N2.min(axis=0) - 0.3, pool.points_N2.max(axis=0) + 0.3
    boundary(axes, pool, low, high)
    axes.scatter(*pool.points_N2.T, s=3, color="#8a8f98", linewidths=0)
    for number, colour in enumerate(COLOURS):
        mine = pool.labelled_M[pool.truth_N[pool.labelled_M] == number]
        axes.scatter(*pool.points_N2[mine].T, s=22, color=colour, edgecolors="black", linewidths=0.5, marker="s")
    at = {i: n for n, i in enumerate(pool.ids)}
    taken = [at[i] for i in chosen.picks.ids]
    axes.scatter(*pool.points_N2[taken].T, s=42, facecolors="none", edgecolors="#d0021b", linewidths=1.3)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[], aspect="auto")
    figure.subplots_adjust(0.01, 0.01, 0.99, 0.99)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    plt.close(figure)
    return small(out.getvalue())


def boundary(axes: plt.Axes, pool: Toy, low: np.ndarray, high: np.ndarray) -> None:
    """Colour the plane by what the head that is fitted on the labels says, and draw the lines between."""
    rows = pool.labelled_M
    texts = [CLASSES[c] for c in pool.truth_N[rows]]
    head = fit_head(HeadConfig(), pool.features_N3[rows].astype(np.float32), texts, CLASSES, SEED)
    across, up = np.meshgrid(np.linspace(low[0], high[0], 240), np.linspace(low[1], high[1], 240))
    grid = torch.from_numpy(lifted(np.column_stack([across.ravel(), up.ravel()])).astype(np.float32))
    weight_CH, bias_C = head.last
    said = (head.hidden(grid) @ weight_CH.T + bias_C).argmax(dim=1).numpy().reshape(across.shape)
    axes.contourf(across, up, said, levels=[-0.5, 0.5, 1.5, 2.5], colors=PALE)
    axes.contour(across, up, said, levels=[0.5, 1.5], colors="#4a5568", linewidths=0.7)


def small(png: bytes) -> bytes:
    """Return a PNG with 32 colours, which these pictures hardly need more of."""
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(32, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=HOME)
    parser.add_argument("--only", nargs="+", default=None)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    pool, total = toy(), 0
    with tempfile.TemporaryDirectory() as place:
        for name in args.only or sorted(STRATEGIES()):
            png = draw(name, pool, picks(name, pool, Path(place)))
            (args.folder / f"{name}.png").write_bytes(png)
            total += len(png)
            print(f"{name:<18} {len(png):>7,} bytes", file=sys.stderr)
    print(f"{total:,} bytes in {args.folder}")


if __name__ == "__main__":
    main()
