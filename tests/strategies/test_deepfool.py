"""DeepFool on heads: the least distance first, in closed form or walked below an MLP."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from alray.models.head import Head
from alray.strategies import Given, find
from alray.strategies.deepfool import mlp_slopes
from alray.table import Table

DIM, HIDDEN, CLASSES = 6, 10, 4


def mlp(classes: int = CLASSES) -> Head:
    rng = np.random.default_rng(0)
    shapes = {
        "hidden_weight": (HIDDEN, DIM),
        "hidden_bias": (HIDDEN,),
        "weight": (classes, HIDDEN),
        "bias": (classes,),
    }
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Head("mlp", tuple(map(str, range(classes))), weights)


def linear(classes: int = CLASSES) -> Head:
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(classes, DIM)), rng.normal(size=classes)
    return Head.linear(weight.astype(np.float32), bias.astype(np.float32), tuple(map(str, range(classes))))


def score(head: Head, rows: int = 80, **fields: Any) -> np.ndarray:
    strategy = find({"name": "deepfool", **fields})
    x_ND = torch.randn(rows, DIM, generator=torch.Generator().manual_seed(3))
    ready = strategy.prepare(Given(budget=5, seed=0, round=0, head=head))
    table = Table([f"r{i}" for i in range(rows)], {"features": x_ND, "logits": head.logits(x_ND)})
    return strategy.score(table, ready).numpy()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_the_score_is_minus_the_distance_in_the_last_layers_input(kind: str) -> None:
    head = {"linear": linear, "mlp": mlp}[kind]()
    x_ND = torch.randn(80, DIM, generator=torch.Generator().manual_seed(3))
    weight, hidden = head.weights["weight"].astype(float), head.hidden(x_ND).double().numpy()
    expected = []
    for row in hidden:
        logits = weight @ row + head.weights["bias"]
        y = int(logits.argmax())
        others = [c for c in range(CLASSES) if c != y]
        expected.append(-min((logits[y] - logits[c]) / np.linalg.norm(weight[y] - weight[c]) for c in others))
    np.testing.assert_allclose(score(head), expected, rtol=1e-4, atol=1e-6)


def test_a_linear_head_has_one_space() -> None:
    assert (score(linear(), where="features") == score(linear())).all()


def test_slopes_below_an_mlp_are_those_of_autograd() -> None:
    head, x_nD = mlp(), torch.randn(5, DIM, generator=torch.Generator().manual_seed(1))
    class_nK, label_n = torch.tensor([[1, 2], [0, 3], [2, 3], [0, 1], [3, 0]]), torch.tensor([0, 1, 0, 2, 1])
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: head.logits(x[None])[0]))(x_nD)
    for n in range(5):
        expected = jacobian[n, class_nK[n]] - jacobian[n, label_n[n]]
        np.testing.assert_allclose(mlp_slopes(head, x_nD, class_nK, label_n)[n], expected, atol=1e-5)


def test_a_walk_below_an_mlp_ends_at_a_boundary_that_is_there() -> None:
    """By rays: along 4,000 directions nothing changes class much nearer, and something does a little further out."""
    head, found = mlp(), -score(mlp(), rows=25, where="features")
    x_ND = torch.randn(25, DIM, generator=torch.Generator().manual_seed(3))
    ways = torch.nn.functional.normalize(torch.randn(4000, DIM, generator=torch.Generator().manual_seed(8)), dim=1)
    nearer = 0
    for x, far in zip(x_ND, found, strict=True):
        label = head.logits(x[None]).argmax()
        assert (head.logits(x + 1.6 * float(far) * ways).argmax(dim=1) != label).any()
        nearer += int((head.logits(x + 0.8 * float(far) * ways).argmax(dim=1) != label).any())
    assert nearer <= 3  # a walk is greedy: now and then another boundary is nearer than the one it ended at


@pytest.mark.parametrize("where", ["hidden", "features"])
def test_one_class_has_no_boundary_and_is_not_refused(where: str) -> None:
    assert (score(mlp(1), where=where) == -math.inf).all() and (score(linear(1), where=where) == -math.inf).all()
    rule = find("deepfool").shortlist(3)
    assert rule.decide(rule.statistic(score(mlp(1)))).count == 0  # all are drawn at random


@pytest.mark.parametrize("where", ["hidden", "features"])
def test_the_bug_changes_the_scores(where: str) -> None:
    right, wrong = score(mlp(), where=where), score(mlp(), where=where, last_class_bug=True)
    assert (right >= wrong - 0.3).all() and (right > wrong + 1e-3).any()


def test_two_classes_know_no_bug() -> None:
    assert (score(mlp(2)) == score(mlp(2), last_class_bug=True)).all()
