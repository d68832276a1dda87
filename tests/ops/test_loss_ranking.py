"""Learning loss: the ranking loss by hand, a module that learns an order, and the same bits each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from alray import seeds
from alray.ops import loss_ranking


def fit(**changes: Any) -> loss_ranking.Fit:
    plain = {"width": 16, "epochs": 60, "batch": 32, "lr": 1e-2, "weight_decay": 5e-4, "margin": 1.0}
    return loss_ranking.Fit(**{**plain, "seed": 0, "round": 1, **changes})


def rows(count: int = 200, dim: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows and a loss that is far from linear in them."""
    x_MD = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return x_MD, (x_MD[:, 0].square() + x_MD[:, 1].abs()).double()


def test_the_ranking_loss_by_hand() -> None:
    """ξ = 1. Right order by 2 → 0; right by 0.25 → 0.75; wrong by 1 → 2; equal losses say nothing."""
    predicted = torch.tensor([[3.0, 1.0], [1.0, 1.25], [0.0, 1.0], [9.0, 0.0]])
    loss = torch.tensor([[5.0, 2.0], [0.1, 0.2], [4.0, 3.0], [1.0, 1.0]])
    assert loss_ranking.pairwise(predicted, loss, 1.0) == pytest.approx((0 + 0.75 + 2) / 3)
    assert loss_ranking.pairwise(predicted, loss, 3.0) == pytest.approx((1 + 2.75 + 4) / 3)
    assert loss_ranking.pairwise(predicted[3:], loss[3:], 1.0) == 0


def test_the_ranking_loss_is_a_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    predicted, loss = rng.normal(size=(50, 2)), rng.integers(3, size=(50, 2)).astype(float)
    terms = []
    for (a, b), (x, y) in zip(predicted, loss, strict=True):
        if x != y:
            terms.append(max(0.0, 0.7 - (1 if x > y else -1) * (a - b)))
    found = loss_ranking.pairwise(torch.from_numpy(predicted), torch.from_numpy(loss), 0.7)
    assert found == pytest.approx(np.mean(terms))


def test_predictions_are_those_of_the_layers_in_numpy() -> None:
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(20, 5)), rng.normal(size=(20, 3))]
    layers = [(rng.normal(size=(4, 5)), rng.normal(size=4)), (rng.normal(size=(4, 3)), rng.normal(size=4))]
    top = rng.normal(size=(1, 8)), rng.normal(size=1)
    units = [np.maximum(x @ w.T + b, 0) for x, (w, b) in zip(levels, layers, strict=True)]
    expected = (np.concatenate(units, axis=1) @ top[0].T + top[1])[:, 0]
    tensors = [tuple(torch.from_numpy(part).float() for part in layer) for layer in [*layers, top]]
    found = loss_ranking.predict([torch.from_numpy(x).float() for x in levels], tensors)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_training_is_adam_with_decay_by_hand() -> None:
    """Nine steps of Loshchilov & Hutter's algorithm 2 in fp64, their rate half a cosine, from the same draws."""
    rng = np.random.default_rng(4)
    levels = [torch.from_numpy(3 + 2 * rng.normal(size=(21, dim))) for dim in (4, 3)]
    loss_M = torch.from_numpy(rng.integers(4, size=21) / 2)  # some are equal
    how = fit(width=6, epochs=3, batch=8, weight_decay=0.3, margin=0.7, seed=5, round=2)
    generator, centre = seeds.torch_generator(5, "loss module weights", 2), [x.mean(dim=0) for x in levels]
    scale = [float(((x - c) ** 2).mean() ** 0.5) for x, c in zip(levels, centre, strict=True)]
    first, second, top = (
        torch.empty(size).normal_(0, size[1] ** -0.5, generator=generator) for size in ((6, 4), (6, 3), (1, 12))
    )
    start = [first, torch.zeros(6), second, torch.zeros(6), top, torch.zeros(1)]
    parts = [part.double().requires_grad_() for part in start]
    mean, square, step = [torch.zeros_like(p) for p in parts], [torch.zeros_like(p) for p in parts], 0
    for epoch in range(3):
        order = seeds.generator(5, "loss module pairs", 2, epoch).permutation(21)[:20].reshape(-1, 2)
        for pairs in np.array_split(order, 3):
            inside = [(x - c) / s for x, c, s in zip(levels, centre, scale, strict=True)]
            units = [torch.relu(z @ w.T + b) for z, w, b in zip(inside, parts[0:4:2], parts[1:4:2], strict=True)]
            said = torch.cat(units, dim=1) @ parts[4][0] + parts[5]
            told = [(i, j) if loss_M[i] > loss_M[j] else (j, i) for i, j in pairs if loss_M[i] != loss_M[j]]
            over = [torch.relu(0.7 - said[i] + said[j]) for i, j in told]
            total = sum(over, 0 * said.sum()) / max(len(over), 1)
            rate, step = 1e-2 * (1 + np.cos(np.pi * step / 9)) / 2, step + 1
            for at, slope in enumerate(torch.autograd.grad(total, parts)):
                mean[at], square[at] = 0.9 * mean[at] + 0.1 * slope, 0.999 * square[at] + 0.001 * slope**2
                move = (mean[at] / (1 - 0.9**step)) / ((square[at] / (1 - 0.999**step)) ** 0.5 + 1e-8)
                with torch.no_grad():
                    parts[at] -= rate * (move + 0.3 * parts[at])
    found = how([x.float() for x in levels], loss_M)
    for at in range(2):
        weight = parts[2 * at] / scale[at]
        np.testing.assert_allclose(found[at][0], weight.detach(), atol=2e-5)
        np.testing.assert_allclose(found[at][1], (parts[2 * at + 1] - weight @ centre[at]).detach(), atol=1e-4)
    np.testing.assert_allclose(found[2][0], parts[4].detach(), atol=2e-5)
    assert float((found[2][0] - start[4]).abs().max()) > 0.02


