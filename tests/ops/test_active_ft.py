"""ActiveFT's loss by hand and in plain NumPy, its gradient by finite differences, and who is most similar to whom."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from alray.ops import active_ft, kmeans
from alray.ops.active_ft import Recipe


def units(rows: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return kmeans.unit_rows(torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, dim))))


def total(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(parts)).sum()


def brute(x: np.ndarray, moving: np.ndarray, constant: np.ndarray, fixed: np.ndarray, recipe: Recipe) -> float:
    """The formula row by row; `constant` is the copy of the moving centroids whose gradient is not taken."""
    t, total = recipe.temperature, 0.0
    moving = moving / np.linalg.norm(moving, axis=1, keepdims=True)
    every = np.concatenate([constant / np.linalg.norm(constant, axis=1, keepdims=True), fixed])
    for row in x:
        j = int((every @ row).argmax())
        if j < len(moving):
            pull = np.exp(row @ moving[j] / t)
            total -= np.log(pull / (pull + recipe.balance * np.exp(every @ moving[j] / t).sum()))
    return total / len(x)


@pytest.mark.parametrize(("temperature", "balance"), [(1.0, 1.0), (0.3, 1.0), (0.5, 2.5)])
@pytest.mark.parametrize("labelled", [0, 3])
def test_the_loss_and_its_gradient(temperature: float, balance: float, labelled: int) -> None:
    recipe = Recipe(temperature=temperature, balance=balance)
    x, fixed = units(40).float(), units(labelled, seed=2).float()
    moving = (1.3 * units(5, seed=1).double()).requires_grad_()  # not of length 1: the loss takes directions
    loss = total(active_ft.loss_parts(x.double(), moving, fixed.double(), recipe))
    wide = [t.double().numpy() for t in (x, moving.detach(), fixed)]
    assert loss.item() == pytest.approx(brute(wide[0], wide[1], wide[1], wide[2], recipe), rel=1e-9)
    loss.backward()  # type: ignore[no-untyped-call]
    for at in np.ndindex(5, 4):
        step = np.zeros((5, 4))
        step[at] = 1e-6
        up, down = (brute(wide[0], wide[1] + s * step, wide[1], wide[2], recipe) for s in (1, -1))
        assert float(moving.grad[at]) == pytest.approx((up - down) / 2e-6, abs=1e-6)  # type: ignore[index]


def test_a_hand_example() -> None:
    # One row on its centroid, another centroid at a right angle that stays: ln(e + (e + 1)) − 1 at temperature 1.
    x, fixed = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    [part] = active_ft.loss_parts(x, x.clone(), fixed, Recipe(temperature=1.0))
    assert float(part) == pytest.approx(np.log(2 * np.e + 1) - 1, rel=1e-6)


def test_blocks_of_centroids_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x, c, fixed = units(90).float(), units(11, seed=1).float(), units(2, seed=2).float()
    whole = total(active_ft.loss_parts(x, c, fixed, Recipe())).item()
    monkeypatch.setattr(active_ft, "BLOCK", 4)
    parts = list(active_ft.loss_parts(x, c, fixed, Recipe()))
    assert len(parts) == 3 and total(parts).item() == pytest.approx(whole, rel=1e-6)


def test_a_small_temperature_does_not_overflow() -> None:
    parts = active_ft.loss_parts(units(20).float(), units(3).float(), units(2).float(), Recipe(temperature=1e-3))
    assert all(torch.isfinite(part) for part in parts)


def test_steps_lower_the_loss_and_leave_the_fixed_ones_alone() -> None:
    x, start, fixed = units(200, 6).float(), units(8, 6).float(), units(3, 6, seed=5)
    recipe = Recipe(rate=1e-2)
    moved = active_ft.optimised(x, start, fixed, recipe)
    assert torch.allclose(moved.norm(dim=1), torch.ones(8), atol=1e-5)
    before, after = (brute(x.numpy(), c.numpy(), c.numpy(), fixed.float().numpy(), recipe) for c in (start, moved))
    assert after < before
    assert torch.equal(active_ft.optimised(x, start, fixed, Recipe(steps=0)), torch.nn.functional.normalize(start))


def test_three_steps_are_those_of_adam_by_hand() -> None:
    """Kingma & Ba's algorithm 1 in NumPy, gradients by finite differences, back to length 1 after every step."""
    recipe = Recipe(temperature=0.3, balance=1.5, rate=0.02, steps=3)
    x, start, fixed = units(60).float(), units(4, seed=1).float(), units(2, seed=2).float()
    wide, moving, still = (
        (t / t.norm(dim=1, keepdim=True)).double().numpy() if t is not x else t.double().numpy()
        for t in (x, start, fixed)
    )
    mean, square = np.zeros_like(moving), np.zeros_like(moving)
    for step in range(1, 4):
        slope = np.zeros_like(moving)
        for at in np.ndindex(moving.shape):
            by = np.zeros_like(moving)
            by[at] = 1e-6
            up, down = (brute(wide, moving + s * by, moving, still, recipe) for s in (1, -1))
            slope[at] = (up - down) / 2e-6
        mean, square = 0.9 * mean + 0.1 * slope, 0.999 * square + 0.001 * slope**2
        move = (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        moving = moving - 0.02 * move
        moving /= np.linalg.norm(moving, axis=1, keepdims=True)
    found = active_ft.optimised(x, start, fixed, recipe)
    np.testing.assert_allclose(found.numpy(), moving, atol=1e-4)
    assert np.abs(found.numpy() - start.numpy()).max() > 0.02


def test_centroids_keep_away_from_labelled_rows() -> None:
    # Rows between two directions; a labelled row stands at one of them.
    angle = torch.linspace(0, torch.pi / 2, 50)
    x = torch.stack([angle.cos(), angle.sin()], dim=1)
    start, recipe = torch.tensor([[0.8, 0.6]]), Recipe(rate=1e-2)
    alone = active_ft.optimised(x, start, x[:0], recipe)
    beside = active_ft.optimised(x, start, x[:1], recipe)
    assert beside[0, 1] > alone[0, 1] + 0.02


def test_the_most_similar_rows_are_those_of_a_stable_sort() -> None:
    x, c = units(100), units(6, seed=1).float()
    x = torch.cat([x, x, units(1).repeat(30, 1)])  # many ties
    rank = torch.from_numpy(np.random.default_rng(0).permutation(230))
    rows, similarity = active_ft.most_similar(x, c, rank, 9)
    found = x.float().numpy() @ c.numpy().T
    for k in range(6):
        values = similarity[k].numpy()
        np.testing.assert_allclose(values, np.sort(found[:, k])[::-1][:9], rtol=1e-5, atol=1e-6)
        key = [(-float(v), int(rank[r])) for v, r in zip(values, rows[k], strict=True)]
        assert key == sorted(key) and len(set(rows[k].tolist())) == 9
        worst = values[-1]
        alike = [int(rank[r]) for r in range(230) if torch.equal(x[r], x[rows[k][-1]])]
        taken = [int(rank[r]) for r, v in zip(rows[k], values, strict=True) if v == worst]
        assert taken == sorted(alike)[: len(taken)]


def test_no_similarity_and_opposite_rows_are_in_order() -> None:
    x = torch.tensor([[-1.0, 0], [0, -1.0], [0, 1.0], [1.0, 0], [0, 0], [-0.5, 0.75]]).half()
    rows, similarity = active_ft.most_similar(x, torch.tensor([[1.0, 0.0]]), torch.tensor([0, 3, 2, 1, 4, 5]), 9)
    assert rows.tolist() == [[3, 2, 1, 4, 5, 0]] and similarity.tolist() == [[1, 0, 0, 0, -0.5, -1]]
