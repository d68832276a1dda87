"""Moments are sums: of any parts, in any order, they say what the rows say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray.errors import ModelError
from alray.ops.moments import STD_FLOOR, Coordinates, Moments, add


def rows(count: int = 60, dim: int = 5, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    features_MD = torch.randn(count, dim, generator=generator).half()
    return features_MD, torch.randint(classes, (count,), generator=generator)


def assert_same(one: Moments, other: Moments, *, tolerance: float = 1e-12) -> None:
    for name in ("gram_DD", "sum_CD", "square_CD", "count_C"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance)


def test_moments_are_the_sums_of_the_rows() -> None:
    features_MD, target_M = rows()
    moments = Moments.of(features_MD, target_M, 4)
    exact = features_MD.double().numpy()
    np.testing.assert_allclose(moments.gram_DD, exact.T @ exact, rtol=1e-12, atol=1e-12)
    for c in range(4):
        mine = exact[target_M.numpy() == c]
        np.testing.assert_allclose(moments.sum_CD[c], mine.sum(axis=0), atol=1e-12)
        np.testing.assert_allclose(moments.square_CD[c], (mine**2).sum(axis=0), atol=1e-12)
    assert moments.count_C.tolist() == torch.bincount(target_M, minlength=4).tolist()
    assert (moments.rows, moments.dim, moments.classes) == (60, 5, 4)


def test_parts_add_up_in_any_order_and_stay_as_they_were() -> None:
    features_MD, target_M = rows()
    parts = [Moments.of(features_MD[a:b], target_M[a:b], 3) for a, b in ((0, 7), (7, 7), (7, 50), (50, 60))]
    before = parts[0].gram_DD.clone()
    whole = Moments.of(features_MD, target_M, 3)
    assert_same(add(parts), whole)
    assert_same(add(parts[::-1]), whole)
    assert_same(parts[2] + parts[0] + parts[3], whole)
    assert torch.equal(parts[0].gram_DD, before)


def test_more_rows_than_a_chunk_are_summed_too() -> None:
    features_MD, target_M = rows(9000, 2)
    assert_same(
        Moments.of(features_MD, target_M, 3), add([Moments.of(features_MD[i::2], target_M[i::2], 3) for i in (0, 1)])
    )


def test_a_read_only_array_is_taken_as_it_is() -> None:
    features_MD, target_M = rows()
    frozen = features_MD.numpy().copy()
    frozen.setflags(write=False)
    assert_same(Moments.of(frozen, target_M.numpy().astype(np.int32), 3), Moments.of(features_MD, target_M, 3))


def test_compact_leaves_out_classes_without_rows() -> None:
    features_MD, target_M = rows()
    assert_same(Moments.of(features_MD, target_M * 2 + 1, 9).compact(), Moments.of(features_MD, target_M, 3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_that_are_not_finite_are_refused(bad: float) -> None:
    features_MD, target_M = rows()
    features_MD[3, 1] = features_MD[8, 0] = bad
    with pytest.raises(ModelError, match="2 of 60 rows hold NaN or infinity; leave such rows out"):
        Moments.of(features_MD, target_M, 3)


def test_targets_that_do_not_fit_are_refused() -> None:
    features_MD, target_M = rows()
    with pytest.raises(ModelError, match=r"\(60, 5\) and targets of shape \(59,\) do not fit"):
        Moments.of(features_MD, target_M[1:], 3)
    with pytest.raises(ModelError, match="run from 0 to 2; expected 0 to 1"):
        Moments.of(features_MD, target_M, 2)
    with pytest.raises(ModelError, match="run from -1 to 1; expected 0 to 2"):
        Moments.of(features_MD, target_M - 1, 3)


def test_moments_of_other_sizes_cannot_be_added() -> None:
    with pytest.raises(ModelError, match=r"\(4, 3\), \(5, 3\) cannot be added"):
        Moments.none(5, 3) + Moments.none(4, 3)


def test_coordinates_are_those_of_all_rows_together() -> None:
    features_MD, _ = rows(9000, 4)
    features_MD[:, 2] = 7.0
    parts = Coordinates.of(features_MD[:100]) + Coordinates.of(features_MD[100:])
    exact = features_MD.double().numpy()
    assert parts.rows == 9000
    np.testing.assert_allclose(parts.mean_D, exact.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(parts.std_D, np.maximum(exact.std(axis=0), STD_FLOOR), rtol=1e-10)
    assert parts.std_D[2] == STD_FLOOR


def test_coordinates_of_no_rows_are_numbers() -> None:
    nothing = Coordinates.none(2)
    assert nothing.mean_D.tolist() == [0, 0] and nothing.std_D.tolist() == [STD_FLOOR] * 2
