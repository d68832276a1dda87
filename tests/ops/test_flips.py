"""ALFA-Mix's closed form against hand examples, the official loop by brute force in fp64, and its own laws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks import alfa_candidates as brute
from torch import Tensor

from alray.ops import flips


def tensors(*arrays: object) -> list[Tensor]:
    return [torch.as_tensor(np.asarray(a), dtype=torch.float32) for a in arrays]


def caps(z: object, weight: object, bias: object, anchors: object, *, frozen: bool = False) -> np.ndarray:
    """Return our critical caps for arrays of any kind."""
    rows, *head = tensors(z, weight, bias, anchors)
    return (flips.critical_cap_frozen if frozen else flips.critical_cap)(rows, flips.Frame.of(*head)).double().numpy()


def exact(z: np.ndarray, weight: np.ndarray, bias: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the critical caps in fp64 NumPy by the definition: every class, every anchor, nothing centred."""
    z, weight, bias, anchors = (np.asarray(a, dtype=np.float64) for a in (z, weight, bias, anchors))
    label, u = brute.gradient(z, weight, bias)
    out = np.full(len(z), np.inf)
    for n in range(len(z)):
        far = max(np.linalg.norm(anchor - z[n]) for anchor in anchors)
        for c in range(len(weight)):
            slope = (weight[c] - weight[label[n]]) @ u[n]
            gap = (weight[label[n]] - weight[c]) @ z[n] + bias[label[n]] - bias[c]
            if slope > 1e-12 and far > 0:
                out[n] = min(out[n], np.sqrt(z.shape[1]) * gap / slope / far)
    return out


def problem(rows: int = 200, dim: int = 16, classes: int = 5, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Return (z, weight, bias, anchors): fp16 rows, fp32 head and anchors of a Gaussian problem."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, dim)).astype(np.float16).astype(np.float32)
    weight, anchors = rng.normal(size=(2, classes, dim)).astype(np.float32)
    return z, weight * np.float32(0.5), rng.normal(size=classes).astype(np.float32), anchors


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    """Check caps that decide anything, those up to 2, to a tolerance, and that no other cap comes below 2."""
    near = expected < 2
    assert near.any()
    np.testing.assert_allclose(found[near], expected[near], atol=tolerance, rtol=0)
    assert (found[~near] > 2 - tolerance).all()


# the hand example (V1)

W, Z, A0, A1 = [[1, 0], [-1, 0]], [[0.3, 0.4]], [2, 0.4], [-3, 1]


def test_hand_example_critical_cap() -> None:
    assert caps(Z, W, [0, 0], [A0, A1])[0] == pytest.approx(0.3 / np.hypot(3.3, 0.6) * np.sqrt(2), abs=1e-6)
    assert caps(Z, W, [0, 0], [A0, A1])[0] == pytest.approx(0.1264911, abs=1e-6)


@pytest.mark.parametrize(
    ("anchor", "eps", "flips_there"),
    [(A0, 0.05, False), (A0, 0.1, False), (A0, 0.2, True), (A1, 0.05, False), (A1, 0.1, True), (A1, 0.2, True)],
)
def test_hand_example_flips(anchor: list[float], eps: float, flips_there: bool) -> None:
    assert (caps(Z, W, [0, 0], [anchor, anchor])[0] < eps * np.sqrt(2)) == flips_there
    case = brute.Case("hand", *(np.array(a, dtype=np.float32) for a in (Z, W, [0, 0], [anchor])))
    assert brute.official(case, np.array([eps * np.sqrt(2)]))[0, 0] == flips_there


# the gradient's direction (T1 to T3)


def test_direction_is_the_gradient_by_central_differences() -> None:
    z, weight, bias, _ = problem(20)
    logits = torch.from_numpy(z @ weight.T + bias).double()
    v_NC, label_N = flips.descent_weights(logits)
    g_ND = v_NC.numpy() @ weight

    def loss(x: np.ndarray) -> np.ndarray:
        scores = x @ weight.T.astype(np.float64) + bias
        return np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(x)), label_N]

    step = 1e-6 * np.eye(z.shape[1])
    slope_ND = np.stack([(loss(z + e) - loss(z - e)) / 2e-6 for e in step], axis=1)
    cosine = (g_ND * slope_ND).sum(axis=1) / np.linalg.norm(g_ND, axis=1) / np.linalg.norm(slope_ND, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-7)


def test_two_classes_move_straight_to_the_other() -> None:
    v_NC, label_N = flips.descent_weights(torch.randn(10, 2, generator=torch.Generator().manual_seed(0)))
    assert (v_NC.gather(1, label_N[:, None]) == -1).all() and (v_NC.sum(dim=1) == 0).all()


def test_saturated_logits_keep_a_direction() -> None:
    logits = torch.tensor([[60.0, 1, 2, -3, 0]])
    assert logits.softmax(dim=1)[0, 0] - 1 == 0  # the plain gradient is gone
    q = np.exp([1.0, 2, -3, 0]) / np.exp([1.0, 2, -3, 0]).sum()
    np.testing.assert_allclose(flips.descent_weights(logits)[0][0], [-1, *q], atol=1e-6)


