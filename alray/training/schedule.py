"""How a learning rate falls: a factor for each step, by name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Falling = Literal["cosine", "cosine_7_16"]

Schedule = Literal["cosine", "cosine_7_16", "steps", "constant"]


def falling(name: Falling, step: int, steps: int) -> float:
    """Return the factor of step 0 … `steps` − 1: cosine ½·(1 + cos(π·progress)), to zero; cosine_7_16
    cos(π·7/16·progress), to 0.195 (Sohn et al., FixMatch, NeurIPS 2020; the proxies of Wen et al., TMLR 2024)."""
    progress = step / steps
    if name == "cosine_7_16":
        return math.cos(math.pi * 7 / 16 * progress)
    return 0.5 * (1 + math.cos(math.pi * progress))


def staircase(epoch: int, milestones: Sequence[int], gamma: float) -> float:
    """Return the factor of epoch 0, 1, …: `gamma` once for each milestone that as many epochs have reached."""
    return gamma ** sum(epoch >= milestone for milestone in milestones)
