"""Mixing by trial: the closed form's displacement through heads of one and two layers, against the official loop."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import official_alfa as official
import pytest
import torch
from benchmarks import alfa_candidates as brute
from torch import Tensor

from alray.ops import flips, mixing
from alray.ops.mixing import Along, Net, Trial, first_flips, just_below
from alray.strategies.shortlist import GrowingCap

CAPS = [k / 20 for k in range(1, 21)]


def problem(hidden: int = 8, rows: int = 300, dim: int = 6, classes: int = 4, seed: int = 0) -> tuple[Any, ...]:
    """Return (rows fp64 from fp16, layers fp32, anchors fp32)."""
    rng = np.random.default_rng([seed, hidden])
    z = rng.normal(size=(rows, dim)).astype(np.float16).astype(np.float64)
    sizes = [(hidden, dim), hidden, (classes, hidden), classes] if hidden else [(classes, dim), classes]
    return z, [rng.normal(size=s).astype(np.float32) for s in sizes], rng.normal(size=(classes, dim)).astype(np.float32)


def net_of(head: list[np.ndarray], anchors: np.ndarray, dtype: torch.dtype = torch.float64) -> Net:
    parts, points = [torch.from_numpy(part) for part in head], torch.from_numpy(anchors)
    net = Net.of(parts, points) if len(parts) == 4 else Net(*flips.Frame.of(*parts, points)[:4])
    return net.to(torch.zeros(0, dtype=dtype))


def along(z: np.ndarray, head: Any, anchors: np.ndarray, *, freeze: bool = False, dtype: Any = torch.float64) -> Along:
    return Along(torch.from_numpy(z).to(dtype), net_of(head, anchors, dtype), freeze=freeze)


def touch(z: np.ndarray, anchors: np.ndarray) -> None:
    """Make rows equal to anchors in some coordinates."""
    for n in range(len(z)):
        z[n, n % z.shape[1]] = anchors[n % len(anchors), n % z.shape[1]]


# heads


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_net_is_its_head_seen_from_the_anchors(hidden: int) -> None:
    z, head, anchors = problem(hidden)
    net = net_of(head, anchors)
    found = net.above(net.below(torch.from_numpy(z) - net.centre_D)).numpy()
    expected = official.mlp(head)(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], atol=1e-12)


@pytest.mark.parametrize("hidden", [0, 8])
def test_gradients_are_those_of_autograd(hidden: int) -> None:
    z, head, anchors = problem(hidden)
    net, v_NC = net_of(head, anchors), torch.randn(300, 4, dtype=torch.float64)
    x_ND = (torch.from_numpy(z) - net.centre_D).requires_grad_(True)
    pre_NH = net.below(x_ND)
    (expected,) = torch.autograd.grad((net.above(pre_NH) * v_NC).sum(), x_ND)
    torch.testing.assert_close(net.pull(v_NC, pre_NH.detach()), expected)
    step_ND, pre_NH = torch.randn(300, 6, dtype=torch.float64), pre_NH.detach()
    _, slope_NC = torch.func.jvp(lambda x: net.above(net.below(x)), (x_ND.detach(),), (step_ND,))
    torch.testing.assert_close(net.push(step_ND @ net.weight_CD.T, pre_NH), slope_NC)


def test_no_move_gains_more_than_the_steepest() -> None:
    rng = np.random.default_rng(0)
    move, weight = rng.normal(size=(50, 9)), rng.normal(size=(5, 9))
    label = rng.integers(5, size=50)
    bound = mixing.steepest(*(torch.from_numpy(a) for a in (move, weight, label))).numpy()
    most = np.maximum((weight[None] - weight[label][:, None]) * move[:, None], 0).sum(axis=2)
    assert (bound >= most - 1e-12).all() and np.median(bound[most > 0] / most[most > 0]) < 2
    for _ in range(100):
        share = rng.uniform(size=move.shape)
        gain = (share * move) @ weight.T
        assert (gain - gain[np.arange(50), label][:, None] <= bound + 1e-12).all()


# the closed form by trial

V1 = [
    ((2.0, 0.4), {0.05: (0.215, 0.4), 0.1: (0.13, 0.4), 0.2: (-0.04, 0.4)}),
    ((-3.0, 1.0), {0.05: (0.132295, 0.4), 0.1: (-0.035410, 0.4), 0.2: (-0.370820, 0.4)}),
]


@pytest.mark.parametrize(("anchor", "mixtures"), V1)
def test_hand_example(anchor: tuple[float, float], mixtures: dict[float, tuple[float, float]]) -> None:
    """V1: W = [[1, 0], [−1, 0]], b = 0, z = (0.3, 0.4); the oracle's mixtures, and ours by their logits."""
    head = [np.array([[1, 0], [-1, 0]], dtype=np.float32), np.zeros(2, dtype=np.float32)]
    z, points = np.array([[0.3, 0.4]]), np.array([anchor, anchor], dtype=np.float32)
    mixer = along(z, head, points)
    for eps, expected in mixtures.items():
        cap = eps * np.sqrt(2)
        alpha = official.closed_form(torch.from_numpy(z), official.mlp(head), torch.tensor(anchor), cap, 1e-8)[0]
        np.testing.assert_allclose(z[0] + alpha.numpy() * (points[0] - z[0]), expected, atol=1e-6)
        logits_C = mixer.mix(torch.arange(1), 0, cap, 0).logits_NC[0]
        np.testing.assert_allclose(logits_C, [expected[0], -expected[0]], atol=1e-6)
        assert (first_flips(mixer, [cap]).cap_N[0].item() == cap) == (expected[0] < 0)


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_first_flips_are_those_of_the_official_loop(hidden: int, freeze: bool, seed: int) -> None:
    """P4 for any head: every cap and anchor by autograd and forward passes, in fp64."""
    z, head, anchors = problem(hidden, seed=seed)
    if freeze:
        touch(z, anchors)
    found = first_flips(along(z, head, anchors, freeze=freeze), CAPS)
    truth = official.loop(z, official.mlp(head), anchors, CAPS, np.inf, guard=1e-8 if freeze else 1e-14)
    differs = found.cap_N.numpy() != truth.first_cap_N
    assert differs.mean() <= (0.01 if freeze else 0)  # α of 1e7 costs the oracle its digits there
    assert len(np.unique(truth.first_cap_N)) > 10
    own = official.mlp(head)(torch.from_numpy(z)).numpy()
    flipped = found.cap_N.isfinite().numpy()
    assert (found.logits_NC.argmax(dim=1).numpy() != own.argmax(axis=1)).tolist() == flipped.tolist()


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("budget", [0, 20, 100, 200, 299, 1000])
def test_the_growing_cap_stops_where_the_official_loop_does(hidden: int, budget: int) -> None:
    z, head, anchors = problem(hidden)
    rule = GrowingCap(0.05, budget)
    scores = -just_below(first_flips(along(z, head, anchors), rule.caps.tolist()).cap_N).numpy()
    cut = rule.decide(rule.statistic(scores))
    truth = official.loop(z, official.mlp(head), anchors, rule.caps.tolist(), budget, guard=0)
    assert cut.cap == truth.cap and cut.count == truth.candidates_N.sum()
    assert ((scores.astype(np.float64) > cut.above) == truth.candidates_N).all()