def test_saturated_rows_have_the_exact_cap() -> None:
    z, weight, bias, anchors = problem()
    weight, bias, anchors = weight * 100, bias * 100, anchors * 4
    assert (torch.from_numpy(z @ weight.T + bias).softmax(dim=1).max(dim=1).values == 1).float().mean() > 0.5
    found, expected = caps(z, weight, bias, anchors), exact(z, weight, bias, anchors)
    close(found, expected)


# one pass equals all passes (P1 to P4)


def test_displacement_has_the_relative_length_and_the_gradients_direction() -> None:
    """P1: moved along the gradient by ε‖a − z‖ of the farthest anchor, ε = cap/√D, a row flips just above its cap."""
    found = caps(*problem())
    z, weight, bias, anchors = (np.asarray(a, dtype=np.float64) for a in problem())
    label, u = brute.gradient(z, weight, bias)
    far = np.max([np.linalg.norm(anchor - z, axis=1) for anchor in anchors], axis=0)
    near = found < 2
    assert near.sum() > 50
    for more, flips_there in ((-1e-4, False), (1e-4, True)):
        moved = z + ((found + more) / 4 * far)[:, None] * u
        assert ((((moved @ weight.T + bias).argmax(axis=1) != label) == flips_there)[near]).all()


@pytest.mark.parametrize("classes", [2, 3, 10, 40])  # 40 > 2·16 takes the way without the Gram matrix
def test_caps_are_those_of_the_definition(classes: int) -> None:
    z, weight, bias, anchors = problem(classes=classes)
    close(caps(z, weight, bias, anchors), exact(z, weight, bias, anchors))


def test_only_the_farthest_anchor_matters() -> None:
    z, weight, bias, anchors = problem()
    each = [caps(z, weight, bias, np.repeat(anchor[None], 5, axis=0)) for anchor in anchors]
    close(caps(z, weight, bias, anchors), np.min(each, axis=0))


@pytest.mark.parametrize("case", brute.cases(1000, 32, (2, 10)), ids=lambda case: case.name)
def test_candidates_are_those_of_the_official_loop(case: brute.Case) -> None:
    found = brute.judge(case)
    assert found.frozen_wrong == 0 and found.free_wrong == 0
    assert (np.diff(found.share) >= 0).all() and found.share[-1] > 0


@pytest.mark.parametrize("kind", ["gaussian", "relu"])
def test_candidates_of_a_hundred_classes(kind: str) -> None:
    found = brute.judge(brute.make(kind, 500, 32, 100, 1, 20))
    assert found.frozen_wrong == 0 and found.free_wrong == 0


def test_the_switch_changes_rows_that_equal_an_anchor() -> None:
    found = brute.judge(brute.make("relu", 2000, 32, 10, 1, 2))
    assert found.touching > 0.9 and found.touching_differ > 0.05


# invariances (P5, P6)


def test_a_constant_on_all_logits_changes_nothing() -> None:
    z, weight, bias, anchors = problem()
    close(caps(z, weight, bias + 100, anchors), caps(z, weight, bias, anchors))


def test_class_order_changes_nothing() -> None:
    z, weight, bias, anchors = problem()
    order = np.random.default_rng(1).permutation(5)
    shuffled = caps(z, weight[order], bias[order], anchors[order])
    close(shuffled, caps(z, weight, bias, anchors))


def test_a_rotation_changes_nothing() -> None:
    z, weight, bias, anchors = problem()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(16, 16)))[0]
    close(caps(z @ turn, weight @ turn, bias, anchors @ turn), caps(z, weight, bias, anchors))


def test_a_shift_of_the_origin_changes_nothing() -> None:
    z, weight, bias, anchors = problem()
    shift = np.full(16, 2.0, dtype=np.float32)
    close(caps(z + shift, weight, bias - weight @ shift, anchors + shift), caps(z, weight, bias, anchors))


def test_two_classes_radius_is_the_distance_to_the_plane() -> None:
    z, weight, bias, anchors = problem(classes=2)
    normal = (weight[1] - weight[0]).astype(np.float64)
    distance = np.abs(z @ normal + float(bias[1]) - float(bias[0])) / np.linalg.norm(normal)
    far = np.max([np.linalg.norm(z - a, axis=1) for a in anchors.astype(np.float64)], axis=0)
    np.testing.assert_allclose(caps(z, weight, bias, anchors), 4 * distance / far, rtol=1e-4, atol=1e-6)


# frozen coordinates (P7)


