"""How much draws of a model disagree about a row: mutual information, and changed minds.

Both take the draws one after the other, so that N × S × C numbers are never there at once.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from alray.ops import probability


def mutual_information(draws: Iterable[Tensor]) -> Tensor:
    """Return H(mean p) − mean H(p) in nats, fp64 [N], of the probabilities [N, C] of each draw.

    Between 0 and min(ln C, ln S) (Houlsby et al., *Bayesian Active Learning*, 2011, eq. 2). Running means in fp64:
    equal draws give exactly 0, where a sum divided by its length leaves a rounding. No draws are a ValueError.
    """
    mean_NC, entropy_N = torch.zeros(0), torch.zeros(0)
    count = 0
    for count, probs_NC in enumerate(draws, start=1):
        now_NC = probs_NC.double()
        now_N = probability.entropy(now_NC)
        mean_NC = now_NC if count == 1 else mean_NC + (now_NC - mean_NC) / count
        entropy_N = now_N if count == 1 else entropy_N + (now_N - entropy_N) / count
    if not count:
        raise ValueError("There is no draw to compare. Expected at least one.")
    return (probability.entropy(mean_NC) - entropy_N).clamp_min(0)


def mismatches(logits_NC: Tensor, draws: Iterable[Tensor]) -> Tensor:
    """Return how many draws, logits [N, C] each, name another class than `logits_NC` does, [N] of their precision.

    NaN for a row that overflows in one of them: then there is no class that it names.
    """
    label_N, count_N = logits_NC.argmax(dim=1), probability.overflow(logits_NC)
    for drawn_NC in draws:
        count_N = count_N + (drawn_NC.argmax(dim=1) != label_N) + probability.overflow(drawn_NC)
    return count_N
