"""scikit-learn's bundled digits as a small pool of real pictures: no download, and right at once.

The quickstart and the tests label 8×8 handwritten digits (1,797, from the UCI Optical Recognition of Handwritten Digits
test set). They are written as PNG, so that they go through the decoding, features and training of any other pool.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
from PIL import Image

from alray import storage

FOLDER = ".quickstart"
POOL = f"{FOLDER}/pool.parquet"
"""Where `configs/quickstart.yaml` has its pool: a campaign with this path finds the digits written there."""

TEST_EVERY = 5
"""Each fifth picture is kept for the test set: 359 of 1,797."""


def write(folder: str) -> None:
    """Write `pool.parquet`, `test.parquet` and `oracle.parquet` under `folder`, unless the pool is there.

    The pool holds `id, image`, the test set `id, image, label`, the oracle `id, label` of the pool's rows. Safe to run
    twice at a time: the bytes are always the same, each file appears whole, and the pool, which says done, is last.
    """
    if storage.exists(storage.join(folder, "pool.parquet")):
        return
    from sklearn.datasets import load_digits  # here: every command would wait seconds for it

    digits = load_digits()
    table = pa.table(
        {
            "id": [f"digit-{n:04d}" for n in range(len(digits.target))],
            "image": [_png(picture) for picture in digits.images],
            "label": [str(label) for label in digits.target],
        }
    )
    row_N = np.arange(len(table))
    kept = table.take(row_N[row_N % TEST_EVERY == TEST_EVERY - 1])
    rest = table.take(row_N[row_N % TEST_EVERY != TEST_EVERY - 1])
    storage.write_parquet(storage.join(folder, "test.parquet"), kept)
    storage.write_parquet(storage.join(folder, "oracle.parquet"), rest.select(["id", "label"]))
    storage.write_parquet(storage.join(folder, "pool.parquet"), rest.select(["id", "image"]))


def _png(grey_HW: np.ndarray) -> bytes:
    """Return an 8×8 picture of levels 0–16 as PNG bytes."""
    out = io.BytesIO()
    Image.fromarray((grey_HW * 255 / 16).round().astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()
