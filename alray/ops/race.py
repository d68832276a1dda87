"""An exponential race: rows fire one after the other, each with a rate that may fall, from one random number a row.

Row i has drawn E ~ Exp(1) and fires when its rate, added up over time, has reached E. The next row to fire is then i
with probability rate_i / Σ rate, whatever happened before, since a race has no memory (Rényi, 1953). With a rate of D²,
the squared distance to the nearest row that has fired, the order of firing is that of k-means++ (Arthur and
Vassilvitskii, 2007). When a rate falls the row is due later, never sooner: so the first rows of a list can be trusted
until the time at which a row outside it could be due.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from alray import seeds


def exponentials(stream: int, hashes: seeds.Hashes) -> Tensor:
    """Return one number a row from Exp(1), fp64 [N], of the stream with this key."""
    return torch.from_numpy(-np.log(seeds.uniform(stream, hashes)))


def due(exponential_N: Tensor, rate_N: Tensor) -> Tensor:
    """Return when each row is due if its rate stays as it is from time 0 on, [N]; never (∞) at a rate of 0."""
    return torch.where(rate_N > 0, exponential_N / rate_N, torch.inf)


def delayed(due_N: Tensor, before_N: Tensor, after_N: Tensor, now: float) -> Tensor:
    """Return when each row is due if its rate falls from `before_N` to `after_N` now, [N].

    What is left to wait for grows by before / after. A rate that does not fall leaves the time as it is, in every bit,
    and no rounding makes it earlier.
    """
    later_N = now + (due_N - now) * (before_N / after_N)
    later_N = torch.where(after_N > 0, torch.maximum(later_N, due_N), torch.inf)
    return torch.where(after_N < before_N, later_N, due_N)
