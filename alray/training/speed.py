"""How long a picture takes here: what a price that is said beforehand stands on."""

from __future__ import annotations

import time

import numpy as np

from alray.training.evaluate import Model, run_chunk
from alray.training.rows import Rows

TRAINED = 3.0
"""A picture trained on costs about three times one that is only looked at: a backward pass is two forward ones."""


def seconds_per_picture(rows: Rows, model: Model) -> float:
    """Return the seconds that reading, decoding and embedding one of these pictures take on one worker."""
    run_chunk(rows.take(np.arange(1)), model)  # loads the model, and warms up what is below it
    start = time.perf_counter()
    run_chunk(rows, model)
    return (time.perf_counter() - start) / len(rows)