def test_a_candidate_at_a_cap_is_one_at_every_larger_cap() -> None:
    """P2: below one layer each cap, tried by itself, has the candidates of all smaller ones."""
    z, head, anchors = problem(0)
    mixer, frame = along(z, head, anchors), flips.Frame.of(*map(torch.from_numpy, (*head, anchors)))
    found = [first_flips(mixer, [cap]).cap_N.isfinite() for cap in CAPS]
    assert not any((few & ~many).any() for few, many in pairwise(found))
    critical_N = flips.critical_cap(torch.from_numpy(z), frame)
    assert all(torch.equal(some, critical_N < cap) for some, cap in zip(found, CAPS, strict=True))
    assert len({int(some.sum()) for some in found}) > 10


@pytest.mark.parametrize("classes", [2, 10])
def test_below_one_layer_trials_agree_with_the_one_pass(classes: int) -> None:
    """P2, P3, P4: one critical cap a row says what all trials of all anchors say, and is monotone."""
    case = brute.make("gaussian", 2000, 32, classes, 5, 0)
    parts = [torch.from_numpy(part) for part in (case.weight_CD, case.bias_C, case.anchors_CD)]
    rows, caps = torch.from_numpy(case.rows_ND.astype(np.float32)), [0.02 * k for k in range(1, 51)]
    frame = flips.Frame.of(*parts)
    critical = flips.critical_cap(rows, frame).double()
    mixer = Along(rows, Net(*frame[:4]).to(rows))
    first = first_flips(mixer, caps).cap_N
    differs = torch.stack([(critical < cap) != (first <= cap) for cap in caps]).any(dim=0)
    near = (critical[:, None] - torch.tensor(caps).double()).abs().min(dim=1).values < 1e-5
    assert not (differs & ~near).any() and first.unique().numel() > 20
    close = critical < 2
    torch.testing.assert_close(mixer.linearised_cap()[close], critical.float()[close], atol=1e-5, rtol=1e-4)


