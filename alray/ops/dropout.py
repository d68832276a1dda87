"""Dropout whose masks are shared: one draw is one thinned model, and every row meets the same one.

Consistent masks (Kirsch, van Amersfoort & Gal, NeurIPS 2019, §3.3) make a draw a sample of the model and not of a row.
They also cost nothing: a mask on the inputs of an affine map is a mask on its weights, which are few.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from alray import seeds
from alray.ops.affine import affine

COLUMNS = 1024
"""Logits of this many (draw, class) pairs come out of one product of matrices."""


def masks(seed: int, purpose: str, round: int, *, draws: int, size: int, rate: float) -> Tensor:
    """Return what each draw multiplies its inputs by, fp32 [S, P]: 0 with probability `rate`, else 1 / (1 − rate).

    Draw s is keyed by (seed, purpose, round, s): more draws leave the first ones as they were.
    """
    streams = [seeds.generator(seed, purpose, round, draw) for draw in range(draws)]
    kept_SP = np.stack([stream.random(size) >= rate for stream in streams])
    return torch.from_numpy(kept_SP.astype(np.float32) / np.float32(1 - rate))


def logits(x_NP: Tensor, masks_SP: Tensor, weight_CP: Tensor, bias_C: Tensor) -> Iterator[Tensor]:
    """Yield (x ⊙ mask)·weightᵀ + bias of each draw, [N, C]."""
    classes = len(weight_CP)
    together = max(COLUMNS // classes, 1)
    for first in range(0, len(masks_SP), together):
        block_BP = masks_SP[first : first + together]
        weight_KP = (block_BP[:, None, :] * weight_CP).flatten(0, 1)
        drawn_NK = affine(x_NP, weight_KP, bias_C.repeat(len(block_BP)))
        yield from drawn_NK.reshape(len(x_NP), len(block_BP), classes).unbind(1)
