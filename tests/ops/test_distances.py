"""Distances in the same bits wherever they are computed, against plain NumPy; P12, P13."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from alray.ops import distances
from alray.ops.distances import Euclidean, Gradient, Metric, SymmetricKL, compact, on_grid

CLASSES = 4


def rows(kind: str, count: int = 300, dim: int = 37, seed: int = 0) -> tuple[Metric, Tensor]:
    """Return a metric and points for it, some of them twice."""
    g = torch.Generator().manual_seed(seed)
    x_ND = torch.randn(count, dim, generator=g)
    x_ND[count // 2 : count // 2 + 20] = x_ND[:20]
    if kind == "symmetric_kl":
        return SymmetricKL(), (4 * x_ND).softmax(dim=1)
    return (Euclidean() if kind == "euclidean" else Gradient(CLASSES)), x_ND


KINDS = ["euclidean", "symmetric_kl", "gradient"]


def naive(kind: str, points_ND: Tensor) -> np.ndarray:
    """Return all squared distances by their definitions, fp64, one pair at a time."""
    x = points_ND.double().numpy()
    if kind == "symmetric_kl":
        p, log = x, np.log(np.maximum(x, 1e-12))
        kl = (p[:, None] * (log[:, None] - log)).sum(axis=2)
        return 0.5 * kl + 0.5 * kl.T
    if kind == "gradient":
        x = np.einsum("nc,nh->nch", x[:, :CLASSES], x[:, CLASSES:]).reshape(len(x), -1)
    return ((x[:, None] - x) ** 2).sum(axis=2)


@pytest.mark.parametrize("kind", KINDS)
def test_squared_distances_by_their_definitions(kind: str) -> None:
    metric, points_ND = rows(kind, 60, 23)
    placed = metric.place(points_ND)
    found = metric.squared(placed, placed).numpy()
    np.testing.assert_allclose(found, naive(kind, points_ND), rtol=2e-6, atol=2e-6)


def test_p12_the_factorised_distance_is_that_of_the_gradients() -> None:
    rng = np.random.default_rng(0)
    a, h = rng.integers(-512, 513, (5, 4)) / 256, rng.integers(-512, 513, (5, 7)) / 256  # on the grid as they are
    points = torch.from_numpy(np.concatenate([a, h], axis=1))
    placed = Gradient(4).place(points)
    assert torch.equal(placed.double(), points)
    np.testing.assert_allclose(Gradient(4).squared(placed, placed).numpy(), naive("gradient", points), atol=1e-12)


def test_p13_a_gradient_is_as_long_as_its_factors_multiplied() -> None:
    metric, points_ND = rows("gradient")
    own_N = metric.own(metric.place(points_ND)).sqrt()
    lengths_N = points_ND[:, :CLASSES].norm(dim=1) * points_ND[:, CLASSES:].norm(dim=1)
    torch.testing.assert_close(own_N, lengths_N.double(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [6, 37, 512])
def test_any_cut_gives_the_same_bits(kind: str, dim: int) -> None:
    metric, points_ND = rows(kind, 700, dim)
    placed = metric.place(points_ND)
    whole = metric.squared(placed, placed)
    assert torch.equal(whole, whole.T)
    for count in (1, 2, 16, 17, 300):
        for at, to in ((0, 3), (5, 1), (90, 400)):
            assert torch.equal(metric.place(points_ND[at : at + count]), placed[at : at + count])
            part = metric.squared(placed[at : at + count], placed[to : to + count])
            assert torch.equal(part, whole[at : at + count, to : to + count])
    backwards = metric.squared(placed.flip(0), placed)
    assert torch.equal(backwards.flip(0), whole)


@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_and_only_they_have_no_distance(kind: str) -> None:
    metric, points_ND = rows(kind)
    placed = metric.place(points_ND)
    same = (placed[:, None] == placed).all(dim=2)
    squared = metric.squared(placed, placed)
    assert (squared[same] == 0).all() and (squared[~same] > 0).all() and same.sum() == 300 + 2 * 20


@pytest.mark.parametrize("dim", [1, 2, 100, 512, 2048])
def test_every_product_of_two_rows_is_exact(dim: int) -> None:
    g = torch.Generator().manual_seed(dim)
    wild = torch.randn(6, dim, generator=g) * torch.logspace(-20, 20, dim)
    placed = on_grid(torch.cat([wild, torch.full((1, dim), 65504.0), torch.zeros(1, dim)]))
    for row in placed:
        for other in placed:
            exact = sum(
                (Fraction(a) * Fraction(b) for a, b in zip(row.tolist(), other.tolist(), strict=True)), Fraction()
            )
            assert Fraction(float(row.double() @ other.double())) == exact


def test_the_grid_is_fine() -> None:
    g = torch.Generator().manual_seed(0)
    halves = torch.randn(100, 512, generator=g).half()
    halves[halves.abs() < 0.01] = 0
    assert torch.equal(on_grid(halves), halves.float())
    x = torch.randn(100, 512, generator=g)
    assert ((on_grid(x) - x).abs() <= x.abs().amax(dim=1, keepdim=True) * 2.0**-22).all()


def test_rows_are_kept_in_fp16_where_that_loses_nothing() -> None:
    halves = torch.arange(6.0).reshape(2, 3)
    assert compact(halves).dtype == torch.float16 and compact(halves / 3).dtype == torch.float32


def test_a_class_that_is_ruled_out_is_far_but_not_infinitely() -> None:
    probs = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    placed = SymmetricKL().place(probs)
    found = SymmetricKL().squared(placed, placed)
    assert found[0, 1].item() == pytest.approx(-np.log(1e-12), rel=1e-6) and torch.isfinite(found).all()


def test_metrics_have_names_and_lengths() -> None:
    assert distances.metric("euclidean").length(4.0) == 2 and distances.metric("symmetric_kl").length(4.0) == 4
    assert distances.metric("gradient", 3) == Gradient(3)
