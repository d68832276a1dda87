"""What strategies that ask a head several times share: dropout passes with one mask a draw for all rows.

An alray head has no mode and its batch norm is folded into its weights, so a pass with dropout is a pass through
thinned weights: nothing that scoring could change is there to be changed. A backbone with dropout layers of its own can
be asked instead, which takes its pictures and a forward pass a draw.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from alray.errors import StrategyError
from alray.models.head import Head
from alray.models.network import Network
from alray.ops import dropout, dropout_layers
from alray.strategies.base import Given, Strategy, as_tensor
from alray.table import Table

Where = Literal["hidden", "features", "backbone"]


class DropoutStrategy(Strategy):
    """A strategy that looks at `draws` passes of the head, each with its own share `dropout` of inputs left out."""

    needs: ClassVar[frozenset[str]] = frozenset({"features", "draws"})

    dropout: float = Field(0.5, lt=1)  # share of inputs that a pass leaves out; above 0
    draws: int = Field(20, ge=2, le=1000)  # passes
    where: Where = "hidden"  # of what: inputs of the last layer, of the head, or the backbone's layers, at their rates

    @property
    def wants(self) -> frozenset[str]:
        """A head and features, or pictures and the network."""
        return frozenset({"draws", "backbone+images"}) if self.where == "backbone" else self.needs

    @field_validator("dropout")
    @classmethod
    def _leaves_something_out(cls, value: float) -> float:
        if value <= 0:
            raise ValueError(
                f"is {value:g}, and passes that leave nothing out are all equal, so that all scores are 0: "
                "set a share above 0, such as 0.5"
            )
        return value

    def prepare(self, given: Given) -> dict[str, Any]:
        """Return the head, and the mask of each draw [S, P]; or the network, and what its masks are keyed by."""
        if self.where == "backbone":
            return {"network": self._with_layers(given.network), "key": (given.seed, self._purpose, given.round)}
        head = given.head
        assert head is not None  # the need `draws` is not met without one
        size = head.hidden_dim if self.where == "hidden" else head.dim
        masks_SP = dropout.masks(given.seed, self._purpose, given.round, draws=self.draws, size=size, rate=self.dropout)
        return {"head": head, "masks": masks_SP.numpy()}

    def passes(self, rows: Table, prepared: dict[str, Any]) -> Iterator[Tensor]:
        """Yield the logits of each draw, fp32 [N, C]."""
        if self.where == "backbone":
            pictures = rows["pictures"]
            module = prepared["network"].module(pictures.device)
            return dropout_layers.passes(module, pictures, self.draws, prepared["key"])
        head: Head = prepared["head"]
        features_ND = rows["features"]
        masks_SP = as_tensor(prepared["masks"], features_ND)
        if self.where == "features" and head.kind != "linear":
            return (head.logits(features_ND * mask_P) for mask_P in masks_SP)
        weight_CH, bias_C = (part.to(features_ND.device) for part in head.last)
        return dropout.logits(head.hidden(features_ND), masks_SP, weight_CH, bias_C)

    def whole(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        """Return the logits without dropout, fp32 [N, C]."""
        if self.where == "backbone":
            return dropout_layers.logits(prepared["network"].module(rows["pictures"].device), rows["pictures"])
        head: Head = prepared["head"]
        return head.logits(rows["features"])

    @property
    def _purpose(self) -> str:
        return f"{self.name} dropout"

    def _with_layers(self, network: Network | None) -> Network:
        assert network is not None  # the need `backbone+images` is not met without one
        if not dropout_layers.layers_of(network.module(torch.device("cpu"))):
            raise StrategyError(
                f"`{self.name}` with `where: backbone` needs dropout layers, and {network.backbone.backbone} has none "
                "with a rate above 0: all scores would be 0. Use `where: hidden`, or a backbone such as vgg16 or "
                "efficientnet_b0."
            )
        return network
