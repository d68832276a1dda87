"""ALFA-Mix's algorithm 1 as it was run, by brute force: every cap, every anchor, every row, nothing left out.

An oracle: a model is any function of features to logits, gradients are autograd's, Adam is torch's, and all is fp64.
It shares no code with alray.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Model = Callable[[Tensor], Tensor]
Weights = Callable[[int, int, float], np.ndarray]
"""(number of the cap, anchor, cap) → α of every row, [N, D]."""


@dataclass
class Found:
    """What the loop found: candidates and cap at its end, and of each row its first flip."""

    candidates_N: np.ndarray
    cap: float
    first_cap_N: np.ndarray  # ∞ where none
    least_norm_N: np.ndarray  # of the weights that flip it at that cap
    mixed_NC: np.ndarray  # logits of that mixture


@dataclass(frozen=True)
class Learning:
    """How weights are learned."""

    steps: int = 5
    lr: float = 0.1
    l2: float = 0.01
    keep: bool = False


def mlp(layers: Sequence[np.ndarray]) -> Model:
    """Return the function of a head given as (weight, bias) or (weight, bias, weight, bias)."""
    parts = [torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in layers]

    def logits(x_ND: Tensor) -> Tensor:
        out = x_ND @ parts[0].T + parts[1]
        return out if len(parts) == 2 else torch.relu(out) @ parts[2].T + parts[3]

    return logits


def loop(
    x: np.ndarray,
    model: Model,
    anchors: np.ndarray,
    caps: Sequence[float],
    budget: float,
    *,
    weights: Weights | None = None,
    learning: Learning | None = None,
    guard: float = 1e-8,
) -> Found:
    """Run the loop: caps grow until more than `budget` rows flip. Without `weights` α is the closed form's."""
    z = torch.from_numpy(np.asarray(x, dtype=np.float64))
    points = torch.from_numpy(np.asarray(anchors, dtype=np.float64))
    own = model(z)
    found = Found(*(np.zeros(len(z), bool), 0.0, np.full(len(z), np.inf), np.full(len(z), np.inf), own.numpy().copy()))
    for number, cap in enumerate(caps):
        found.cap = cap
        for at, anchor in enumerate(points):
            if weights is None:
                tried = [(closed_form(z, model, anchor, cap, guard), None)]
            else:
                start = torch.from_numpy(np.asarray(weights(number, at, cap), dtype=np.float64))
                tried = [(start, None)] if learning is None else learn(z, model, anchor, start, cap, learning)
            for alpha, _ in tried:
                note(found, model(alpha * anchor + (1 - alpha) * z), own, alpha, cap)
        if found.candidates_N.sum() > budget:
            break
    return found


def note(found: Found, mixed: Tensor, own: Tensor, alpha: Tensor, cap: float) -> None:
    """Enter the rows that one mixture flips."""
    flipped = (mixed.argmax(1) != own.argmax(1)).numpy()
    norm = alpha.norm(dim=1).numpy()
    now = flipped & ((found.first_cap_N == np.inf) | (found.first_cap_N == cap)) & (norm < found.least_norm_N)
    found.candidates_N |= flipped
    found.first_cap_N[now], found.least_norm_N[now], found.mixed_NC[now] = cap, norm[now], mixed.numpy()[now]


def closed_form(z: Tensor, model: Model, anchor: Tensor, cap: float, guard: float) -> Tensor:
    """Return ε ‖d‖ (g / ‖g‖) ⊘ (d + guard), ε = cap / √D, with autograd's gradient of the cross-entropy of y*."""
    leaf = z.clone().requires_grad_(True)
    logits = model(leaf)
    (g,) = torch.autograd.grad(cross_entropy(logits, logits.argmax(1), reduction="sum"), leaf)
    d, length = anchor - z, g.norm(dim=1, keepdim=True)
    u = torch.where(length > 0, g / length, 0.0)  # the official 0/0 where all hidden units are off is a defect
    return cap / z.shape[1] ** 0.5 * d.norm(dim=1, keepdim=True) * u / (d + guard)


def learn(
    z: Tensor, model: Model, anchor: Tensor, start: Tensor, cap: float, how: Learning
) -> list[tuple[Tensor, Tensor]]:
    """Return the weights that are tried, each with the weights after its step."""
    label = model(z).argmax(1)
    alpha = torch.nn.Parameter(start.clone())
    optimiser, out = torch.optim.Adam([alpha], lr=how.lr), []
    for step in range(how.steps):
        rate = how.lr if step < how.steps * 2 / 3 else how.lr * 0.1
        if how.keep:
            optimiser.param_groups[0]["lr"] = rate
        else:
            optimiser = torch.optim.Adam([alpha], lr=rate)
        before = alpha.detach().clone()
        loss = -cross_entropy(model(alpha * anchor + (1 - alpha) * z), label, reduction="none")
        optimiser.zero_grad()
        (loss + how.l2 * alpha.norm(dim=1)).sum().backward()
        optimiser.step()
        with torch.no_grad():
            alpha.clamp_(1e-8, cap)
        out.append((before, alpha.detach().clone()))
    return out
