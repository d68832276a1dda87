"""A row's result hangs on the row alone: not on how many stand beside it, nor on where it stands."""

from __future__ import annotations

import pytest
import torch

from alray.ops.affine import affine


def problem(rows: int, dim: int, columns: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, dim, generator=g),
        torch.randn(columns, dim, generator=g),
        torch.randn(columns, generator=g),
    )


@pytest.mark.parametrize("columns", [1, 2, 7, 10, 33, 100, 333])
@pytest.mark.parametrize("dim", [3, 24, 64, 512])
def test_any_cut_of_the_rows_gives_the_same_bits(dim: int, columns: int) -> None:
    x, weight, bias = problem(1100, dim, columns)
    whole = affine(x, weight, bias)
    for rows in (1, 2, 3, 5, 17, 64, 301):
        for at in (0, 1, 7, 100, 777):
            assert torch.equal(affine(x[at : at + rows], weight, bias), whole[at : at + rows])


@pytest.mark.parametrize("columns", [2, 3, 7, 15, 17, 100])
def test_equal_columns_have_equal_bits(columns: int) -> None:
    x, weight, bias = problem(100, 24, 1)
    found = affine(x, weight.repeat(columns, 1), bias.repeat(columns))
    assert (found == found[:, :1]).all()


def test_it_is_the_affine_map() -> None:
    x, weight, bias = problem(37, 24, 5)
    torch.testing.assert_close(affine(x, weight, bias, scale=-2), bias - 2 * x @ weight.T)
    assert affine(x[:0], weight, bias).shape == (0, 5)
