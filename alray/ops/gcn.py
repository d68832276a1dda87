"""A graph convolution network that tells labelled rows from unlabelled ones (Caramalau, Bhattarai & Kim, CVPR 2021).

The graph's weights are inner products of unit rows, negative ones taken as none, and a node's own weight is one beside
the rest of its column, which adds up to one. Products with it are made block by block; where no coordinate is negative,
as behind a ReLU, they are two thin products and the n × n weights are never made. Thin products subtract what a node
weighs to itself, of which a node with few neighbours has little else: so they are in fp64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

BLOCK = 1024
"""Rows of the graph that one tensor holds."""

LEAST = 1e-12
"""Up to this sum of weights a node has no neighbours."""

ROUNDING = 1e-10
"""Up to this share of ‖x‖·‖Σx‖ a sum of weights by thin products is what fp64 left of them, and none."""


class Graph:
    """A = S D⁻¹ + I of unit rows x: S_ij = max(x_i·x_j, 0) without the diagonal, D its column sums.

    A column without weights stays empty in S D⁻¹. What is multiplied is fp32, [N, K].
    """

    def __init__(self, units_ND: Tensor) -> None:
        self._thin = bool((units_ND >= 0).all())
        self._x_ND = units_ND.double() if self._thin else units_ND.float()
        self._own_N1 = self._x_ND.square().sum(dim=1, keepdim=True)
        self._blocks = [] if self._thin else [self._block(at) for at in range(0, len(self._x_ND), BLOCK)]
        degree_N1 = self._weigh(torch.ones(len(self._x_ND), 1).to(self._x_ND))
        none_N1 = ROUNDING * self._own_N1.sqrt() * self._x_ND.sum(dim=0).norm() if self._thin else LEAST
        self._share_N1 = torch.where(degree_N1 > none_N1, 1 / degree_N1, 0.0)

    def __matmul__(self, values_NK: Tensor) -> Tensor:
        """Return A·values, [N, K]."""
        return self._weigh(values_NK * self._share_N1).to(values_NK) + values_NK

    def back(self, values_NK: Tensor) -> Tensor:
        """Return Aᵀ·values, [N, K]."""
        return (self._weigh(values_NK.to(self._x_ND)) * self._share_N1).to(values_NK) + values_NK

    def _weigh(self, values_NK: Tensor) -> Tensor:
        """Return S·values, which is Sᵀ·values."""
        if self._thin:
            return self._x_ND @ (self._x_ND.T @ values_NK) - self._own_N1 * values_NK
        return torch.cat([block_bN @ values_NK for block_bN in self._blocks])

    def _block(self, start: int) -> Tensor:
        block_bN = (self._x_ND[start : start + BLOCK] @ self._x_ND.T).clamp_min(0)
        block_bN[torch.arange(len(block_bN)), torch.arange(start, start + len(block_bN))] = 0
        return block_bN


class _Spread(torch.autograd.Function):
    """A·values, with a gradient for the values alone."""

    @staticmethod
    def forward(ctx: Any, values_NK: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        return graph @ values_NK

    @staticmethod
    def backward(ctx: Any, *grads_NK: Tensor) -> tuple[Tensor, None]:
        grad_NK: Tensor = ctx.graph.back(grads_NK[0])
        return grad_NK, None


@dataclass(frozen=True)
class Weights:
    """Two layers: D → H, and H → 1."""

    first_DH: Tensor
    bias_H: Tensor
    second_H1: Tensor
    bias_1: Tensor

    @staticmethod
    def drawn(size: int, hidden: int, generator: torch.Generator) -> Weights:
        """Return uniform weights of at most 1/√(columns), as Kipf & Welling draw them."""

        def uniform(*shape: int) -> Tensor:
            return (2 * torch.rand(*shape, generator=generator) - 1) / math.sqrt(shape[-1])

        return Weights(uniform(size, hidden), uniform(hidden), uniform(hidden, 1), uniform(1))

    def all(self) -> list[Tensor]:
        """Return the tensors."""
        return [self.first_DH, self.bias_H, self.second_H1, self.bias_1]


@dataclass(frozen=True)
class Recipe:
    """How the network is trained: Adam over the whole graph at once."""

    hidden: int = 128
    epochs: int = 200
    rate: float = 1e-3
    decay: float = 5e-4
    dropout: float = 0.3
    weight: float = 1.2  # of the unlabelled nodes' loss


def hidden(spread_ND: Tensor, weights: Weights) -> Tensor:
    """Return the hidden activations ReLU(A X W₁ + b₁), [N, H], of `spread` = A X."""
    return torch.addmm(weights.bias_H, spread_ND, weights.first_DH).relu()


def logits(hidden_NH: Tensor, graph: Graph, weights: Weights) -> Tensor:
    """Return A h W₂ + b₂, [N]; its sigmoid is how labelled a node looks."""
    spread_N1: Tensor = _Spread.apply(hidden_NH @ weights.second_H1, graph)  # type: ignore[no-untyped-call]
    return (spread_N1 + weights.bias_1)[:, 0]


def loss(logit_N: Tensor, labelled_N: Tensor, weight: float) -> Tensor:
    """Return −mean ln s over the labelled nodes − weight · mean ln(1 − s) over the others; there must be both."""
    return -logsigmoid(logit_N[labelled_N]).mean() - weight * logsigmoid(-logit_N[~labelled_N]).mean()


def fit(units_ND: Tensor, labelled_N: Tensor, recipe: Recipe, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return each node's score in (0, 1), high where it looks labelled, [N], and its hidden activations, [N, H].

    Trains with `generator`'s numbers for the weights and for dropout on the hidden activations.
    """
    graph = Graph(units_ND)
    spread_ND = graph @ units_ND.float()
    weights = Weights.drawn(units_ND.shape[1], recipe.hidden, generator)
    for tensor in weights.all():
        tensor.requires_grad_()
    adam = torch.optim.Adam(weights.all(), lr=recipe.rate, weight_decay=recipe.decay)
    for _ in range(recipe.epochs):
        hidden_NH = hidden(spread_ND, weights)
        kept_NH = torch.rand(hidden_NH.shape, generator=generator) >= recipe.dropout
        adam.zero_grad()
        logit_N = logits(hidden_NH * kept_NH / (1 - recipe.dropout), graph, weights)
        loss(logit_N, labelled_N, recipe.weight).backward()  # type: ignore[no-untyped-call]
        adam.step()
    with torch.no_grad():
        hidden_NH = hidden(spread_ND, weights)
        return logits(hidden_NH, graph, weights).sigmoid(), hidden_NH