@pytest.mark.parametrize("frozen", [True, False])
def test_equal_coordinates_stay_only_with_the_switch(frozen: bool) -> None:
    """z = (3, 1, 0), a = (3, 2, 0), g = (.5, −.3, .8): frozen, the row moves along its second coordinate alone."""
    z, a, g = np.array([3.0, 1, 0]), np.array([3.0, 2, 0]), np.array([0.5, -0.3, 0.8])
    u = g / np.linalg.norm(g)
    reach = 0.1 * np.linalg.norm(a - z) * u * (np.array([0, 1, 0]) if frozen else 1)
    np.testing.assert_allclose(z + reach, [3, 0.969695, 0] if frozen else [3.050508, 0.969695, 0.080812], atol=1e-6)
    weight = np.stack([np.zeros(3), g])  # y* = 0; the other class wins once g·displacement exceeds the gap
    for share, flips_there in ((0.999, True), (1.001, False)):
        bias = np.array([0.0, -(g @ z) - share * (g @ reach)])
        found = caps([z], weight, bias, [a, a], frozen=frozen)[0]
        assert (found < 0.1 * np.sqrt(3)) == flips_there
        case = brute.Case("P7", *(np.float32(x) for x in ([z], weight, bias, [a, a])))
        assert brute.official(case, np.array([0.1 * np.sqrt(3)]), guard=1e-8 if frozen else 0)[0, 0] == flips_there


# awkward numbers


def test_a_common_offset_of_the_features_costs_no_digits() -> None:
    z, weight, bias, anchors = problem(400, 64)
    z = (10 + 0.1 * z).astype(np.float16).astype(np.float32)
    anchors, bias = 10 + np.float32(0.1) * anchors, (bias - weight.sum(axis=1) * 10).astype(np.float32)
    close(caps(z, weight, bias, anchors), exact(z, weight, bias, anchors))
    found = brute.judge(brute.Case("offset", z.astype(np.float16), weight, bias, anchors))
    assert found.frozen_wrong == 0 and found.free_wrong == 0


def test_what_all_classes_share_costs_no_digits() -> None:
    z, weight, bias, anchors = problem(400, 64)
    weight = weight + np.random.default_rng(5).normal(size=64).astype(np.float32) * 30
    close(caps(z, weight, bias, anchors), exact(z, weight, bias, anchors))
    rows, *head = tensors(z, weight, bias, anchors)
    frame = flips.Frame.of(*head)
    v_NC, label_N = flips.descent_weights(rows.double() @ frame.weight_CD.T + frame.bias_C)
    assert flips.slopes(v_NC, label_N, frame)[1].min() > flips.FLAT  # without the help of fp64


def test_a_gradient_that_nearly_cancels_keeps_its_direction() -> None:
    """y* in the middle of the others, all nearly as likely: g is the small rest of pulls that cancel."""
    rng = np.random.default_rng(3)
    others = rng.normal(size=(6, 16))
    weight = np.vstack([np.zeros((1, 16)), others - others.mean(axis=0)]).astype(np.float32)
    z = (rng.normal(size=(400, 16)) * 1e-3).astype(np.float16).astype(np.float32)
    bias, anchors = np.array([0.3, *[0] * 6], dtype=np.float32), rng.normal(size=(7, 16)).astype(np.float32)
    assert ((z @ weight.T + bias).argmax(axis=1) == 0).all()
    close(caps(z, weight, bias, anchors), exact(z, weight, bias, anchors))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("classes", [5, 40])
def test_classes_that_are_equal_never_overtake_each_other(frozen: bool, classes: int) -> None:
    """Classes without labels have one and the same weights: their tied logits must not make every row a candidate."""
    z, weight, bias, anchors = problem(classes=classes)
    weight[2:], bias[2:] = weight[2], 1.0
    found = caps(z, weight, bias, anchors, frozen=frozen)
    close(found, exact(z, weight, bias, anchors))
    assert np.isinf(caps(z, weight[[2, 2, 2]], bias[[2, 2, 2]], anchors[:3], frozen=frozen)).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_one_class_never_flips(frozen: bool) -> None:
    z, weight, bias, anchors = problem(classes=1)
    assert np.isinf(caps(z, weight, bias, anchors, frozen=frozen)).all()


@pytest.mark.parametrize("frozen", [True, False])
def test_a_row_on_the_boundary_that_is_every_anchor_does_not_move(frozen: bool) -> None:
    assert np.isinf(caps([[0.0, 1.0]], W, [0, 0], [[0, 1], [0, 1]], frozen=frozen)).all()


def test_a_tie_of_the_best_two_flips_at_once() -> None:
    assert caps([[0.0, 1.0]], W, [0, 0], [A0, A1])[0] == 0


def test_duplicate_rows_have_one_cap() -> None:
    z, weight, bias, anchors = problem(1)
    assert len(np.unique(caps(np.repeat(z, 300, axis=0), weight, bias, anchors))) == 1


def test_the_largest_fp16_rows_have_a_cap() -> None:
    z, weight, bias, anchors = problem()
    large = np.sign(z) * np.float32(65504)
    close(caps(large, weight, bias, anchors), exact(large, weight, bias, anchors))


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_caps_have_the_same_bits_in_any_cut_of_the_rows(classes: int) -> None:
    z, *head = tensors(*problem(1100, 48, classes))
    frame = flips.Frame.of(*head)
    whole = flips.critical_cap(z, frame)
    for rows in (1, 2, 3, 17, 64, 1000):
        assert torch.equal(torch.cat([flips.critical_cap(part, frame) for part in z.split(rows)]), whole)
