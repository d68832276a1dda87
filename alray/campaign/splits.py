"""Which labelled rows train and which are held out: a function of the id and the seed, fixed for life.

A row that has once been held out never trains, in whatever round it is labelled and however the campaign is resumed
(decision 26).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from alray import seeds


@dataclass(frozen=True)
class Split:
    """Labels by id, sorted by id: those that train and those that are held out."""

    train: dict[str, str]
    holdout: dict[str, str]


def held_out(ids: Sequence[str], seed: int, share: float) -> npt.NDArray[np.bool_]:
    """Say for each id whether it is held out, bool [N]; `share` of all ids are, in [0, 1)."""
    draws = seeds.uniform(seeds.key(seed, "split"), seeds.hash_ids(ids))
    return np.asarray(draws < share, dtype=np.bool_)


def split(labels: Mapping[str, str], seed: int, share: float) -> Split:
    """Divide labelled rows into train and holdout."""
    ids = sorted(labels)
    out = held_out(ids, seed, share)
    return Split(
        train={i: labels[i] for i, held in zip(ids, out, strict=True) if not held},
        holdout={i: labels[i] for i, held in zip(ids, out, strict=True) if held},
    )
