"""Coverage by balls: the greedy rule against counting everything anew, and the pure radius against all balls."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray.ops import coverage, kmeans


def units(rows: int, dim: int = 4, seed: int = 0) -> torch.Tensor:
    return kmeans.unit_rows(torch.from_numpy(np.random.default_rng(seed).normal(size=(rows, dim))))


def gaps(x: torch.Tensor) -> np.ndarray:
    """All distances in plain NumPy."""
    y = x.double().numpy()
    return np.sqrt(((y[:, None] - y[None]) ** 2).sum(axis=2))


def brute(x: torch.Tensor, radius: float, count: int, covered: np.ndarray) -> tuple[list[int], list[int]]:
    """Count what every row would cover anew, for every pick."""
    inside, covered = gaps(x) < radius, covered.copy()
    picks: list[int] = []
    gains: list[int] = []
    while len(picks) < count and not covered.all():
        anew = (inside & ~covered).sum(axis=1)
        picks.append(int(anew.argmax()))
        gains.append(int(anew.max()))
        covered |= inside[picks[-1]]
    return picks, gains


@pytest.mark.parametrize("radius", [0.05, 0.3, 0.7, 1.2, 2.5])
@pytest.mark.parametrize("labelled", [0, 5])
def test_lazy_greedy_is_the_greedy_that_counts_everything_anew(radius: float, labelled: int) -> None:
    for seed in range(4):
        x = units(300, seed=seed)
        covered = np.zeros(300, dtype=bool)
        if labelled:
            known = units(labelled, seed=99)
            covered = coverage.near(x, known, radius)
            y, z = x.double().numpy(), known.double().numpy()
            slow = (np.sqrt(((y[:, None] - z[None]) ** 2).sum(axis=2)) < radius).any(axis=1)
            assert (covered == slow).all()
        rows, gains = coverage.greedy(x, radius, 40, covered)
        assert (rows.tolist(), gains.tolist()) == brute(x, radius, 40, covered)


def test_each_pick_covers_the_most_that_any_row_could_and_less_than_the_one_before() -> None:
    x = units(200, seed=3)
    rows, gains = coverage.greedy(x, 0.4, 200)
    assert gains.sum() == 200 and (np.diff(gains) <= 0).all() and len(set(rows)) == len(rows)


def test_a_hand_example() -> None:
    # Angles in degrees; a ball of 15 degrees: 10 covers 0, 10, 20; then 50 covers 50, 60; then 90.
    angle = np.deg2rad([0, 10, 20, 50, 60, 90])
    x = kmeans.unit_rows(torch.from_numpy(np.c_[np.cos(angle), np.sin(angle)]))
    rows, gains = coverage.greedy(x, float(2 * np.sin(np.deg2rad(7.5))), 6)
    assert rows.tolist() == [1, 3, 5] and gains.tolist() == [3, 2, 1]


def test_at_the_radius_a_row_is_not_covered() -> None:
    x = kmeans.unit_rows(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))  # exactly 2 apart
    assert coverage.greedy(x, 2.0, 2)[1].tolist() == [1, 1]
    assert coverage.greedy(x, 2.0001, 2)[1].tolist() == [2]


def test_rows_that_are_alike_are_covered_by_one_of_them() -> None:
    rows, gains = coverage.greedy(units(1).repeat(20, 1), 0.01, 5)
    assert rows.tolist() == [0] and gains.tolist() == [20]
    assert coverage.greedy(units(3), 0.5, 5, np.ones(3, dtype=bool))[0].tolist() == []


@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_the_pure_radius_is_the_largest_of_all_sixty_fourths(share: float) -> None:
    for seed in range(5):
        x, label = units(150, 3, seed), np.random.default_rng(seed).integers(2, size=150)
        label = np.where(x[:, 0].numpy() > 0.3, 2, label) if seed % 2 else (x[:, 0].numpy() > 0).astype(int)
        inside = {k: gaps(x) < k / 64 for k in range(1, 64)}
        pure = [
            k for k, ball in inside.items() if ((ball & (label[:, None] != label)).sum(axis=1) == 0).mean() >= share
        ]
        found = coverage.pure_radius(x, torch.from_numpy(label), share)
        assert found == max(pure, default=1) / 64


def test_one_label_makes_every_ball_pure_and_twins_with_two_labels_none() -> None:
    assert coverage.pure_radius(units(30), torch.zeros(30, dtype=torch.int64), 0.95) == 63 / 64
    twins = units(15).repeat(2, 1)
    assert coverage.pure_radius(twins, torch.arange(30) // 15, 0.95) == 1 / 64
