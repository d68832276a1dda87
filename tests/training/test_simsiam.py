"""SimSiam's formulas against their own words, and what its gradient must not do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from alray.models.backbone import BackboneConfig, load
from alray.training.simsiam import SimSiam, Spread, distance

NET = BackboneConfig(backbone="resnet8", image_size=8)


def simsiam(seed: int = 0) -> SimSiam:
    return SimSiam(load(NET, seed), dim=12, hidden=5, layers=2, seed=seed)


def views(rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.rand(2, rows, 3, 8, 8, generator=generator)
    return first, second


def test_the_distance_is_the_negative_cosine_of_each_row() -> None:
    rng = np.random.default_rng(0)
    p, z = rng.normal(size=(2, 7, 5))
    cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(p, z, strict=True)]
    found = distance(torch.from_numpy(p), torch.from_numpy(z))
    assert np.allclose(found, -np.array(cosines), atol=1e-6) and found.dtype == torch.float32


def test_the_target_gets_no_gradient_and_the_prediction_does() -> None:
    p, z = (torch.randn(4, 3, requires_grad=True) for _ in range(2))
    distance(p, z).sum().backward()
    assert z.grad is None and p.grad is not None and float(p.grad.abs().sum()) > 0


def test_the_loss_is_symmetric_and_made_of_the_parts() -> None:
    model, (first, second) = simsiam(), views()
    found, z1, z2 = model(first, second)
    swapped, *_ = model(second, first)
    assert torch.allclose(found, swapped, atol=1e-6) and not z1.requires_grad and not z2.requires_grad
    p1, p2 = model.predictor(z1), model.predictor(z2)
    by_hand = [
        -(torch.cosine_similarity(p1[i], z2[i], dim=0) + torch.cosine_similarity(p2[i], z1[i], dim=0)) / 2
        for i in range(len(first))
    ]
    assert torch.allclose(found, torch.stack(by_hand), atol=1e-5)


def test_the_gradient_is_that_of_the_two_predictions_alone() -> None:
    """With the targets replaced by constants of the same value, the backbone's gradient is the same."""
    model, (first, second) = simsiam(), views()
    loss, z1, z2 = model(first, second)
    loss.sum().backward()
    stem = model.body.body.conv1.weight
    found = stem.grad.clone()
    stem.grad = None
    p1, p2 = (model.predictor(model.projector(model.body(view))) for view in (first, second))
    by_hand = -0.5 * (torch.cosine_similarity(p1, z2) + torch.cosine_similarity(p2, z1))
    by_hand.sum().backward()
    assert torch.allclose(found, stem.grad, atol=1e-6) and float(found.abs().sum()) > 0


def test_the_new_layers_are_a_function_of_the_seed_and_leave_the_stream_alone() -> None:
    before = torch.default_generator.get_state()
    first, again, other = simsiam(), simsiam(), simsiam(1)
    assert torch.equal(torch.default_generator.get_state(), before)
    weights = [model.projector[0].weight for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def spread(*batches: Tensor) -> float | None:
    found = Spread(batches[0].shape[1])
    for batch in batches:
        found.add(batch)
    return Spread.of(found.sums)


def test_the_spread_is_0_in_one_point_and_1_on_the_whole_sphere() -> None:
    generator = torch.Generator().manual_seed(0)
    point = torch.randn(1, 64, generator=generator)
    assert spread(point.expand(100, 64)) == 0
    assert spread(point * torch.rand(100, 1, generator=generator)) == pytest.approx(0, abs=1e-6)  # one direction
    assert spread(torch.randn(4000, 64, generator=generator)) == pytest.approx(1, abs=0.01)
    assert spread(10 * point + torch.randn(4000, 64, generator=generator)) == pytest.approx(0.1, abs=0.02)


def test_the_spread_does_not_hang_on_how_rows_are_cut_and_drift_is_not_spread() -> None:
    z = torch.randn(4000, 16, generator=torch.Generator().manual_seed(1))
    assert spread(*z.split(8)) == pytest.approx(spread(z), abs=0.02)
    moving = torch.eye(16)[:10]  # every step in one point, but each in another
    assert spread(*(point.expand(8, 16) for point in moving)) == 0
    assert spread(z[:1]) is None
    two = [Spread(16), Spread(16)]
    two[0].add(z[:2000])
    two[1].add(z[2000:])
    assert Spread.of(two[0].sums + two[1].sums) == pytest.approx(spread(z[:2000], z[2000:]))


def test_the_spread_by_hand() -> None:
    z = torch.tensor([[3.0, 4.0], [0.0, 2.0], [-5.0, 0.0]])
    unit = np.array([[0.6, 0.8], [0, 1], [-1, 0]])
    assert spread(z) == pytest.approx(float(unit.std(0, ddof=1).mean() * np.sqrt(2)), rel=1e-6)
