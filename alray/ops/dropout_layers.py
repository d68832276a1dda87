"""Dropout layers of a network that otherwise stays in evaluation mode: batch norm keeps its statistics and its buffers.

A layer is not switched to training, where it would draw a mask for each row of a batch from a global generator: a hook
multiplies what it passes on by the draw's own mask, the same for every row. So a row's result depends on no other row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alray import seeds

BATCH = 64
"""Pictures of every pass, the last filled up with blanks: each meets the same kernels, whichever are beside it."""

Keyed = tuple[int, str, int]
"""(seed, purpose, round) of the masks."""


def layers_of(module: nn.Module) -> dict[str, nn.Module]:
    """Return the dropout layers that leave anything out, by name."""
    kinds = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds) and layer.p > 0}


def passes(module: nn.Module, pictures: Tensor, draws: int, key: Keyed) -> Iterator[Tensor]:
    """Yield the logits [N, C] of pictures [N, …] in each draw. The module is in evaluation mode, and stays so."""
    for draw in range(draws):
        with thinned(module, key, draw):
            yield logits(module, pictures)


@torch.no_grad()
def logits(module: nn.Module, pictures: Tensor) -> Tensor:
    """Return the logits [N, C] of pictures [N, …], in batches of one size."""
    found = []
    for at in range(0, len(pictures), BATCH):
        batch = pictures[at : at + BATCH]
        blanks = [0] * (2 * batch.dim() - 1) + [BATCH - len(batch)]
        found.append(module(F.pad(batch, blanks))[: len(batch)])
    return torch.cat(found)


@contextmanager
def thinned(module: nn.Module, key: Keyed, draw: int) -> Iterator[None]:
    """Let the dropout layers leave out what this draw leaves out, each at its own rate, until the block ends."""
    handles = [
        layer.register_forward_hook(_Mask(key, draw, name, float(layer.p)))  # type: ignore[arg-type]
        for name, layer in layers_of(module).items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Mask:
    """A hook that multiplies a layer's output by one mask for all rows, keyed by the draw and the layer's name."""

    def __init__(self, key: Keyed, draw: int, name: str, rate: float) -> None:
        self.key, self.draw, self.name, self.rate = key, draw, name, rate
        self.made: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        shape = tuple(output.shape[1:])
        if not isinstance(layer, nn.Dropout):  # those of more dimensions leave out whole channels
            shape = (shape[0], *([1] * (len(shape) - 1)))
        if shape not in self.made:
            seed, purpose, round = self.key
            kept = seeds.generator(seed, purpose, round, self.draw, self.name).random(shape) >= self.rate
            scale = 1 / (1 - self.rate) if self.rate < 1 else 0.0
            self.made[shape] = torch.from_numpy(kept.astype(np.float32) * np.float32(scale)).to(output)
        return output * self.made[shape]
