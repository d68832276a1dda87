"""What strategies that ask a head several times share: dropout passes with one mask a draw for all rows.

An alray head has no mode and its batch norm is folded into its weights, so a pass with dropout is a pass through
thinned weights: nothing that scoring could change is there to be changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor

from alray.models.head import Head
from alray.ops import dropout
from alray.strategies.base import Given, Strategy, as_tensor


class DropoutStrategy(Strategy):
    """A strategy that looks at `draws` passes of the head, each with its own share `dropout` of inputs left out."""

    needs: ClassVar[frozenset[str]] = frozenset({"features", "draws"})

    dropout: float = Field(0.5, lt=1)  # share of inputs that a pass leaves out; above 0
    draws: int = Field(20, ge=2, le=1000)  # passes
    where: Literal["hidden", "features"] = "hidden"  # what is left out: inputs of the last layer, or of the head

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
        """Return the head, and the mask of each draw [S, P]."""
        head = given.head
        assert head is not None  # the need `draws` is not met without one
        size = head.hidden_dim if self.where == "hidden" else head.dim
        masks_SP = dropout.masks(
            given.seed, f"{self.name} dropout", given.round, draws=self.draws, size=size, rate=self.dropout
        )
        return {"head": head, "masks": masks_SP.numpy()}

    def passes(self, features_ND: Tensor, prepared: dict[str, Any]) -> Iterator[Tensor]:
        """Yield the logits of each draw, fp32 [N, C]."""
        head: Head = prepared["head"]
        masks_SP = as_tensor(prepared["masks"], features_ND)
        if self.where == "features" and head.kind != "linear":
            return (head.logits(features_ND * mask_P) for mask_P in masks_SP)
        weight_CH, bias_C = (part.to(features_ND.device) for part in head.last)
        return dropout.logits(head.hidden(features_ND), masks_SP, weight_CH, bias_C)
