"""Learning loss: a small module that learns which of two rows a model does worse on (Yoo & Kweon, CVPR 2019).

Losses shrink while a model learns, so that predicting them as numbers would chase their scale. The module is taught the
order of pairs instead (their eq. 2). It looks at several layers of the model at once (their §3.2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.ops.affine import affine

Layers = list[tuple[Tensor, Tensor]]
"""Weight and bias of an affine layer for each level, and of the one on top of them all."""


def pairwise(predicted_P2: Tensor, loss_P2: Tensor, margin: float) -> Tensor:
    """Return the mean over pairs of max(0, ξ − sign(l_i − l_j)·(l̂_i − l̂_j)); pairs of equal losses say nothing.

    Shapes [P, 2]; 0 when no pair says anything. The official code counts equal losses as l_i < l_j.
    """
    sign_P = torch.sign(loss_P2[:, 0] - loss_P2[:, 1])
    over_P = (margin - sign_P * (predicted_P2[:, 0] - predicted_P2[:, 1])).clamp_min(0) * sign_P.abs()
    return over_P.sum() / sign_P.abs().sum().clamp_min(1)


def predict(levels: Sequence[Tensor], layers: Layers) -> Tensor:
    """Return the predicted loss of each row, [N], from its levels, fp32 [N, D], [N, H], …; only its order counts."""
    *below, (weight_1U, bias_1) = layers
    units = [torch.relu(affine(x_NP, *layer)) for x_NP, layer in zip(levels, below, strict=True)]
    return affine(torch.cat(units, dim=1), weight_1U, bias_1).squeeze(1)


@dataclass(frozen=True)
class Fit:
    """How the module is trained: AdamW on pairs drawn anew each epoch, in fp32, its rates falling to zero.

    `seed` and `round` key its weights and its pairs.
    """

    width: int
    epochs: int
    batch: int
    lr: float
    weight_decay: float
    margin: float
    seed: int
    round: int

    def __call__(self, levels: Sequence[Tensor], loss_M: Tensor) -> Layers:
        """Return the module's layers for levels [M, D], [M, H], … and the rows' losses [M]: M ≥ 2, sorted by id.

        Levels are centred and scaled by one number each, which the layers then do by themselves.
        """
        scales = [_scale(x_MP) for x_MP in levels]
        inputs = [(x_MP - centre_P) / scale for x_MP, (centre_P, scale) in zip(levels, scales, strict=True)]
        layers = self._start([x_MP.shape[1] for x_MP in levels])
        optimiser = torch.optim.AdamW(
            [tensor for layer in layers for tensor in layer], lr=self.lr, weight_decay=self.weight_decay
        )
        steps = -(-len(loss_M) // self.batch)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.epochs * steps)
        for pairs_P2 in self._pairs(len(loss_M), steps):
            rows = pairs_P2.flatten()
            predicted_P2 = predict([x_MP[rows] for x_MP in inputs], layers).reshape(-1, 2)
            optimiser.zero_grad()
            pairwise(predicted_P2, loss_M[rows].reshape(-1, 2), self.margin).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            falling.step()
        *below, top = layers
        return [*(_folded(layer, scale) for layer, scale in zip(below, scales, strict=True)), _folded(top)]

    def _start(self, sizes: Sequence[int]) -> Layers:
        generator = seeds.torch_generator(self.seed, "loss module weights", self.round)
        shapes = [(self.width, size) for size in sizes] + [(1, self.width * len(sizes))]
        layers = [(torch.empty(shape), torch.zeros(shape[0])) for shape in shapes]
        for (_, size), (weight, _) in zip(shapes, layers, strict=True):
            weight.normal_(0.0, size**-0.5, generator=generator)
        return [(weight.requires_grad_(), bias.requires_grad_()) for weight, bias in layers]

    def _pairs(self, rows: int, steps: int) -> Iterator[Tensor]:
        """Yield the pairs of each step, row numbers [P, 2]: an epoch has every row once, but for an odd one."""
        for epoch in range(self.epochs):
            order = seeds.generator(self.seed, "loss module pairs", self.round, epoch).permutation(rows)
            pairs: npt.NDArray[np.int64] = order[: rows // 2 * 2].reshape(-1, 2)
            yield from (torch.from_numpy(part) for part in np.array_split(pairs, min(steps, len(pairs))))


def _scale(x_MP: Tensor) -> tuple[Tensor, float]:
    """Return the mean of each coordinate and one root mean square deviation of all; 1 where all rows are alike."""
    wide_MP = x_MP.double()
    centre_P = wide_MP.mean(dim=0)
    scale = float((wide_MP - centre_P).square().mean().sqrt())
    return centre_P.float(), scale or 1.0


def _folded(layer: tuple[Tensor, Tensor], scale: tuple[Tensor, float] | None = None) -> tuple[Tensor, Tensor]:
    """Return a layer that takes its level as it is."""
    weight, bias = (tensor.detach() for tensor in layer)
    if scale is None:
        return weight, bias
    centre_P, width = scale
    weight = weight.double() / width
    return weight.float(), (bias - weight @ centre_P.double()).float()
