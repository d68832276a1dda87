"""LogME against the Gaussian density, an example by hand, the official iteration, and itself where nothing changes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from direct_evidence import clusters, density, direct

from alray.ops.logme import LEAST, LogME, Spectrum, logme
from alray.ops.moments import Moments

V6 = torch.tensor([[1.0, 0], [0, 1], [1, 1], [2, 1], [0, 2], [1, -1]]), torch.tensor([0, 1, 1, 0, 1, 0])
SHAPES = {"n > D": (120, 16, 16), "n < D": (60, 90, 90), "rank-deficient": (80, 24, 9), "n < D, deficient": (30, 50, 7)}


def official(features: np.ndarray, y: np.ndarray) -> tuple[float, float, float, int]:
    """Return (evidence, α, β, rank) as published: with its floors, its eleven steps and its determinant."""
    count, dim = features.shape
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    left, sigma = left[:, singular > 1e-9], singular[singular > 1e-9] ** 2
    x2 = (left.T @ y) ** 2
    rest = y @ y - x2.sum()
    alpha = beta = 1.0
    for _ in range(11):
        t = alpha / beta
        gamma = (sigma / (sigma + t)).sum()
        m2, r2 = (sigma * x2 / (t + sigma) ** 2).sum(), (x2 / (1 + sigma / t) ** 2).sum() + rest
        alpha, beta = gamma / (m2 + 1e-5), (count - gamma) / (r2 + 1e-5)
        if abs(alpha / beta - t) / t <= 1e-3:
            break
    t = alpha / beta
    m2, r2 = (sigma * x2 / (t + sigma) ** 2).sum(), (x2 / (1 + sigma / t) ** 2).sum() + rest
    half = dim * math.log(alpha) + count * math.log(beta / (2 * math.pi)) - beta * r2 - alpha * m2
    return (half - np.log(alpha + beta * sigma).sum()) / 2 / count, alpha, beta, len(sigma)


def of(features_MD: torch.Tensor, target_M: torch.Tensor, *, normalise: bool = True) -> LogME:
    return logme(Moments.of(features_MD, target_M, int(target_M.max()) + 1), normalise=normalise)


def score(features_MD: torch.Tensor, target_M: torch.Tensor) -> float:
    found = of(features_MD, target_M).score
    assert found is not None
    return found


def test_the_small_example_by_hand() -> None:  # V6
    found = of(*V6, normalise=False)
    np.testing.assert_allclose(found.per_class, [-0.809482, -0.943068], atol=1e-6)
    np.testing.assert_allclose(found.alpha, [5.734, 10.49], rtol=1e-3)
    np.testing.assert_allclose(found.beta, [7.359, 4.046], rtol=1e-3)
    assert found.score == pytest.approx(-0.876275, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_the_evidence_is_the_gaussian_density_at_any_alpha_and_beta(shape: tuple[int, int, int]) -> None:  # P25
    features_MD, target_M = clusters(*shape)
    spectrum = Spectrum.of(Moments.of(features_MD, target_M, 4), normalise=False)
    for alpha, beta in ((1.0, 1.0), (0.25, 40.0), (700.0, 0.5), (2**-6, 100), (50.0, 9.0)):
        found_C = spectrum.log_evidence(torch.full((4,), alpha).double(), torch.full((4,), beta).double())
        for c in range(4):
            y = (target_M.numpy() == c).astype(float)
            assert float(found_C[c]) == pytest.approx(density(features_MD.numpy(), y, alpha, beta), rel=1e-8)


def test_the_official_evidence_is_wrong_where_rows_are_fewer_than_features() -> None:  # P25
    features_MD, target_M = clusters(60, 512, 512)
    assert abs(np.mean([official(features_MD.numpy(), (target_M.numpy() == c) * 1.0)[0] for c in range(4)])) > 10
    assert abs(score(features_MD, target_M)) < 1
    for c in range(4):
        y = (target_M.numpy() == c).astype(float)
        evidence, alpha, beta, rank = official(features_MD.numpy(), y)
        assert rank == 60
        truth = density(features_MD.numpy(), y, alpha, beta) / 60
        assert evidence - (512 - rank) / (2 * 60) * math.log(alpha) == pytest.approx(truth, abs=1e-9)
        assert of(features_MD, target_M).per_class[c] >= truth - 1e-9  # α and β that are at least as good


def test_the_official_evidence_is_right_where_rows_are_many() -> None:
    features_MD, target_M = clusters(120, 16, 16)
    theirs = np.mean([official(features_MD.numpy(), (target_M.numpy() == c) * 1.0)[0] for c in range(4)])
    assert score(features_MD, target_M) == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_moments_say_what_the_rows_own_svd_says(shape: tuple[int, int, int]) -> None:  # P27
    features_MD, target_M = clusters(*shape)
    found, expected = of(features_MD, target_M), direct(features_MD, target_M)
    np.testing.assert_allclose(found.per_class, [evidence for evidence, _, _ in expected], atol=1e-8, rtol=0)
    np.testing.assert_allclose(found.alpha, [alpha for _, alpha, _ in expected], rtol=1e-4)
    np.testing.assert_allclose(found.beta, [beta for _, _, beta in expected], rtol=1e-4)


@pytest.mark.parametrize("spread", [1e2, 1e4, 1e5])
def test_badly_conditioned_features_lose_nothing(spread: float) -> None:
    # The Gram matrix squares the spread of the singular values: 1e10 between the largest and the smallest of them.
    features_MD, target_M = clusters(150, 12, 12)
    features_MD = features_MD * torch.logspace(0, -math.log10(spread), 12, dtype=torch.float64)
    rotation_DD = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(1)).double())[0]
    features_MD = features_MD @ rotation_DD
    expected = np.mean([evidence for evidence, _, _ in direct(features_MD, target_M)])
    assert score(features_MD, target_M) == pytest.approx(expected, abs=1e-8)


def test_of_two_peaks_the_higher_one_is_found_and_an_offset_costs_no_digits() -> None:
    # Features far from the origin: one explanation is the offset with tiny weights, where the iteration ends that
    # starts at α = β = 1; the other one uses the differences between rows.
    features_MD, target_M = clusters(150, 12, 12)
    features_MD = features_MD + 1000
    found, near = of(features_MD, target_M), direct(features_MD, target_M)
    features = features_MD.numpy() / math.sqrt((features_MD.numpy() ** 2).sum() / 150)
    for c in range(4):
        y = (target_M.numpy() == c).astype(float)
        assert found.per_class[c] > near[c][0] + 0.05
        truth = density(features, y, found.alpha[c], found.beta[c]) / 150
        assert found.per_class[c] == pytest.approx(truth, abs=1e-8)


def test_labels_that_fewer_rows_than_features_explain_without_noise() -> None:
    features_MD, target_M = clusters(40, 90, 90, gap=6.6)
    found = of(features_MD, target_M, normalise=False)
    for c in np.flatnonzero(np.array(found.beta) > 1e6):  # y ~ N(0, FFᵀ/α) with its best α
        y = (target_M.numpy() == c).astype(float)
        kernel = features_MD.numpy() @ features_MD.numpy().T
        alpha = 40 / (y @ np.linalg.solve(kernel, y))
        limit = -0.5 * (40 * math.log(2 * math.pi / alpha) + np.linalg.slogdet(kernel)[1] + 40) / 40
        assert found.per_class[c] == pytest.approx(limit, abs=1e-5)
    assert max(found.beta) > 1e6


def test_rotation_changes_nothing() -> None:  # P26
    features_MD, target_M = clusters(60, 24, 24)
    rotation_DD = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1)).double())[0]
    assert score(features_MD @ rotation_DD, target_M) == pytest.approx(score(features_MD, target_M), abs=1e-10)


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1e-2, 10, 100, 1e6])
def test_scale_changes_nothing(scale: float) -> None:  # P26
    for shape in SHAPES.values():
        features_MD, target_M = clusters(*shape)
        plain = of(features_MD, target_M)
        for normalise in (True, False):
            found = of(features_MD * scale, target_M, normalise=normalise)
            assert found.score == pytest.approx(plain.score, abs=1e-10)
        assert of(features_MD * scale, target_M).alpha == pytest.approx(plain.alpha, rel=1e-5)


@pytest.mark.parametrize("shape", [(120, 16, 16), (40, 90, 90)])
def test_shuffled_labels_score_lower(shape: tuple[int, int, int]) -> None:  # P26
    features_MD, target_M = clusters(*shape)
    for seed in range(5):
        shuffled_M = target_M[torch.randperm(len(target_M), generator=torch.Generator().manual_seed(seed))]
        assert score(features_MD, shuffled_M) < score(features_MD, target_M)


def test_class_numbers_without_rows_change_nothing() -> None:  # P28
    features_MD, target_M = clusters(80, 24, 9)
    spread_M = torch.tensor([2, 3, 7, 11])[target_M]
    assert logme(Moments.of(features_MD, spread_M, 20)) == of(features_MD, target_M)


def test_any_split_of_the_rows_gives_the_same_score() -> None:
    features_MD, target_M = clusters(200, 32, 32)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    parts = [Moments.of(features_MD[i], target_M[i], 4) for i in torch.tensor_split(order, 7)]
    total = sum(parts[1:], parts[0])
    assert logme(total).score == pytest.approx(score(features_MD, target_M), abs=1e-10)


def test_a_perfect_fit_has_a_finite_score_and_the_best_one() -> None:
    target_M = torch.arange(40) % 4
    exact_MD = torch.eye(4).double()[target_M]
    blurred_MD = exact_MD + 0.05 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    perfect = of(exact_MD, target_M)
    assert perfect.score is not None and math.isfinite(perfect.score)
    assert all(map(math.isfinite, [*perfect.alpha, *perfect.beta]))
    assert score(blurred_MD, target_M) < perfect.score < 10
    assert perfect.beta == pytest.approx([40 / (LEAST * 10)] * 4)  # n over the least share of 10 ones
    rotation_DD = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(1)).double())[0]
    assert score(exact_MD @ rotation_DD * 37, target_M) == pytest.approx(perfect.score, abs=1e-8)


def test_one_row_a_class_is_evidence_like_any_other() -> None:
    features_MD = torch.randn(6, 20, generator=torch.Generator().manual_seed(0)).double()
    found = of(features_MD, torch.arange(6))
    assert found.score is not None and math.isfinite(found.score) and len(found.per_class) == 6


def test_features_that_say_nothing_score_no_more_than_the_labels_own_spread() -> None:
    rng = torch.Generator().manual_seed(0)
    features_MD, target_M = torch.randn(300, 8, generator=rng), torch.arange(300) % 3
    alone = -0.5 * (math.log(2 * math.pi / 3) + 1)  # of y alone: a Gaussian with the mean square 1/3
    assert score(features_MD, target_M) == pytest.approx(alone, abs=0.02)


@pytest.mark.parametrize(
    ("features_MD", "target", "said"),
    [
        (torch.ones(0, 3), [], "0 labelled rows; evidence needs at least 2"),
        (torch.ones(1, 3), [1], "1 labelled rows; evidence needs at least 2"),
        (torch.ones(5, 3), [1] * 5, "all 5 labelled rows are of one class; evidence needs at least 2 classes"),
        (torch.zeros(4, 3), [0, 1, 0, 1], "all features are zero"),
    ],
)
def test_where_there_is_no_evidence_it_says_why(features_MD: torch.Tensor, target: list[int], said: str) -> None:
    found = logme(Moments.of(features_MD, torch.tensor(target, dtype=torch.int64), 3))
    assert found == LogME(None, reason=said)


def test_equal_rows_in_two_classes_are_weak_evidence_and_no_fault() -> None:
    found = of(torch.ones(10, 3), torch.arange(10) % 2)
    assert found.score is not None and math.isfinite(found.score)


@pytest.mark.parametrize("offset", [0, 3, 30, 300])
def test_no_other_ratio_of_alpha_and_beta_is_better(offset: float) -> None:
    for shape in SHAPES.values():
        features_MD, target_M = clusters(*shape, gap=3)
        moments = Moments.of(features_MD + offset, target_M, 4)
        spectrum, found = Spectrum.of(moments), logme(moments)
        for log_t in np.linspace(-32, 12, 1500):  # with the best β of each: its misfit is n / β
            t_C = torch.full((4,), math.exp(log_t)).double()
            share_CK = t_C[:, None] / (t_C[:, None] + spectrum.sigma_K)
            misfit_C = (spectrum.x2_CK * share_CK).sum(dim=1) + spectrum.rest_C
            beta_C = (moments.rows / misfit_C).clamp_max(1e6)
            other_C = spectrum.log_evidence(t_C * beta_C, beta_C) / moments.rows
            assert (np.array(found.per_class) >= other_C.numpy() - 1e-12).all()
