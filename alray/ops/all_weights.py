"""All weights of a network as one long vector: slopes of its logits along a direction, gradients, and curvature.

A direction s has one number for each weight, in the order of `named_parameters`. One forward-mode pass gives the slope
of all logits of a batch along s, J s, without a gradient of any single picture. A network's batches of pictures of one
size are alike, the last filled up with blanks, so that a picture meets the same kernels whichever are beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from alray.ops.influence import surprise

BATCH = 64

SMALL = 2**14
"""Numbers of a picture in any layer up to which four batches go together: 16 MB. Each pass lays out all weights anew,
which a network of many weights and small maps feels; larger maps leave the cache and lose more than that."""

Weights = dict[str, Tensor]


def weights_of(module: nn.Module) -> Weights:
    """Return the module's weights and biases by name, those of its norms included, cut off from any graph."""
    return {name: weight.detach() for name, weight in module.named_parameters()}


def flat(weights: Weights) -> Tensor:
    """Return all weights one after the other, [P]."""
    return torch.cat([weight.reshape(-1) for weight in weights.values()])


def shaped(vector_P: Tensor, like: Weights) -> Weights:
    """Return a vector [P] in the shapes of `like`, each in memory of its own, as forward mode copies views."""
    parts = torch.split(vector_P, [weight.numel() for weight in like.values()])
    return {name: part.view_as(like[name]).clone() for name, part in zip(like, parts, strict=True)}


def decayed(weights: Weights) -> Tensor:
    """Return 1 for each weight that L2 falls on and 0 for biases and norms, [P]: tensors of two dimensions or more."""
    return torch.cat([torch.full((weight.numel(),), float(weight.dim() > 1)) for weight in weights.values()])


def along(module: nn.Module, direction_P: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits and their slopes J s, both fp32 [N, C], of pictures [N, …], by forward-mode differentiation.

    The module must be in evaluation mode. Costs about three forward passes, whatever the number of classes.
    """
    weights = weights_of(module)
    direction = shaped(direction_P, weights)
    rows = _together(module, pictures)
    found = [_along(module, weights, direction, _filled(batch, rows)) for batch in torch.split(pictures, rows)]
    logits_NC, slope_NC = torch.cat([logits for logits, _ in found]), torch.cat([slope for _, slope in found])
    return logits_NC[: len(pictures)], slope_NC[: len(pictures)]


def _along(module: nn.Module, weights: Weights, direction: Weights, batch: Tensor) -> tuple[Tensor, Tensor]:
    with torch.no_grad(), differentiable():
        found = jvp(lambda w: functional_call(module, w, (batch,)), (weights,), (direction,))
    return found[0], found[1]


def gradient(module: nn.Module, pictures: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
    """Return Σ wᵢ ∇ℓᵢ over all weights, fp64 [P]: a running sum, in which no picture's own gradient is kept."""
    weights, total_P = _leaves(module)
    for batch, label, weight in _batches(pictures, label_N, weight_N):
        with differentiable():
            logits = functional_call(module, weights, (batch,))
            slope = weight[:, None] * surprise(logits.detach(), label)
            total_P += _pulled(logits, slope, weights)
    return total_P


def gauss_newton(module: nn.Module, direction_P: Tensor, pictures: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
    """Return Σ wᵢ Jᵢᵀ(diag pᵢ − pᵢpᵢᵀ)Jᵢ s, fp64 [P]: the Hessian without the second derivatives of the logits.

    It never curves downwards, and does not look at the labels.
    """
    weights, total_P = _leaves(module)
    direction = shaped(direction_P, weights)
    for batch, _, weight in _batches(pictures, label_N, weight_N):
        _, slope = _along(module, weights_of(module), direction, batch)
        with differentiable():
            logits = functional_call(module, weights, (batch,))
            p = logits.detach().softmax(dim=1)
            turned = weight[:, None] * p * (slope - (p * slope).sum(dim=1, keepdim=True))
            total_P += _pulled(logits, turned, weights)
    return total_P


def hessian(module: nn.Module, direction_P: Tensor, pictures: Tensor, label_N: Tensor, weight_N: Tensor) -> Tensor:
    """Return Σ wᵢ ∇²ℓᵢ s, fp64 [P], exact, by differentiating the gradient along s; it may curve downwards."""
    weights, total_P = _leaves(module)
    leaves = list(weights.values())
    for batch, label, weight in _batches(pictures, label_N, weight_N):
        with differentiable():
            losses = F.cross_entropy(functional_call(module, weights, (batch,)), label, reduction="none")
            slopes = torch.autograd.grad((weight * losses).sum(), leaves, create_graph=True, materialize_grads=True)
            total_P += _pulled(torch.cat([slope.reshape(-1) for slope in slopes]), direction_P, weights)
    return total_P


CURVATURES: Mapping[str, Callable[[nn.Module, Tensor, Tensor, Tensor, Tensor], Tensor]] = MappingProxyType(
    {"gauss_newton": gauss_newton, "exact": hessian}
)
"""Products with the curvature of the summed loss: of (module, direction, pictures, labels, row weights)."""


def _leaves(module: nn.Module) -> tuple[Weights, Tensor]:
    """Return the weights as leaves of a graph to come, and zeros to sum up in, fp64 [P]."""
    weights = {name: weight.requires_grad_() for name, weight in weights_of(module).items()}
    first = next(iter(weights.values()))
    count = sum(weight.numel() for weight in weights.values())
    return weights, torch.zeros(count, dtype=torch.float64, device=first.device)


def _batches(pictures: Tensor, label_N: Tensor, weight_N: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    pieces, labels, weights = (torch.split(column, BATCH) for column in (pictures, label_N, weight_N))
    yield from zip(pieces, labels, weights, strict=True)


def _pulled(out: Tensor, slope: Tensor, weights: Weights) -> Tensor:
    """Return Jᵀ·slope of `out`, [P]."""
    found = torch.autograd.grad(out, list(weights.values()), slope, materialize_grads=True)
    return torch.cat([part.reshape(-1) for part in found])


def _together(module: nn.Module, pictures: Tensor) -> int:
    """Return how many pictures [N, …] one pass takes: by network and picture size alone, whatever N is."""
    sizes = [math.prod(pictures.shape[1:])]

    def see(part: nn.Module, given: object, out: object) -> None:
        if isinstance(out, Tensor):
            sizes.append(out.numel())

    with ExitStack() as stack:
        for part in module.modules():
            stack.callback(part.register_forward_hook(see).remove)
        with torch.no_grad(), differentiable():
            module(pictures.new_zeros(1, *pictures.shape[1:]))
    return BATCH if max(sizes) > SMALL else 4 * BATCH


def _filled(batch: Tensor, rows: int) -> Tensor:
    missing = rows - len(batch)
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch


@contextmanager
def differentiable() -> Iterator[None]:
    """Choose kernels that can be differentiated forwards and twice, and that round alike on every call."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        )
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