@pytest.mark.parametrize("offset", [0.0, 10.0])
def test_it_learns_the_order_of_rows_that_it_has_not_seen(offset: float) -> None:
    x_MD, loss_M = rows(600)
    other_MD, other_M = rows(300, seed=1)
    layers = fit(width=32, epochs=100)([x_MD * 0.1 + offset], loss_M)
    predicted = loss_ranking.predict([other_MD * 0.1 + offset], layers)
    assert stats.spearmanr(predicted, other_M).statistic > 0.85


def test_a_second_level_is_looked_at() -> None:
    x_MD, loss_M = rows(400)
    noise_MD = torch.randn(400, 7, generator=torch.Generator().manual_seed(5))
    layers = fit()([noise_MD, x_MD], loss_M)
    assert stats.spearmanr(loss_ranking.predict([noise_MD, x_MD], layers), loss_M).statistic > 0.85
    assert [tuple(w.shape) for w, _ in layers] == [(16, 7), (16, 5), (1, 32)]


def test_the_same_seed_and_round_give_the_same_bits_and_others_do_not() -> None:
    x_MD, loss_M = rows(50)
    state = torch.random.get_rng_state()

    def weights(**changes: Any) -> bytes:
        return b"".join(t.numpy().tobytes() for layer in fit(epochs=3, **changes)([x_MD], loss_M) for t in layer)

    assert weights() == weights() and torch.equal(torch.random.get_rng_state(), state)
    changes: list[dict[str, Any]] = [{"seed": 1}, {"round": 2}, {"margin": 2.0}, {"lr": 1e-3}, {"batch": 8}]
    changes += [{"weight_decay": 0.5}]
    assert len({weights(), *(weights(**change) for change in changes)}) == 7


@pytest.mark.parametrize("count", [2, 3, 33])
def test_few_and_odd_rows(count: int) -> None:
    x_MD, loss_M = rows(count)
    layers = fit(epochs=30)([x_MD], loss_M)
    predicted = loss_ranking.predict([x_MD], layers)
    assert torch.isfinite(predicted).all()
    assert count > 2 or torch.equal(predicted.argsort(), loss_M.argsort())


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_rows_that_are_alike_give_numbers(value: float) -> None:
    layers = fit(epochs=3)([torch.full((10, 4), value)], torch.arange(10).double())
    assert torch.isfinite(loss_ranking.predict([torch.full((2, 4), value)], layers)).all()


def test_rows_do_not_see_each_other() -> None:
    x_MD, loss_M = rows(300)
    layers = fit(epochs=2)([x_MD], loss_M)
    whole = loss_ranking.predict([x_MD], layers)
    assert torch.equal(loss_ranking.predict([x_MD[40:57]], layers), whole[40:57])