def test_a_displacement_has_the_relative_length_and_the_gradients_direction() -> None:
    """P1, at the features below a hidden layer."""
    z, head, anchors = problem()
    x_ND = torch.from_numpy(z).requires_grad_(True)
    logits = official.mlp(head)(x_ND)
    (g_ND,) = torch.autograd.grad(torch.nn.functional.cross_entropy(logits, logits.argmax(1), reduction="sum"), x_ND)
    mixer = along(z, head, anchors)
    length_N1 = g_ND.norm(dim=1, keepdim=True)
    assert (length_N1 == 0).any()  # where all hidden units are off: such a row stays
    torch.testing.assert_close(mixer.u_ND, torch.where(length_N1 > 0, g_ND / length_N1, 0.0))
    far_N = np.linalg.norm(anchors[2] - z, axis=1)
    moved = torch.from_numpy(z + 0.3 / np.sqrt(6) * far_N[:, None] * mixer.u_ND.numpy())
    expected, found = official.mlp(head)(moved), mixer.mix(torch.arange(300), 5, 0.3, 2)
    torch.testing.assert_close(found.logits_NC - found.logits_NC[:, :1], expected - expected[:, :1])
    np.testing.assert_allclose(-found.key_N, 0.3 / np.sqrt(6) * far_N)


@pytest.mark.parametrize("hidden", [0, 8])
def test_invariances(hidden: int) -> None:
    """P5: a constant on all logits, the order of the classes, a rotation of the features, a shift of their origin."""
    z, head, anchors = problem(hidden)
    expected = first_flips(along(z, head, anchors), CAPS).cap_N
    order, turn = np.random.default_rng(1).permutation(4), np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))[0]
    moved = head[1] - 2 * head[0].sum(axis=1)
    for rows, layers, points in (
        (z, [*head[:-1], head[-1] + 50], anchors),
        (z, [*head[:-2], head[-2][order], head[-1][order]], anchors[order]),
        (z @ turn, [head[0] @ turn, *head[1:]], anchors @ turn),
        (z + 2, [head[0], moved, *head[2:]], anchors + 2),
    ):
        found = first_flips(along(rows, [np.asarray(part) for part in layers], points), CAPS).cap_N
        assert (found != expected).float().mean() <= 0.01  # fp32 weights are rounded anew


