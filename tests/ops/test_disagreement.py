"""Disagreement of draws: mutual information against the hand vectors and a brute-force sum, and changed minds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alray.ops.disagreement import mismatches, mutual_information


def by_hand(probs_SNC: np.ndarray) -> np.ndarray:
    """Return mean KL(p_s ‖ mean p), an equal form of the mutual information, term by term."""
    draws, rows, classes = probs_SNC.shape
    out = np.zeros(rows)
    for n in range(rows):
        mean = probs_SNC[:, n].mean(axis=0)
        for s in range(draws):
            for c in range(classes):
                p = probs_SNC[s, n, c]
                out[n] += p * math.log(p / mean[c]) / draws if p > 0 else 0
    return out


def test_v5_two_passes_by_hand() -> None:
    """V5: (1,0)&(0,1) → ln 2; (.5,.5)&(.5,.5) → 0; (.9,.1)&(.7,.3) → 0.032429."""
    first, second = torch.tensor([(1, 0), (0.5, 0.5), (0.9, 0.1)]), torch.tensor([(0, 1), (0.5, 0.5), (0.7, 0.3)])
    found = mutual_information([first, second])
    np.testing.assert_allclose(found, [math.log(2), 0, 0.032429], atol=1e-6)
    assert found[1] == 0


@pytest.mark.parametrize(("draws", "classes", "sharpness"), [(20, 10, 1), (2, 3, 30), (7, 2, 5), (5, 1000, 3)])
def test_mutual_information_is_the_sum_term_by_term(draws: int, classes: int, sharpness: float) -> None:
    logits = torch.randn(draws, 6, classes, generator=torch.Generator().manual_seed(0)) * sharpness
    probs_SNC = logits.softmax(dim=2)
    np.testing.assert_allclose(mutual_information(probs_SNC), by_hand(probs_SNC.double().numpy()), atol=2e-6)


@pytest.mark.parametrize(("draws", "classes"), [(2, 10), (20, 3), (20, 20)])
@pytest.mark.parametrize("sharpness", [0.01, 1, 1e4])
def test_p22_mutual_information_lies_between_zero_and_the_logarithms(
    draws: int, classes: int, sharpness: float
) -> None:
    logits = torch.randn(draws, 500, classes, generator=torch.Generator().manual_seed(1)) * sharpness
    found = mutual_information(logits.softmax(dim=2))
    assert (found >= 0).all() and (found <= min(math.log(classes), math.log(draws)) + 1e-7).all()
    assert found.dtype == torch.float64


def test_p22_the_bounds_are_reached() -> None:
    sure = torch.eye(8)[:, None, :]
    assert mutual_information(sure)[0] == pytest.approx(math.log(8))
    assert mutual_information(sure[[0, 0, 1, 1]])[0] == pytest.approx(math.log(2))


@pytest.mark.parametrize("draws", [2, 3, 7, 20, 100])
def test_p23_equal_draws_give_exactly_zero(draws: int) -> None:
    """P23: what dropout 0 would score; a degenerate baseline shows as scores that are all 0, and not as noise."""
    probs_NC = (torch.randn(200, 10, generator=torch.Generator().manual_seed(2)) * 3).softmax(dim=1)
    assert (mutual_information([probs_NC] * draws) == 0).all()


def test_saturated_probabilities_one_class_and_no_rows() -> None:
    sharp = torch.tensor([[1e30, -1e30, 0], [0, 0, 0.0]]).softmax(dim=1)
    assert torch.isfinite(mutual_information([sharp, sharp.flip(0)])).all()
    assert mutual_information([torch.ones(4, 1)] * 3).tolist() == [0] * 4
    assert mutual_information([torch.zeros(0, 3)] * 2).shape == (0,)


def test_no_draws_are_refused_and_draws_are_left_as_they_are() -> None:
    with pytest.raises(ValueError, match="no draw"):
        mutual_information([])
    probs = [torch.tensor([[0.9, 0.1]], dtype=torch.float64), torch.tensor([[0.2, 0.8]], dtype=torch.float64)]
    mutual_information(probs)
    assert probs[0].tolist() == [[0.9, 0.1]] and probs[1].tolist() == [[0.2, 0.8]]


def test_mismatches_count_the_draws_that_name_another_class() -> None:
    rng = np.random.default_rng(0)
    whole, draws = rng.normal(size=(50, 4)), rng.normal(size=(6, 50, 4))
    found = mismatches(torch.from_numpy(whole), torch.from_numpy(draws))
    assert found.tolist() == [sum(int(d[n].argmax() != whole[n].argmax()) for d in draws) for n in range(50)]
    assert mismatches(torch.from_numpy(whole), [torch.from_numpy(whole)] * 3).sum() == 0


def test_a_row_that_overflows_in_one_draw_has_no_count() -> None:
    """argmax takes a logit that is no number for the largest: that is not another class."""
    whole = torch.tensor([[0.0, 1], [0, 1], [math.nan, 0], [0, math.inf]])
    draw = torch.tensor([[1.0, 0], [math.inf, -math.inf], [0, 1], [0, 1]])
    found = mismatches(whole, [draw, whole])
    assert found[0] == 1 and found[1:].isnan().all()
