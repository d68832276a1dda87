"""The reference set of a selection without a campaign: labels that its head is not fitted on, by id and seed alone.

A campaign has rows that it held out and drew at random (decision 26). A labels file does not say how its rows were
drawn, so a share of all of them is taken: for life too, since neither the other labels nor the round have a say.
"""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from alray import seeds
from alray.errors import StrategyError
from alray.table import Ids

log = logging.getLogger(__name__)


def kept_back(ids: Ids, seed: int, share: float) -> npt.NDArray[np.bool_]:
    """Return which labelled rows are the reference set, [M]: `share` of them, and of two or more neither none nor all.

    Fewer than two rows, or a share of zero, keep none back.
    """
    out_M = np.zeros(len(ids), dtype=np.bool_)
    if not share or len(ids) < 2:
        return out_M
    draws_M = seeds.uniform(seeds.key(seed, "reference"), seeds.hash_ids(ids))
    out_M |= draws_M < share
    out_M[draws_M.argmin()], out_M[draws_M.argmax()] = True, False
    return out_M


def check(strategy: str, labels: int, kept: int, share: float) -> None:
    """Raise StrategyError when a strategy wants a reference set and there are too few labels to keep any back."""
    if share and not kept:
        raise StrategyError(
            f"`{strategy}` measures influence on a reference set, a share of the labels that no head is fitted on, and "
            f"{labels} is too few to keep any back. Give more labels: at least 2."
        )


def warn(strategy: str, ids: Ids, labels: int) -> None:
    """Say that a given head may have been fitted on the reference set, and on what it should not have been."""
    shown = ", ".join(map(str, ids[:5])) + (", …" if len(ids) > 5 else "")
    log.warning(
        "`%s` takes %d of the %d labels as its reference set (%s); a head that was fitted on them has little to learn "
        "there, and its scores say less. Leave the head out, so that one is fitted on the others, or fit it without",
        strategy,
        len(ids),
        labels,
        shown,
    )
