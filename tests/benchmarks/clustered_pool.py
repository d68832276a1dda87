"""A pool of clustered features for benchmarks of growth, of which any number of files is a smaller pool.

Rows are drawn from many clusters of different sizes, several a class, so that neither k-means nor a distance has an
easy time. Labels are of the first file's rows: a head, and what strategies prepare, is the same for every size.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLUSTERS_A_CLASS = 20
LARGEST_FILE = 62_500


@dataclass(frozen=True)
class Shape:
    """What a pool is made of."""

    dim: int = 256
    classes: int = 10
    labels: int = 1000
    file_rows: int = LARGEST_FILE

    @staticmethod
    def of(sizes: Sequence[int], **more: int) -> Shape:
        """Return the shape whose files make each of these sizes, in files as large as can be."""
        common = math.gcd(*sizes)
        parts = next(parts for parts in range(1, common + 1) if common % parts == 0 and common // parts <= LARGEST_FILE)
        return Shape(file_rows=common // parts, **more)


def write(folder: Path, rows: int, shape: Shape) -> tuple[list[str], str]:
    """Write what is not there yet; return the paths of the first `rows` rows, and of the labels file."""
    folder.mkdir(parents=True, exist_ok=True)
    stamp = folder / "shape.json"
    if stamp.exists() and json.loads(stamp.read_text()) != asdict(shape):
        raise SystemExit(f"{folder} holds another pool ({stamp.read_text()}). Give another folder, or remove it.")
    stamp.write_text(json.dumps(asdict(shape)))
    if rows % shape.file_rows:
        raise SystemExit(f"{rows} rows are no whole number of files of {shape.file_rows}.")
    paths = [folder / f"pool-{number:04d}.parquet" for number in range(rows // shape.file_rows)]
    for number, path in enumerate(paths):
        if not path.exists() or (number == 0 and not (folder / "labels.csv").exists()):
            _write_file(path, number, shape)
    return [str(path) for path in paths], str(folder / "labels.csv")


def _write_file(path: Path, number: int, shape: Shape) -> None:
    made = np.random.default_rng(0)
    clusters = CLUSTERS_A_CLASS * shape.classes
    centres = made.standard_normal((clusters, shape.dim), dtype=np.float32)
    spread, share = made.uniform(0.6, 1.8, size=clusters).astype(np.float32), made.dirichlet(np.full(clusters, 2.0))
    rng = np.random.default_rng([1, number])
    of = rng.choice(clusters, size=shape.file_rows, p=share)
    noise = rng.standard_normal((shape.file_rows, shape.dim), dtype=np.float32)
    matrix = (centres[of] + spread[of, None] * noise).astype(np.float16)
    ids = [f"row-{i:08d}" for i in range(number * shape.file_rows, (number + 1) * shape.file_rows)]
    if number == 0:
        lines = [f"{i},class-{c % shape.classes:03d}" for i, c in zip(ids[: shape.labels], of, strict=False)]
        (path.parent / "labels.csv").write_text("\n".join(["id,label", *lines]) + "\n")
    column = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), shape.dim)
    partial = path.with_suffix(".partial")
    pq.write_table(pa.table({"id": ids, "features": column}), partial, use_dictionary=["id"], compression="none")
    partial.rename(path)
