"""Gumbel noise: the highest of scores + noise are a sample without replacement, with chances ∝ exp(score).

Keyed by row, so that a row's noise is the same on any shard (Kool, van Hoof & Welling, ICML 2019).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from alray import seeds


def noise(stream: int, hashes: seeds.Hashes) -> npt.NDArray[np.float64]:
    """Return −ln(−ln u) for one uniform number u of each id hash: standard Gumbel numbers, [N]."""
    return np.asarray(-np.log(-np.log(seeds.uniform(stream, hashes))))
