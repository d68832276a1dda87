"""Uncertainty against the hand table of five rows, and at the edges of the simplex."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alray.ops import probability

ROWS = {
    "A": (0.5, 0.5, 0),
    "B": (0.4, 0.3, 0.3),
    "C": (0.36, 0.33, 0.31),
    "D": (0.9, 0.05, 0.05),
    "E": (0.45, 0.45, 0.1),
}
P = torch.tensor(list(ROWS.values()))
TABLE = {
    "least_confidence": [0.5, 0.6, 0.64, 0.1, 0.55],
    "margin": [0, 0.1, 0.03, 0.85, 0],
    "entropy": [0.693147, 1.088900, 1.096720, 0.394398, 0.948915],
}


@pytest.mark.parametrize("name", TABLE)
def test_hand_table(name: str) -> None:
    np.testing.assert_allclose(getattr(probability, name)(P), TABLE[name], atol=1e-6)


def test_rankings_of_the_hand_table() -> None:
    def order(score: torch.Tensor) -> str:
        return "".join("ABCDE"[i] for i in torch.argsort(score, descending=True, stable=True))

    assert order(probability.least_confidence(P)) == "CBEAD"
    assert order(-probability.margin(P)) == "AECBD"
    assert order(probability.entropy(P)) == "CBEAD"


def test_two_classes_rank_alike_by_all_three() -> None:
    p_N = torch.linspace(0.5, 0.999, 50)
    probs_N2 = torch.stack([p_N, 1 - p_N], dim=1)
    for score in (probability.least_confidence(probs_N2), -probability.margin(probs_N2), probability.entropy(probs_N2)):
        assert (score.diff() < 0).all()


def test_the_margin_looks_at_the_two_largest_wherever_they_are() -> None:
    assert probability.margin(torch.tensor([[0.1, 0.5, 0.15, 0.25]]))[0] == pytest.approx(0.25)


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
def test_entropy_runs_from_zero_to_ln_of_the_classes(classes: int) -> None:
    uniform, certain = torch.full((1, classes), 1 / classes), torch.eye(classes)[:1]
    assert probability.entropy(uniform)[0] == pytest.approx(math.log(classes), rel=1e-5, abs=1e-7)
    assert probability.entropy(certain)[0] == 0


def test_saturated_logits_give_numbers() -> None:
    probs = torch.tensor([[200.0, -200, 0], [1e4, 1e4, -1e4], [-1e30, 1e30, 0]]).softmax(dim=1)
    for name in TABLE:
        assert torch.isfinite(getattr(probability, name)(probs)).all()


def test_one_class_is_certain() -> None:
    one = torch.ones(3, 1)
    assert probability.least_confidence(one).tolist() == [0] * 3
    assert probability.margin(one).tolist() == [1] * 3
    assert probability.entropy(one).tolist() == [0] * 3


def test_no_rows_give_no_scores() -> None:
    for name in TABLE:
        assert getattr(probability, name)(torch.zeros(0, 3)).shape == (0,)


def test_entropy_survives_flushing_of_the_smallest_numbers() -> None:
    torch.set_flush_denormal(True)
    try:
        assert probability.entropy(torch.tensor([[1.0, 0.0]]))[0] == 0
    finally:
        torch.set_flush_denormal(False)


def test_symmetric_kl_is_the_mean_of_both_divergences() -> None:
    rng = np.random.default_rng(0)
    one, other = 3 * rng.normal(size=(2, 200, 5))
    p, q = (np.exp(a) / np.exp(a).sum(axis=1, keepdims=True) for a in (one, other))
    expected = (p * np.log(p / q)).sum(axis=1) / 2 + (q * np.log(q / p)).sum(axis=1) / 2
    found = probability.symmetric_kl(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    hand = probability.symmetric_kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[float(np.log(3)), 0.0]]))
    assert hand.item() == pytest.approx(np.log(3) / 8)  # p = ½, ½ and q = ¾, ¼: ½ · ¼ (ln 3/2 + ln 2)


def test_symmetric_kl_of_saturated_and_of_equal_predictions_is_a_number() -> None:
    logits = torch.tensor([[1e4, 0.0, -1e4], [3.0, 3.0, 3.0]])
    found = probability.symmetric_kl(logits, logits.flip(dims=[1]))
    assert found.tolist() == [pytest.approx(2e4), 0.0]
    assert probability.symmetric_kl(logits, logits).tolist() == [0, 0]
