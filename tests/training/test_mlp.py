"""The MLP head: it learns, its batch norm folds, its steps are torch's, and its settings reach it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alray import seeds
from alray.errors import ModelError
from alray.models.head import Head
from alray.training import mlp
from alray.training.probe import HeadConfig, fit_head

CLASSES = ["a", "b", "c"]

PAPER: dict[str, Any] = {
    "hidden": 2048, "batch_norm": True, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0, "batch": 2048, "epochs": 50,
    "schedule": "cosine_7_16",
}  # fmt: skip


def rows(n: int, dim: int = 8, spread: float = 1.5, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(seed)
    number = np.arange(n) % len(CLASSES)
    centres = np.random.default_rng(9).normal(size=(len(CLASSES), dim)) * spread
    return (centres[number] + rng.normal(size=(n, dim))).astype(np.float16), [CLASSES[i] for i in number]


def quadrants(n: int, seed: int = 0) -> tuple[np.ndarray, list[str]]:
    features = np.random.default_rng(seed).normal(size=(n, 2)).astype(np.float16)
    return features, ["a" if x * y > 0 else "b" for x, y in features]


def fitted(features: np.ndarray, labels: Sequence[str], classes: Sequence[str] = CLASSES, **config: Any) -> Head:
    return fit_head(HeadConfig(kind="mlp", **config), features, labels, classes, seed=0)


def accuracy(head: Head, features: np.ndarray, labels: Sequence[str]) -> float:
    guesses = head.logits(torch.from_numpy(features).float()).argmax(1)
    return float(np.mean([head.classes[g] == label for g, label in zip(guesses, labels, strict=True)]))


# It learns


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_it_learns_what_a_line_cannot(optimizer: str, batch_norm: bool) -> None:
    features, labels = quadrants(400)
    lr = {"adamw": 1e-2, "sgd": 0.05}[optimizer]
    config = {"hidden": 32, "epochs": 100, "batch": 64, "lr": lr, "optimizer": optimizer, "batch_norm": batch_norm}
    assert accuracy(fitted(features, labels, ["a", "b"], **config), features, labels) > 0.95
    assert accuracy(fit_head(HeadConfig(), features, labels, ["a", "b"], 0), features, labels) < 0.7


def test_the_papers_recipe_trains_a_proxy_that_beats_the_line() -> None:
    features, labels = quadrants(600)
    test, answers = quadrants(300, seed=1)
    config = HeadConfig(kind="mlp", **PAPER)
    head = fit_head(config, features, labels, ["a", "b"], seed=0)
    assert head.hidden_dim == 2048 and accuracy(head, test, answers) > 0.93
    assert accuracy(fit_head(HeadConfig(), features, labels, ["a", "b"], 0), test, answers) < 0.7


def test_balanced_weights_favour_the_rare_class() -> None:
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 1, (190, 2)), rng.normal(1.5, 1, (10, 2))]).astype(np.float16)
    labels = ["common"] * 190 + ["rare"] * 10
    share = {}
    for weights in ("none", "balanced"):
        head = fitted(features, labels, ["common", "rare"], hidden=8, lr=1e-2, class_weights=weights)
        share[weights] = accuracy(head, features[190:], labels[190:])
    assert share["balanced"] > share["none"]


# Edges


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize(("count", "batch"), [(1, 256), (2, 256), (3, 2), (5, 2)])
def test_a_batch_of_one_row_does_not_crash(count: int, batch: int, batch_norm: bool) -> None:
    features, labels = rows(count)
    head = fitted(features, labels, hidden=4, epochs=2, batch=batch, batch_norm=batch_norm, feature_noise=0.25)
    assert head.classes == tuple(CLASSES)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_far_more_features_than_rows_and_a_class_of_one_row(batch_norm: bool) -> None:
    features, labels = rows(7, dim=3000)
    config = {"hidden": 16, "epochs": 30, "feature_noise": 0.25, "batch_norm": batch_norm}
    head = fitted(features, labels, [*CLASSES, "unseen"], **config)
    assert accuracy(head, features, labels) == 1.0


def test_a_step_that_is_too_long_is_refused_and_names_the_setting() -> None:
    features, labels = rows(60)
    with pytest.raises(
        ModelError, match=r"The MLP head diverged: .* `head.lr` 1000.0. Lower `head.lr`, or set `head.b"
    ):
        fitted(features * 50, labels, batch_norm=False, optimizer="sgd", lr=1e3)


# Its arithmetic


def test_the_folded_batch_norm_gives_the_logits_of_the_unfolded() -> None:
    x_ND = torch.from_numpy(rows(50)[0]).float()
    net = mlp.Net(8, 6, 3, batch_norm=True, seed=0)
    assert net.norm is not None
    net.norm.momentum = 1.0
    with torch.no_grad():
        net.norm.weight.copy_(torch.linspace(0.5, 2.0, 6))
        net.norm.bias.copy_(torch.linspace(-1.0, 1.0, 6))
        unfolded = net(x_ND)
    assert torch.allclose(net.head(x_ND, CLASSES).logits(x_ND), unfolded, atol=1e-5)


def test_without_batch_norm_the_head_is_the_network() -> None:
    x_ND = torch.from_numpy(rows(50)[0]).float()
    net = mlp.Net(8, 6, 3, batch_norm=False, seed=0)
    with torch.no_grad():
        assert torch.allclose(net.head(x_ND, CLASSES).logits(x_ND), net(x_ND), atol=1e-6)


def test_sgd_takes_nesterovs_steps_at_the_schedules_rates() -> None:
    """Against the update by hand: v ← 0.9·v + g, w ← w − lr·(g + 0.9·v), with g holding the weight decay."""
    features, labels = rows(12)
    config = {"hidden": 4, "batch_norm": False, "optimizer": "sgd", "lr": 0.05, "weight_decay": 0.01, "epochs": 5,
              "schedule": "cosine_7_16"}  # fmt: skip
    head = fitted(features, labels, batch=12, **config)
    start = mlp.Net(8, 4, 3, batch_norm=False, seed=0)
    weights = [
        p.detach().double() for p in (start.below.weight, start.below.bias, start.above.weight, start.above.bias)
    ]
    speeds = [torch.zeros_like(w) for w in weights]
    target = torch.arange(12) % 3
    for step in range(5):
        weights = [w.requires_grad_() for w in weights]
        hidden = torch.relu(F.linear(torch.from_numpy(features).double(), weights[0], weights[1]))
        slopes = torch.autograd.grad(F.cross_entropy(F.linear(hidden, weights[2], weights[3]), target), weights)
        rate = 0.05 * math.cos(math.pi * 7 / 16 * step / 5)
        for i, slope in enumerate(slopes):
            slope = slope + 0.01 * weights[i].detach()
            speeds[i] = 0.9 * speeds[i] + slope
            weights[i] = weights[i].detach() - rate * (slope + 0.9 * speeds[i])
    found = [head.weights[name] for name in ("hidden_weight", "hidden_bias", "weight", "bias")]
    assert all(np.allclose(a, b.numpy(), atol=1e-6) for a, b in zip(found, weights, strict=True))


def test_noise_has_its_classes_spread_and_is_drawn_anew_each_epoch() -> None:
    spread_KD = torch.tensor([[1.0, 4.0], [0.5, 0.0]])
    target_M = torch.arange(40_000) % 2 * 7  # two of many classes
    x_MD = torch.randn(40_000, 2, generator=seeds.torch_generator(1, "test")) * spread_KD[target_M // 7] + 10
    noise = mlp._Noise(0.25, x_MD, target_M, seed=0)
    added = []
    for epoch in (0, 1, 0):
        noise.start(epoch)
        added.append(noise.added(torch.arange(40_000)) - x_MD)
    assert torch.equal(added[0], added[2]) and not torch.equal(added[0], added[1])
    for k in (0, 1):
        mine = added[0][target_M == 7 * k]
        assert torch.allclose(mine.std(0), 0.25 * spread_KD[k], rtol=0.03, atol=1e-6)
        assert torch.allclose(mine.mean(0), torch.zeros(2), atol=0.02)


def test_dropout_keeps_the_mean_and_is_drawn_anew_each_epoch() -> None:
    dropout, x_BD, kept = mlp._Dropout(0.75, 500, seed=0), torch.zeros(400, 3), []
    for epoch in (0, 1, 0):
        dropout.start(epoch)
        kept.append(dropout.keep(x_BD))
    assert torch.equal(kept[0], kept[2]) and not torch.equal(kept[0], kept[1])
    assert sorted(kept[0].unique().tolist()) == [0, 4] and kept[0].mean() == pytest.approx(1, abs=0.02)
    assert mlp._Dropout(0.0, 500, seed=0).keep(x_BD) is None


def test_a_step_with_dropout_is_a_step_through_what_it_keeps() -> None:
    """One SGD step by hand: hidden units times their mask, and no mask when the head predicts."""
    features, labels = rows(12)
    config = {"hidden": 6, "batch_norm": False, "optimizer": "sgd", "lr": 0.1, "weight_decay": 0, "epochs": 1}
    head = fitted(features, labels, batch=12, dropout=0.5, **config)
    net, dropout = mlp.Net(8, 6, 3, batch_norm=False, seed=0), mlp._Dropout(0.5, 6, seed=0)
    order = torch.from_numpy(seeds.generator(0, "mlp head", 0).permutation(12))
    x_BD = torch.from_numpy(features).float()[order]
    dropout.start(0)
    keep_BH = dropout.keep(x_BD)
    assert keep_BH is not None
    hidden_BH = torch.relu(x_BD @ net.below.weight.T) * keep_BH
    loss = F.cross_entropy(hidden_BH @ net.above.weight.T, (torch.arange(12) % 3)[order])
    slope = torch.autograd.grad(loss, net.above.weight)[0]
    expected = (net.above.weight - 0.1 * 1.9 * slope).detach().numpy()  # Nesterov's first step is 1 + 0.9 long
    np.testing.assert_allclose(head.weights["weight"], expected, atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": 5}, {"batch_norm": False}, {"optimizer": "sgd"}, {"schedule": "cosine_7_16"}, {"weight_decay": 0.5},
        {"feature_noise": 0.25}, {"dropout": 0.5}, {"lr": 2e-3}, {"epochs": 4}, {"batch": 16}, {"l2": 90.0},
        {"class_weights": "balanced"},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_setting_changes_the_head(change: dict[str, Any]) -> None:
    features, labels = rows(50)
    assert (
        fitted(features, labels, hidden=4, epochs=3).digest()
        != fitted(features, labels, **{"hidden": 4, "epochs": 3, **change}).digest()
    )


def test_weight_decay_says_what_l2_says_of_so_many_rows() -> None:
    features, labels = rows(50)
    said = fitted(features, labels, hidden=4, epochs=3, weight_decay=3.0 / 50)
    assert said.digest() == fitted(features, labels, hidden=4, epochs=3, l2=3.0).digest()
