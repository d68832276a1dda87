"""Random and learned α against torch's own Adam and the official loop by brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import official_alfa as official
import pytest
import torch
from scipy import stats

from alray import seeds
from alray.ops import flips
from alray.ops.alphas import LEAST, Draw, Steps, Weighted, residual, tries
from alray.ops.mixing import Net, first_flips

STREAM = seeds.key(0, "alphas")
CAPS = [k / 10 for k in range(1, 11)]


def rows(count: int = 150, dim: int = 6, seed: int = 0) -> np.ndarray:
    """Return fp16 rows as fp64."""
    return np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float16).astype(np.float64)


def layers(dim: int = 6, classes: int = 4, hidden: int = 0, seed: int = 1) -> list[np.ndarray]:
    """Return the layers of a head in fp32: one, or two with `hidden` units between."""
    rng = np.random.default_rng(seed)
    sizes = [(hidden, dim), hidden, (classes, hidden), classes] if hidden else [(classes, dim), classes]
    return [rng.normal(size=size).astype(np.float32) for size in sizes]


def means(dim: int = 6, classes: int = 4, seed: int = 2) -> np.ndarray:
    return 2 * np.random.default_rng(seed).normal(size=(classes, dim)).astype(np.float32)


def net_of(head: list[np.ndarray], anchors: np.ndarray, dtype: torch.dtype = torch.float64) -> Net:
    """Return our view of a head and its anchors."""
    parts = [torch.from_numpy(part) for part in head]
    points = torch.from_numpy(anchors)
    if len(parts) == 4:
        return Net.of(parts, points).to(torch.zeros(0, dtype=dtype))
    return Net(*flips.Frame.of(*parts, points)[:4]).to(torch.zeros(0, dtype=dtype))


def hashes(count: int) -> np.ndarray:
    return seeds.hash_ids([f"row-{i}" for i in range(count)])


def weighted(
    z: np.ndarray, head: list[np.ndarray], anchors: np.ndarray, how: Steps | None, dtype: Any = torch.float64
) -> Weighted:
    """Return our mixer on rows `row-0`, `row-1`, …"""
    x_ND, draw = torch.from_numpy(z).to(dtype), Draw(STREAM, hashes(len(z)))
    return Weighted(x_ND, net_of(head, anchors, dtype), draw, range(len(anchors)), how)


def drawn(count: int, dim: int, classes: int) -> official.Weights:
    """Return the weights that rows draw, by SciPy."""
    numbers = seeds.uniforms(STREAM, hashes(count), 0, dim * classes * len(CAPS))

    def weights(number: int, anchor: int, cap: float) -> np.ndarray:
        at = (number * classes + anchor) * dim
        normal = stats.norm.ppf(numbers[:, at : at + dim])
        return np.clip(cap / 2 + cap / 2 * normal, 1e-8, cap)

    return weights


# the draw


def test_random_weights_are_normal_and_clamped() -> None:
    alpha = Draw(STREAM, hashes(3000))(torch.arange(3000), 8, 5, 0.4).numpy()
    assert alpha.min() == LEAST and alpha.max() == 0.4 and alpha.shape == (3000, 8)
    inside = alpha[(alpha > LEAST) & (alpha < 0.4)]
    assert stats.kstest(inside, stats.truncnorm(-1, 1, 0.2, 0.2).cdf).pvalue > 1e-3
    assert (alpha == LEAST).mean() == pytest.approx(stats.norm.cdf(-1), abs=0.01)
    assert (alpha == 0.4).mean() == pytest.approx(stats.norm.cdf(-1), abs=0.01)


def test_random_weights_belong_to_the_row_the_cap_and_the_anchor() -> None:
    draw = Draw(STREAM, hashes(100))
    whole = draw(torch.arange(100), 8, 3, 0.4)
    some = torch.tensor([7, 2, 99])
    assert torch.equal(draw(some, 8, 3, 0.4), whole[some])
    others = [draw(some, 8, place, 0.4) for place in (0, 2, 4)] + [Draw(STREAM + 1, hashes(100))(some, 8, 3, 0.4)]
    assert all((other != whole[some]).float().mean() > 0.5 for other in others)


# learning: one row against torch


def path(z: np.ndarray, head: list[np.ndarray], anchor: np.ndarray, start: np.ndarray, cap: float, how: Steps) -> Any:
    """Return the weights we try on rows mixed with one anchor, [tries, N, D]."""
    net = net_of(head, np.stack([anchor, anchor]))
    x_ND, alpha_ND = torch.from_numpy(z) - net.centre_D, torch.from_numpy(start)
    label_N = net.above(net.below(x_ND)).argmax(dim=1)
    found = tries(x_ND, net.anchors_CD[0] - x_ND, label_N, alpha_ND, cap, net, how)
    return np.stack([alpha.numpy() for alpha, _ in found])


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("cap", [1 / 32, 0.3, 1.0])
@pytest.mark.parametrize("steps", [1, 5, 12])
def test_a_row_is_learned_as_torch_learns_it_alone(hidden: int, keep: bool, cap: float, steps: int) -> None:
    z, head, anchor = rows(8), layers(hidden=hidden), means()[0].astype(np.float64)
    start = np.random.default_rng(5).uniform(1e-8, cap, size=z.shape)
    found = path(z, head, anchor, start, cap, Steps(steps, keep=keep))
    for n in range(len(z)):
        one, how = torch.from_numpy(z[n : n + 1]), official.Learning(steps, keep=keep)
        alone = official.learn(
            one, official.mlp(head), torch.from_numpy(anchor), torch.from_numpy(start[[n]]), cap, how
        )
        expected = [before.numpy() for before, _ in alone]
        np.testing.assert_allclose(found[:, n : n + 1], expected, atol=1e-9)


def test_every_weight_is_at_an_end_after_one_official_step() -> None:
    """P11: a fresh Adam steps by lr·sign(gradient), here farther than the cap."""
    for cap in (1 / 32, 0.09):
        start = np.random.default_rng(5).uniform(1e-8, cap, size=(50, 6))
        found = path(rows(50), layers(), means()[0], start, cap, Steps(5, l2=0.01))
        assert ((found[1:] == LEAST) | (found[1:] == cap)).all() and 0.2 < (found[1] == cap).mean() < 0.8
        kept = path(rows(50), layers(), means()[0], start, cap, Steps(5, keep=True))
        assert (found[1] == kept[1]).all() and (found[4] != kept[4]).any()


def test_weights_stay_in_their_bounds() -> None:
    """P11: α is always in [1e-8, cap]."""
    for keep in (False, True):
        start = np.random.default_rng(5).uniform(1e-8, 0.7, size=(50, 6))
        found = path(rows(50), layers(hidden=9), means()[0], start, 0.7, Steps(20, keep=keep))
        assert found.min() >= LEAST and found.max() <= 0.7


def test_the_rate_falls_after_two_thirds_of_the_steps() -> None:
    assert [Steps(5).rate(step) for step in range(5)] == [0.1, 0.1, 0.1, 0.1, pytest.approx(0.01)]
    assert [Steps(6, 0.3).rate(step) for step in range(6)] == [0.3] * 4 + [pytest.approx(0.03)] * 2


def test_a_saturated_row_keeps_the_gradient_that_it_has() -> None:
    logits = torch.tensor([[40.0, 0.0, -3.0]])
    assert logits.softmax(dim=1)[0, 0] - 1 == 0
    found = residual(logits, torch.tensor([0])).double()
    expected = logits.double().softmax(dim=1) - torch.tensor([[1.0, 0, 0]])
    np.testing.assert_allclose(found[0, 1:], expected[0, 1:], rtol=1e-5)
    assert found[0, 0].item() == pytest.approx(-float(expected[0, 1:].sum()), rel=1e-5)


# all rows, caps and anchors against the official loop


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("mode", ["random", "learned", "kept"])
@pytest.mark.parametrize("seed", [1, 11])
def test_first_flips_are_those_of_the_official_loop(hidden: int, mode: str, seed: int) -> None:
    z, head, anchors = rows(), layers(hidden=hidden, seed=seed), means(seed=seed + 1)
    how = None if mode == "random" else Steps(keep=mode == "kept")
    found = first_flips(weighted(z, head, anchors, how), CAPS)
    learning = None if how is None else official.Learning(keep=how.keep)
    weights = drawn(len(z), z.shape[1], 4)
    truth = official.loop(z, official.mlp(head), anchors, CAPS, np.inf, weights=weights, learning=learning)
    np.testing.assert_array_equal(found.cap_N, truth.first_cap_N)
    np.testing.assert_allclose(found.key_N, truth.least_norm_N, atol=1e-8)
    centred = truth.mixed_NC - truth.mixed_NC.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found.logits_NC - found.logits_NC.mean(dim=1, keepdim=True), centred, atol=1e-6)
    assert len(np.unique(truth.first_cap_N)) > 5


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("how", [None, Steps(), Steps(keep=True)])
def test_fp32_rows_flip_at_the_same_caps_but_for_rounding(hidden: int, how: Steps | None) -> None:
    z, head, anchors = rows(500), layers(hidden=hidden), means()
    exact, short = (first_flips(weighted(z, head, anchors, how, t), CAPS).cap_N for t in (torch.float64, torch.float32))
    assert (exact != short).float().mean() <= 0.002


@pytest.mark.parametrize("hidden", [0, 7])
@pytest.mark.parametrize("how", [None, Steps(), Steps(keep=True)])
def test_a_row_has_the_same_bits_beside_any_others(hidden: int, how: Steps | None) -> None:
    z, head, anchors = rows(300, 19), layers(19, hidden=hidden), means(19)
    whole = weighted(z, head, anchors, how, torch.float32)
    found = first_flips(whole, CAPS)
    for step in (1, 2, 17, 100):
        for at in range(0, 8 if step < 17 else 300, step):
            part = slice(at, at + step)
            draw = Draw(STREAM, hashes(300)[part])
            alone = Weighted(torch.from_numpy(z[part]).float(), whole.net, draw, range(4), how)
            again = first_flips(alone, CAPS)
            assert torch.equal(again.cap_N, found.cap_N[part]) and torch.equal(again.key_N, found.key_N[part])
            assert torch.equal(again.logits_NC, found.logits_NC[part])


@pytest.mark.parametrize("how", [None, Steps()])
def test_what_is_left_out_flips_nothing(how: Steps | None) -> None:
    z, head, anchors = rows(400), layers(), means()
    head[1] = head[1] * 4
    left_out, caps = weighted(z, head, anchors, how), [k / 64 for k in range(1, 17)]
    nothing = weighted(z, head, anchors, how)
    nothing.floor = lambda anchor: torch.zeros(len(z))  # type: ignore[method-assign]
    tried = {mixer: 0 for mixer in (left_out, nothing)}
    for mixer in tried:
        mix = mixer.mix

        def counted(part: torch.Tensor, *more: Any, mixer: Any = mixer, mix: Any = mix) -> Any:
            tried[mixer] += len(part)
            return mix(part, *more)

        mixer.mix = counted  # type: ignore[method-assign]
    for one, other in zip(first_flips(left_out, caps), first_flips(nothing, caps), strict=True):
        assert torch.equal(one, other)
    assert tried[left_out] < 0.7 * tried[nothing]


def test_anchors_are_named_by_their_classes() -> None:
    """An anchor that is skipped leaves the draws of the others as they are."""
    z, head, anchors = rows(), layers(), means()
    all_four = weighted(z, head, anchors, None)
    draw = Draw(STREAM, hashes(len(z)))
    two = Weighted(torch.from_numpy(z), net_of(head, anchors[[1, 3]]), draw, [1, 3], None)
    whole = torch.arange(len(z))
    for place, of in enumerate([1, 3]):
        torch.testing.assert_close(two.mix(whole, 2, 0.5, place), all_four.mix(whole, 2, 0.5, of))