def bump() -> tuple[list[np.ndarray], np.ndarray]:
    """Return a head on one number x whose class 1 wins for 1 < x < 1.67 alone, and two anchors of 0.5: 1.5 and 10.5."""
    layers = [[[1.0], [1.0]], [0.0, -1.5], [[0.0, 0.0], [1.0, -4.0]], [0.0, -1.0]]
    return [np.array(part, dtype=np.float32) for part in layers], np.array([[1.5], [10.5]], dtype=np.float32)


def test_a_row_that_flips_and_flips_back_is_seen_by_the_anchor_that_stops_between() -> None:
    """A hidden layer takes monotony (P2) and the farthest anchor (P3) away: all anchors are tried."""
    head, anchors = bump()
    steps = [0.2, 0.4, 0.6, 0.8, 1.0]
    assert first_flips(along(np.array([[0.5]]), head, anchors), steps).cap_N.tolist() == [0.6]  # 0.5 + 0.6·1
    assert first_flips(along(np.array([[0.5]]), head, anchors[[1, 1]]), steps).cap_N.tolist() == [np.inf]
    assert along(np.array([[0.5]]), head, anchors).linearised_cap().item() == pytest.approx(0.05)  # 0.5 of 10


@pytest.mark.parametrize("freeze", [True, False])
@pytest.mark.parametrize("hidden", [0, 8])
def test_what_is_left_out_flips_nothing(hidden: int, freeze: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    z, head, anchors = problem(hidden)
    head[1], tried = head[1] * 3, []
    mix = Along.mix
    monkeypatch.setattr(Along, "mix", lambda self, rows, *more: tried.append(len(rows)) or mix(self, rows, *more))
    found = first_flips(along(z, head, anchors, freeze=freeze), CAPS)
    few = sum(tried)
    monkeypatch.setattr(Along, "floor", lambda self, anchor: torch.zeros(len(z)))
    for one, other in zip(found, first_flips(along(z, head, anchors, freeze=freeze), CAPS), strict=True):
        assert torch.equal(one, other)
    assert few < 0.9 * (sum(tried) - few)


def test_of_several_anchors_the_farthest_is_kept() -> None:
    z, head, anchors = problem(0)
    found = first_flips(along(z, head, anchors), CAPS)
    far_N = np.linalg.norm(anchors[None] - z[:, None], axis=2).max(axis=1)
    flipped = found.cap_N.isfinite().numpy()
    np.testing.assert_allclose(-found.key_N[flipped], (found.cap_N.numpy() * far_N / np.sqrt(6))[flipped])


# caps as scores


@pytest.mark.parametrize("step", [0.2, 0.1, 0.3, 0.7, 1 / 32, 1 / 49, 0.001, 1.0])
def test_a_row_is_a_candidate_at_its_own_cap_and_at_none_before(step: float) -> None:
    rule = GrowingCap(step, 0)
    scores = -just_below(torch.tensor(rule.caps)).numpy()
    assert scores.dtype == np.float32
    assert rule.statistic(scores).tolist() == list(range(1, len(rule.caps) + 1))
    assert all((score.astype(np.float64) > -cap) for score, cap in zip(scores, rule.caps, strict=True))
    assert just_below(torch.tensor([np.inf, np.nan])).tolist() == [np.inf, pytest.approx(np.nan, nan_ok=True)]


def test_a_single_cap_is_the_only_one() -> None:
    assert GrowingCap(0.2, 5, last=0.2).caps.tolist() == [0.2] == GrowingCap(0.2, 5, last=0.1).caps.tolist()
    assert GrowingCap(0.2, 5, last=0.5).caps.tolist() == pytest.approx([0.2, 0.4, 0.6])


# awkward rows


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_row_has_the_same_bits_beside_any_others(hidden: int) -> None:
    z, head, anchors = problem(hidden, dim=19)
    for freeze in (True, False):
        whole = first_flips(along(z, head, anchors, freeze=freeze, dtype=torch.float32), CAPS)
        for step in (1, 2, 17, 100):
            for at in range(0, 6 if step < 17 else 300, step):
                part = slice(at, at + step)
                again = first_flips(along(z[part], head, anchors, freeze=freeze, dtype=torch.float32), CAPS)
                assert all(torch.equal(one, other[part]) for one, other in zip(again, whole, strict=True))


@pytest.mark.parametrize("hidden", [0, 8])
def test_fp32_rows_far_from_zero_flip_at_the_same_caps(hidden: int) -> None:
    z, head, anchors = problem(hidden, 1000)
    z, anchors = (10 + 0.1 * z).astype(np.float16).astype(np.float64), (10 + 0.1 * anchors).astype(np.float32)
    head[1] = head[1] - 10 * head[0].sum(axis=1)
    first = [first_flips(along(z, head, anchors, dtype=t), CAPS).cap_N for t in (torch.float64, torch.float32)]
    assert (first[0] != first[1]).float().mean() <= 0.002 and len(first[0].unique()) > 10


@pytest.mark.parametrize("hidden", [0, 8])
def test_one_class_and_equal_classes_never_flip(hidden: int) -> None:
    z, head, anchors = problem(hidden, classes=1)
    assert first_flips(along(z, head, anchors), CAPS).cap_N.isinf().all()
    same = [part if part is head[0] and hidden else np.repeat(part, 3, axis=0) for part in head[-2:]]
    found = first_flips(along(z, [*head[:-2], *same], np.repeat(anchors, 3, axis=0)), CAPS)
    assert found.cap_N.isinf().all()


@pytest.mark.parametrize("hidden", [0, 8])
def test_a_row_that_is_every_anchor_does_not_move(hidden: int) -> None:
    z, head, anchors = problem(hidden)
    anchors[:] = z[0]
    assert first_flips(along(z, head, anchors), CAPS).cap_N[0].isinf()


def test_saturated_rows_have_a_direction() -> None:
    z, head, anchors = problem(8)
    head = [head[0], head[1], head[2] * 200, head[3] * 200]
    first = [first_flips(along(z, head, anchors, dtype=t), CAPS).cap_N for t in (torch.float64, torch.float32)]
    assert (first[0] != first[1]).float().mean() <= 0.01 and first[1].isfinite().any()


def test_a_row_without_logits_has_no_cap_and_leaves_the_others_alone() -> None:
    z, head, anchors = problem()
    z[3] = np.nan
    found = first_flips(along(z, head, anchors), CAPS)
    assert found.cap_N[3].isnan() and found.cap_N.isnan().sum() == 1


class Table:
    """Mixtures by hand: logits of class 1 for (cap, anchor), against a zero for class 0."""

    anchors = 2
    logits_NC = torch.zeros(2, 2)

    def __init__(self, gains: dict[tuple[float, int], tuple[list[float], list[float]]]) -> None:
        self.gains = gains

    def floor(self, anchor: int) -> Tensor:
        return torch.zeros(2)

    def mix(self, rows: Tensor, number: int, cap: float, anchor: int) -> Trial:
        gain, key = (torch.tensor(part)[rows] for part in self.gains[cap, anchor])
        return Trial(torch.stack([torch.zeros_like(gain), gain], dim=1), key)


def test_the_first_cap_counts_and_at_it_the_least_key() -> None:
    table = Table(
        {
            (0.1, 0): ([-1.0, 1.0], [1.0, 2.0]),
            (0.1, 1): ([-1.0, 2.0], [1.0, 1.0]),
            (0.2, 0): ([3.0, 9.0], [5.0, 0.0]),
            (0.2, 1): ([4.0, 9.0], [6.0, 0.0]),
        }
    )
    found = first_flips(table, [0.1, 0.2])
    assert found.cap_N.tolist() == [0.2, 0.1]
    assert found.key_N.tolist() == [5, 1] and found.logits_NC[:, 1].tolist() == [3, 2]
