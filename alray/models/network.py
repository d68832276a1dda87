"""Network: a backbone with a head on it as one differentiable model, by what it is loaded from, so that it can be sent.

A strategy that looks at all weights runs it on the worker that has the pictures; nothing but this description travels.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from alray.errors import ModelError
from alray.models import backbone as backbones
from alray.models.backbone import Backbone, BackboneConfig
from alray.models.head import Head
from alray.models.transform import Transform
from alray.ops.affine import affine


@dataclass(frozen=True, eq=False)
class Network:
    """A backbone, the seed of its weights `none`, and the head on its features.

    It was trained by Σ wᵢ·CEᵢ + ½·l2·‖weights‖², biases and norms free; or its head was, and the backbone is frozen.
    """

    backbone: BackboneConfig
    head: Head
    seed: int = 0
    l2: float = 0.0

    @functools.cached_property
    def key(self) -> tuple[BackboneConfig, int, str]:
        """What tells two networks apart."""
        return self.backbone, self.seed, self.head.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Network) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def steps(self) -> Transform:
        """Return how its pictures are cut and scaled."""
        return _loaded(self).body.transform

    def module(self, device: torch.device) -> Whole:
        """Return the model in evaluation mode; loaded once a process."""
        return _loaded(self).to(device)


class Whole(nn.Module):
    """Pictures, uint8 [N, 3, S, S], to logits [N, C]."""

    def __init__(self, body: Backbone, head: Head) -> None:
        super().__init__()
        self.body = body
        self.hidden = _layer(head, "hidden_weight", "hidden_bias") if head.kind == "mlp" else None
        self.last = _layer(head, "weight", "bias")

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits, [N, C]."""
        features_ND: Tensor = self.body(pictures)
        hidden_NH = features_ND if self.hidden is None else torch.relu(_apply(self.hidden, features_ND))
        return _apply(self.last, hidden_NH)


def _apply(layer: nn.Linear, x_ND: Tensor) -> Tensor:
    return affine(x_ND, layer.weight, layer.bias)  # as heads do it: the rows beside a row leave no trace


def _layer(head: Head, weight: str, bias: str) -> nn.Linear:
    outs, ins = head.weights[weight].shape
    layer = nn.Linear(ins, outs, device="meta").to_empty(device="cpu")  # elsewhere it draws random numbers
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(head.weights[weight]))
        layer.bias.copy_(torch.tensor(head.weights[bias]))
    return layer


@functools.lru_cache(maxsize=1)
def _loaded(network: Network) -> Whole:
    body = backbones.load(network.backbone, network.seed)
    if body.dim != network.head.dim:
        raise ModelError(
            f"{network.head.source} takes features of size {network.head.dim}; `backbone` {network.backbone.backbone} "
            f"makes {body.dim}. Give the head that stands on this backbone."
        )
    return Whole(body, network.head).eval()
