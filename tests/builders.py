"""Small seeded inputs, written where a test says: pools of features and of pictures, folders, labels."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def ids(rows: int, start: int = 0) -> list[str]:
    """Return `rows` ids, `row-00000` onwards."""
    return [f"row-{i:05d}" for i in range(start, start + rows)]


def features(rows: int, dim: int, seed: int = 0, classes: int = 4) -> tuple[np.ndarray, list[str]]:
    """Return fp16 features [rows, dim] of a Gaussian mixture, and each row's class name."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(classes, dim)) * 2
    label = rng.integers(classes, size=rows)
    return (centres[label] + rng.normal(size=(rows, dim))).astype(np.float16), [f"class-{c}" for c in label]


def vectors(matrix: np.ndarray, form: str = "fixed") -> pa.Array:
    """Return a matrix as an Arrow column: `fixed` (FixedSizeList), `list`, `large_list` or `tensor`."""
    flat, dim = pa.array(matrix.ravel()), matrix.shape[1]
    offsets = np.arange(0, matrix.size + 1, dim)
    if form == "list":
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)
    if form == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat)
    fixed = pa.FixedSizeListArray.from_arrays(flat, dim)
    if form == "tensor":
        return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(flat.type, [dim]), fixed)
    return fixed


def parquet(path: Path, columns: Mapping[str, Any], row_group: int = 1000) -> str:
    """Write columns as a Parquet file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(dict(columns)), path, row_group_size=row_group)
    return str(path)


def features_pool(
    folder: Path,
    files: Sequence[int] = (40, 25, 60),
    dim: int = 8,
    seed: int = 0,
    form: str = "fixed",
    row_group: int = 16,
) -> tuple[str, np.ndarray, list[str], list[str]]:
    """Write `pool-*.parquet` of the given rows each; return (glob, features fp16 [N, D], ids, labels) in pool order."""
    total = sum(files)
    matrix_ND, labels = features(total, dim, seed)
    names, at = ids(total), 0
    for number, rows in enumerate(files):
        part = slice(at, at + rows)
        columns = {"id": names[part], "features": vectors(matrix_ND[part], form), "label": labels[part]}
        parquet(folder / f"pool-{number:02d}.parquet", columns, row_group)
        at += rows
    return str(folder / "pool-*.parquet"), matrix_ND, names, labels


def picture(number: int, size: int = 8, suffix: str = "png", classes: int = 4) -> tuple[bytes, str]:
    """Return (bytes of a tiny RGB picture, class name); the class decides its colour."""
    rng = np.random.default_rng(number)
    label = number % classes
    colour = np.array([40 + 180 * (label & 1), 40 + 90 * (label & 2), 40 + 40 * label])
    pixels = np.clip(colour + rng.normal(scale=12, size=(size, size, 3)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, {"png": "PNG", "jpg": "JPEG"}[suffix])
    return out.getvalue(), f"class-{label}"


def image_pool(
    folder: Path, files: Sequence[int] = (10, 6), size: int = 8, row_group: int = 4
) -> tuple[str, list[str], list[str]]:
    """Write `pool-*.parquet` with `id, image, label`; return (glob, ids, labels) in pool order."""
    names, labels, at = ids(sum(files)), [], 0
    for number, rows in enumerate(files):
        cells = [picture(i, size, "png" if i % 2 else "jpg") for i in range(at, at + rows)]
        labels += [label for _, label in cells]
        columns = {"id": names[at : at + rows], "image": [data for data, _ in cells], "label": labels[at:]}
        parquet(folder / f"pool-{number:02d}.parquet", columns, row_group)
        at += rows
    return str(folder / "pool-*.parquet"), names, labels


def picture_folder(folder: Path, rows: int = 10, size: int = 8, start: int = 0) -> tuple[str, list[str], list[str]]:
    """Write a folder of pictures; return (folder, ids = file names, labels) in pool order."""
    folder.mkdir(parents=True, exist_ok=True)
    names, labels = [], []
    for number in range(start, start + rows):
        suffix = "png" if number % 2 else "jpg"
        data, label = picture(number, size, suffix)
        names.append(f"picture-{number:05d}.{suffix}")
        labels.append(label)
        (folder / names[-1]).write_bytes(data)
    return str(folder), names, labels


def labels_file(path: Path, names: Sequence[str], labels: Sequence[str]) -> str:
    """Write a labels file `id,label`, CSV or Parquet by its suffix; return its path."""
    if path.suffix == ".parquet":
        return parquet(path, {"id": list(names), "label": list(labels)})
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{name},{label}" for name, label in zip(names, labels, strict=True)]
    path.write_text("\n".join(["id,label", *lines]) + "\n", encoding="utf-8")
    return str(path)
