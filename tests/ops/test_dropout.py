"""Dropout draws: each against its own pass in NumPy, masks that are keyed, and rows that do not see each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray.ops import dropout


def drawn(seed: int = 0, **changes: object) -> torch.Tensor:
    return dropout.masks(seed, "test", 3, **{"draws": 20, "size": 50, "rate": 0.5, **changes})  # type: ignore[arg-type]


def test_masks_are_zero_or_what_keeps_the_mean() -> None:
    masks_SP = drawn(draws=400, size=500, rate=0.75)
    assert sorted(masks_SP.unique().tolist()) == [0, 4] and masks_SP.dtype == torch.float32
    assert (masks_SP == 0).double().mean() == pytest.approx(0.75, abs=0.005)
    assert masks_SP.double().mean() == pytest.approx(1, abs=0.02)


def test_masks_hang_on_seed_purpose_round_and_draw_alone() -> None:
    first = drawn()
    assert torch.equal(first, drawn()) and torch.equal(first, drawn(draws=30)[:20])
    others = [drawn(1), dropout.masks(0, "test", 4, draws=20, size=50, rate=0.5)]
    others.append(dropout.masks(0, "other", 3, draws=20, size=50, rate=0.5))
    assert not any(torch.equal(first, other) for other in others) and len(first.unique(dim=0)) == 20


@pytest.mark.parametrize("classes", [1, 2, 10, 700])
def test_logits_are_those_of_one_pass_a_draw(classes: int) -> None:
    """Explicit passes in NumPy; 700 classes make several products of matrices, 1 class makes one."""
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(33, 50)), rng.normal(size=(classes, 50)), rng.normal(size=classes)
    masks_SP = drawn()
    found = list(dropout.logits(*(torch.from_numpy(a).float() for a in (x,)), masks_SP, *map(_fp32, (weight, bias))))
    assert len(found) == 20
    for logits_NC, mask_P in zip(found, masks_SP.double().numpy(), strict=True):
        np.testing.assert_allclose(logits_NC, (x * mask_P) @ weight.T + bias, atol=2e-4)


def _fp32(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).float()


@pytest.mark.parametrize("rows", [1, 7, 100, 4096])
def test_a_row_has_the_same_bits_beside_any_others(rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x_ND, weight_CD = torch.randn(4100, 50, generator=generator), torch.randn(7, 50, generator=generator)
    masks_SP, bias_C = drawn(), torch.randn(7, generator=generator)
    whole = torch.stack(list(dropout.logits(x_ND, masks_SP, weight_CD, bias_C)))
    part = torch.stack(list(dropout.logits(x_ND[4:][:rows], masks_SP, weight_CD, bias_C)))
    assert torch.equal(part, whole[:, 4:][:, :rows])
