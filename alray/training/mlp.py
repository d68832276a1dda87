"""The MLP head: linear, batch norm (folded when it is done), ReLU, linear; seeded, on one thread or one GPU.

It is the proxy of Wen et al., TMLR 2024, whose recipe is `hidden: 2048, optimizer: sgd, lr: 0.1, weight_decay: 0,
batch: 2048, epochs: 50, schedule: cosine_7_16`. One thread, so that its bits do not hang on the machine's cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler

from alray import seeds
from alray.errors import ModelError
from alray.models.head import Head
from alray.runtime.threads import one_thread
from alray.training import schedule

if TYPE_CHECKING:
    from alray.training.probe import HeadConfig

MOMENTUM = 0.9
"""Of SGD, which is Nesterov's."""


class Net(nn.Module):
    """An MLP in training: features [N, D] to logits [N, C]."""

    def __init__(self, dim: int, hidden: int, classes: int, *, batch_norm: bool, seed: int) -> None:
        super().__init__()
        generator = seeds.torch_generator(seed, "mlp head weights")
        with torch.device("meta"):  # elsewhere, making a layer draws from the global generator
            below, above = nn.Linear(dim, hidden), nn.Linear(hidden, classes)
        self.below, self.above = below.to_empty(device="cpu"), above.to_empty(device="cpu")
        self.norm = nn.BatchNorm1d(hidden) if batch_norm else None
        with torch.no_grad():
            for layer in (self.below, self.above):
                layer.weight.normal_(0.0, layer.in_features**-0.5, generator=generator)
                layer.bias.zero_()

    def forward(self, x_ND: Tensor, keep_NH: Tensor | None = None) -> Tensor:
        """Return the logits, the hidden activations multiplied by `keep_NH` if there is one."""
        z_NH = self.below(x_ND)
        hidden_NH = torch.relu(z_NH if self.norm is None else self.norm(z_NH))
        logits: Tensor = self.above(hidden_NH if keep_NH is None else hidden_NH * keep_NH)
        return logits

    @torch.no_grad()
    def head(self, x_MD: Tensor, classes: Sequence[str]) -> Head:
        """Return the head, its batch norm folded with the statistics of all rows: the running ones lag on few steps."""
        weight_HD, bias_H = self.below.weight, self.below.bias
        if self.norm is not None:
            z_MH = self.below(x_MD)
            scale_H = self.norm.weight / torch.sqrt(z_MH.var(0, correction=0) + self.norm.eps)
            weight_HD, bias_H = weight_HD * scale_H[:, None], (bias_H - z_MH.mean(0)) * scale_H + self.norm.bias
        arrays = {
            "hidden_weight": weight_HD,
            "hidden_bias": bias_H,
            "weight": self.above.weight,
            "bias": self.above.bias,
        }
        return Head("mlp", tuple(classes), {name: tensor.cpu().numpy() for name, tensor in arrays.items()})


def fit(
    config: HeadConfig, features_MD: np.ndarray, target_M: Tensor, weight_M: Tensor, classes: Sequence[str], seed: int
) -> Head:
    """Return the MLP head of `config` for finite features [M, D], classes [M] and each row's weight in the loss [M].

    Raises ModelError when it diverges.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with one_thread():
        x_MD = torch.from_numpy(np.asarray(features_MD)).float().to(device)
        target_M, weight_M = target_M.to(device), weight_M.to(device)
        noise_MD = _Noise(config.feature_noise, x_MD, target_M, seed)
        dropout = _Dropout(config.dropout, config.hidden, seed)
        net = Net(x_MD.shape[1], config.hidden, len(classes), batch_norm=config.batch_norm, seed=seed).to(device)
        parts = -(-len(x_MD) // config.batch)  # steps an epoch, none of more than `batch` rows
        optimiser = _optimiser(config, net, rows=len(x_MD))
        scheduler = _scheduler(config, optimiser, config.epochs * parts)
        for epoch in range(config.epochs):
            noise_MD.start(epoch)
            dropout.start(epoch)
            for rows in _batches(config, len(x_MD), parts, seed, epoch):
                x_BD = noise_MD.added(rows)
                loss_B = F.cross_entropy(net(x_BD, dropout.keep(x_BD)), target_M[rows], reduction="none")
                optimiser.zero_grad()
                (weight_M[rows] * loss_B).mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                scheduler.step()
            _refuse_divergence(config, net, epoch)
        return net.head(x_MD, classes)


def _batches(config: HeadConfig, rows: int, parts: int, seed: int, epoch: int) -> Iterator[Tensor]:
    """Yield the row numbers of an epoch's steps, of nearly equal length."""
    order = seeds.generator(seed, "mlp head", epoch).permutation(rows)
    for part in np.array_split(order, parts):
        if len(part) == 1 and config.batch_norm:
            part = np.repeat(part, 2)  # it needs two rows
        yield torch.from_numpy(part)


