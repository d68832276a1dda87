"""Potential-energy descent on sums, against the same descent made with the rows in hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alray.ops.logme import logme
from alray.ops.moments import Coordinates, Moments
from alray.ops.ped import STEPS, descend, moved, pushes
from alray.proxy.evidence import measure

PLAIN = Coordinates(1, torch.zeros(2).double(), torch.ones(2).double())  # mean 0, deviation 1

Rows = tuple[torch.Tensor, torch.Tensor]


def two_classes() -> Rows:
    """Return two classes with means (1, 0) and (−1, 0), each of radius 1."""
    return torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]).double(), torch.tensor([0, 0, 1, 1])


def clusters(gap: float = 0.5, classes: int = 5, dim: int = 7) -> Rows:
    rng = np.random.default_rng(4)
    target = rng.integers(classes, size=90)
    scale = rng.uniform(0.2, 5, size=dim)
    rows = (rng.normal(size=(classes, dim))[target] * gap + rng.normal(size=(90, dim))) * scale + 3
    return torch.from_numpy(rows), torch.from_numpy(target)


def by_rows(rows: np.ndarray, target: np.ndarray, mean: np.ndarray, std: np.ndarray, nsigma: float = 0.6) -> np.ndarray:
    """Return the moved rows: standardise, then move every row of each class, step by step and pair by pair."""
    at, first = (rows - mean) / std, None
    for _ in range(6):
        names = sorted(set(target.tolist()))
        centre = {c: at[target == c].mean(axis=0) for c in names}
        radius = {c: math.sqrt(at[target == c].var(axis=0).sum()) for c in names}
        delta = {c: np.zeros(at.shape[1]) for c in names}
        for i in names:
            for j in names:
                apart = centre[i] - centre[j]
                length = np.linalg.norm(apart)
                force = max(nsigma * (radius[i] + radius[j]) - length, 0)
                if i != j and length > 0:
                    delta[i] += apart / length * min(0.5 * 0.1**2 * force, force)
        change = sum(float(np.abs(d).sum()) for d in delta.values())
        first = change if first is None else first
        if change <= 0.5 * first:
            break
        at = at + np.stack([delta[c] for c in target.tolist()])
    return at * std + mean


def assert_same(one: Moments, other: Moments, tolerance: float = 1e-12) -> None:
    for name in ("gram_DD", "sum_CD", "square_CD", "count_C"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=tolerance, atol=tolerance)


def test_two_classes_by_hand() -> None:  # V7
    moments = Moments.of(*two_classes(), 2)
    mean_CD, radius_C, changes = torch.tensor([[1.0, 0], [-1, 0]]).double(), torch.ones(2).double(), []
    for _ in range(STEPS):
        delta_CD = pushes(mean_CD, radius_C, time=0.1, nsigma=2.0, pull=1.0)
        changes.append(float(delta_CD.abs().sum()))
        mean_CD = mean_CD + delta_CD
    assert changes[0] == pytest.approx(0.02, abs=1e-12)
    np.testing.assert_allclose(
        np.array(changes) / changes[0], [1, 0.99, 0.9801, 0.970299, 0.960596, 0.950990], atol=1e-6
    )
    found = descend(moments, PLAIN, nsigma=2.0)
    assert found.steps == 6 and found.shift == pytest.approx(2 * 0.058520, abs=1e-5)
    np.testing.assert_allclose(found.moments.sum_CD / 2, [[1.058520, 0], [-1.058520, 0]], atol=1e-6)


def test_classes_that_do_not_overlap_stay() -> None:  # V7, P32
    moments = Moments.of(*two_classes(), 2)
    found = descend(moments, PLAIN, nsigma=0.6)
    assert found.moments is moments and (found.steps, found.shift) == (0, 0.0)
    evidence = measure(moments, PLAIN)
    assert evidence.logme == evidence.logme_ped == logme(moments).score


@pytest.mark.parametrize("nsigma", [0.3, 0.6, 2.0])
def test_sums_move_as_the_rows_do(nsigma: float) -> None:  # P31
    rows_MD, target_M = clusters()
    general = Coordinates.of(torch.cat([rows_MD, rows_MD * 2 + 1]))
    found = descend(Moments.of(rows_MD, target_M, 5), general, nsigma=nsigma)
    mean, std = general.mean_D.numpy(), general.std_D.numpy()
    expected = by_rows(rows_MD.numpy(), target_M.numpy(), mean, std, nsigma)
    assert found.steps > 0
    assert_same(found.moments, Moments.of(torch.from_numpy(expected), target_M, 5))
    for c in range(5):  # the shift is not a rounding: it is seen in the rows, save where a class overlaps with no other
        step = expected[target_M.numpy() == c] - rows_MD.numpy()[target_M.numpy() == c]
        assert np.abs(step).max() > 1e-3 or nsigma == 0.3


def test_what_pairs_move_cancels() -> None:  # P29
    mean_CD = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)).double()
    delta_CD = pushes(mean_CD, torch.linspace(1, 4, 9).double(), time=0.1, nsigma=0.6, pull=1.0)
    assert float(delta_CD.abs().max()) > 1e-3
    torch.testing.assert_close(delta_CD.sum(dim=0), torch.zeros(4).double(), rtol=0, atol=1e-13)


def test_the_scatter_within_a_class_stays() -> None:  # P30
    rows_MD, target_M = clusters()
    before = Moments.of(rows_MD, target_M, 5)
    after = descend(before, Coordinates.of(rows_MD)).moments

    def scatter(moments: Moments) -> torch.Tensor:
        mean_CD = moments.sum_CD / moments.count_C[:, None]
        return moments.square_CD / moments.count_C[:, None] - mean_CD.square()

    assert not torch.allclose(before.sum_CD, after.sum_CD)
    torch.testing.assert_close(scatter(after), scatter(before), rtol=1e-9, atol=1e-9)
    between = torch.einsum("cd,ce->de", before.sum_CD / before.count_C[:, None], before.sum_CD)
    between_after = torch.einsum("cd,ce->de", after.sum_CD / after.count_C[:, None], after.sum_CD)
    torch.testing.assert_close(after.gram_DD - between_after, before.gram_DD - between, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("stop", "steps", "at"), [(0.7, 1, 1.4), (0.5, 2, 1.64), (0.3, 3, 1.784)])
def test_no_step_moves_less_than_a_share_of_the_first(stop: float, steps: int, at: float) -> None:
    """Each class takes a fifth of the overlap a step: 2, 1.2, 0.72, 0.432 are left, and the steps shrink alike."""
    found = descend(Moments.of(*two_classes(), 2), PLAIN, nsigma=2.0, time=math.sqrt(0.4), stop=stop)
    assert found.steps == steps and found.shift == pytest.approx(2 * (at - 1))
    np.testing.assert_allclose(found.moments.sum_CD / 2, [[at, 0], [-at, 0]], atol=1e-12)


def test_no_step_is_longer_than_the_overlap() -> None:
    mean_CD = torch.tensor([[0.5, 0], [-0.5, 0]]).double()
    delta_CD = pushes(mean_CD, torch.ones(2).double(), time=100.0, nsigma=0.6, pull=1.0)
    torch.testing.assert_close(delta_CD, torch.tensor([[0.2, 0], [-0.2, 0]]).double())  # 0.6 · 2 − 1


def test_equal_class_means_do_not_push_each_other() -> None:
    rows_MD = torch.tensor([[1.0, 1], [-1, -1], [1, -1], [-1, 1]]).double()
    found = descend(Moments.of(rows_MD, torch.tensor([0, 0, 1, 1]), 2), PLAIN, nsigma=2.0)
    assert found.steps == 0 and bool(torch.isfinite(found.moments.gram_DD).all())
    third = torch.cat([rows_MD, torch.tensor([[1.0, 0], [1.5, 0]]).double()])
    found = descend(Moments.of(third, torch.tensor([0, 0, 1, 1, 2, 2]), 3), PLAIN, nsigma=2.0)
    assert found.steps > 0 and bool(torch.isfinite(found.moments.gram_DD).all())
    assert found.moments.sum_CD[0].tolist() == found.moments.sum_CD[1].tolist()  # side by side, away from the third


def test_absent_classes_stay_absent() -> None:
    rows_MD, target_M = clusters()
    general = Coordinates.of(rows_MD)
    apart = descend(Moments.of(rows_MD, target_M * 2, 10), general)
    assert float(apart.moments.sum_CD[1::2].abs().max()) == 0
    close = descend(Moments.of(rows_MD, target_M, 5), general)
    assert_same(apart.moments.compact(), close.moments)
    assert (apart.steps, apart.shift) == (close.steps, close.shift)


def test_one_row_a_class_has_no_radius_and_stays() -> None:
    moments = Moments.of(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.arange(4), 4)
    assert descend(moments, Coordinates(1, torch.zeros(3).double(), torch.ones(3).double())).steps == 0


def test_a_single_class_has_nothing_to_push_against() -> None:
    rows_MD, _ = clusters()
    assert descend(Moments.of(rows_MD, torch.zeros(90, dtype=torch.int64), 1), Coordinates.of(rows_MD)).steps == 0


def test_moving_by_nothing_changes_nothing() -> None:
    rows_MD, target_M = clusters()
    moments = Moments.of(rows_MD, target_M, 5)
    assert_same(moved(moments, torch.zeros(5, 7).double()), moments, tolerance=0)