class _Noise:
    """Noise on features: N(0, (scale · standard deviation of the row's class)²) in each coordinate, anew each epoch."""

    def __init__(self, scale: float, x_MD: Tensor, target_M: Tensor, seed: int) -> None:
        self.scale, self.x_MD, self.seed = scale, x_MD, seed
        if scale:
            self.std_KD, self.row_M = _class_std(x_MD, target_M)

    def start(self, epoch: int) -> None:
        """Begin an epoch's stream."""
        self.generator = seeds.torch_generator(self.seed, "feature noise", epoch)

    def added(self, rows: Tensor) -> Tensor:
        """Return the features of some rows, with noise."""
        x_BD = self.x_MD[rows]
        if not self.scale:
            return x_BD
        drawn_BD = torch.randn(x_BD.shape, generator=self.generator).to(x_BD.device)
        return x_BD + self.scale * self.std_KD[self.row_M[rows]] * drawn_BD


class _Dropout:
    """Dropout of hidden units, anew for each row and step: what stays is multiplied by 1 / (1 − rate)."""

    def __init__(self, rate: float, hidden: int, seed: int) -> None:
        self.rate, self.hidden, self.seed = rate, hidden, seed

    def start(self, epoch: int) -> None:
        """Begin an epoch's stream."""
        self.generator = seeds.torch_generator(self.seed, "hidden dropout", epoch)

    def keep(self, x_BD: Tensor) -> Tensor | None:
        """Return what the hidden activations of a step's rows are multiplied by, [B, H]; None where all stay."""
        if not self.rate:
            return None
        drawn_BH = torch.rand(len(x_BD), self.hidden, generator=self.generator)
        return ((drawn_BH >= self.rate) / (1 - self.rate)).to(x_BD)


def _class_std(x_MD: Tensor, target_M: Tensor) -> tuple[Tensor, Tensor]:
    """Return the standard deviation of each class that has rows, [K, D] (0 for one row), and each row's place in it."""
    present, row_M = torch.unique(target_M, return_inverse=True)
    return torch.stack([x_MD[row_M == k].std(0, correction=0) for k in range(len(present))]), row_M


def _optimiser(config: HeadConfig, net: Net, *, rows: int) -> torch.optim.Optimizer:
    decay = config.l2 / rows if config.weight_decay is None else config.weight_decay
    if config.optimizer == "adamw":
        return torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=decay)
    return torch.optim.SGD(net.parameters(), lr=config.lr, weight_decay=decay, momentum=MOMENTUM, nesterov=True)


def _scheduler(config: HeadConfig, optimiser: torch.optim.Optimizer, steps: int) -> LRScheduler:
    if config.schedule == "cosine":  # a recursion, whose last bits are those of the heads fitted so far
        return CosineAnnealingLR(optimiser, steps)
    return LambdaLR(optimiser, lambda step: schedule.falling(config.schedule, step, steps))


def _refuse_divergence(config: HeadConfig, net: Net, epoch: int) -> None:
    if all(bool(torch.isfinite(tensor).all()) for tensor in net.parameters()):
        return
    raise ModelError(
        f"The MLP head diverged: its weights are not finite after epoch {epoch + 1} of {config.epochs} at `head.lr` "
        f"{config.lr}. Lower `head.lr`" + ("." if config.batch_norm else ", or set `head.batch_norm` to true.")
    )
