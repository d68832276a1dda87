"""Distances to boundaries: hyperplanes by hand, a numeric search, and the walk against the closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from alray.ops import boundary
from alray.ops.affine import affine


def affine_head(classes: int, dim: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(classes, dim, generator=generator), torch.randn(classes, generator=generator)


def rows(count: int, dim: int, seed: int = 1) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def closed(x_ND: Tensor, weight_CD: Tensor, bias_C: Tensor, **changes: bool) -> Tensor:
    return boundary.distance(affine(x_ND, weight_CD, bias_C), boundary.apart(weight_CD), **changes)


def affine_walk(weight_CD: Tensor, bias_C: Tensor, **changes: float) -> boundary.Walk:
    def slopes(x_nD: Tensor, class_nK: Tensor, label_n: Tensor) -> Tensor:
        return weight_CD[class_nK] - weight_CD[label_n][:, None]

    return boundary.Walk(lambda x_nD: affine(x_nD, weight_CD, bias_C), slopes, **changes)  # type: ignore[arg-type]


def searched(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> float:
    """Return the length of the shortest r with another class at x + r, by a constrained search for each class."""
    logits = weight @ x + bias
    label, found = int(logits.argmax()), math.inf
    for c in range(len(weight)):
        if c != label:
            side = LinearConstraint(weight[c] - weight[label], logits[label] - logits[c], np.inf)
            start = (weight[c] - weight[label]) * 0.1
            done = minimize(lambda r: r @ r, start, jac=lambda r: 2 * r, constraints=[side], method="SLSQP")
            found = min(found, math.sqrt(done.fun))
    return found


# The closed form


def test_two_classes_have_one_hyperplane() -> None:
    """C = 2: |w·x + b| / ‖w‖ with w and b the differences of the two rows."""
    weight_CD, bias_C = affine_head(2, 5)
    x_ND = rows(40, 5)
    w, b = (weight_CD[0] - weight_CD[1]).double(), (bias_C[0] - bias_C[1]).double()
    np.testing.assert_allclose(closed(x_ND, weight_CD, bias_C), (x_ND.double() @ w + b).abs() / w.norm(), rtol=1e-5)


@pytest.mark.parametrize(("classes", "dim"), [(3, 2), (5, 4), (4, 1)])
def test_the_closed_form_is_what_a_search_finds(classes: int, dim: int) -> None:
    weight_CD, bias_C = affine_head(classes, dim)
    x_ND = rows(12, dim)
    expected = [searched(*(t.double().numpy() for t in (x, weight_CD, bias_C))) for x in x_ND]
    np.testing.assert_allclose(closed(x_ND, weight_CD, bias_C), expected, rtol=1e-4)


def test_rows_on_a_boundary_are_at_zero() -> None:
    weight_CD, bias_C = torch.tensor([[1.0, 0], [0, 1], [-1, -1]]), torch.zeros(3)
    x_ND = torch.tensor([[1.0, 1], [0, 0], [2, 1]])
    assert closed(x_ND, weight_CD, bias_C)[:2].tolist() == [0, 0]
    assert closed(x_ND, weight_CD, bias_C)[2] == pytest.approx(1 / math.sqrt(2))
    assert affine_walk(weight_CD, bias_C).distance(x_ND)[:2].tolist() == [0, 0]


@pytest.mark.parametrize("walk", [False, True])
def test_no_boundary_is_infinitely_far(walk: bool) -> None:
    """One class, and classes that share their weights: equal biases too, which are no boundary but one class twice."""
    x_ND = rows(4, 3)
    for weight_CD, bias_C in [
        (torch.ones(1, 3), torch.zeros(1)),
        (torch.ones(2, 3), torch.tensor([0.0, 1])),
        (torch.ones(2, 3), torch.zeros(2)),
    ]:
        find = affine_walk(weight_CD, bias_C).distance if walk else lambda x, w=weight_CD, b=bias_C: closed(x, w, b)
        assert find(x_ND).tolist() == [math.inf] * 4  # type: ignore[operator]


@pytest.mark.parametrize("walk", [False, True])
def test_logits_that_overflow_are_not_a_number_and_not_a_distance(walk: bool) -> None:
    weight_CD, bias_C = affine_head(3, 4)
    x_ND = torch.full((1, 4), 1e38) * torch.tensor([1.0, -1, 1, -1])
    weight_CD = weight_CD * 1e10
    found = affine_walk(weight_CD, bias_C).distance(x_ND) if walk else closed(x_ND, weight_CD, bias_C)
    assert found.isnan().all()


def test_the_bug_of_the_repositories_looks_at_the_last_class_only() -> None:
    weight_CD, bias_C = affine_head(4, 5)
    x_ND = rows(60, 5)
    logits = (x_ND.double() @ weight_CD.double().T + bias_C).numpy()
    expected = []
    for row in logits:
        y = int(row.argmax())
        last = 2 if y == 3 else 3
        expected.append((row[y] - row[last]) / np.linalg.norm((weight_CD[y] - weight_CD[last]).double().numpy()))
    np.testing.assert_allclose(closed(x_ND, weight_CD, bias_C, last_class_bug=True), expected, rtol=1e-5)
    assert (closed(x_ND, weight_CD, bias_C) < closed(x_ND, weight_CD, bias_C, last_class_bug=True) - 1e-3).any()
    assert closed(x_ND, weight_CD[:1], bias_C[:1], last_class_bug=True).isinf().all()


# The walk


@pytest.mark.parametrize("overshoot", [0.0, 0.02])
@pytest.mark.parametrize("classes", [2, 7])
def test_the_walk_is_the_closed_form_under_an_affine_head(classes: int, overshoot: float) -> None:
    weight_CD, bias_C = affine_head(classes, 6)
    x_ND = rows(700, 6)
    found = affine_walk(weight_CD, bias_C, overshoot=overshoot).distance(x_ND)
    np.testing.assert_allclose(found, closed(x_ND, weight_CD, bias_C), rtol=1e-4, atol=1e-6)


def test_the_walk_with_the_bug_is_one_step_towards_the_last_class() -> None:
    weight_CD, bias_C = affine_head(4, 6)
    x_ND = rows(50, 6)
    found = affine_walk(weight_CD, bias_C, last_class_bug=True).distance(x_ND)
    np.testing.assert_allclose(found, closed(x_ND, weight_CD, bias_C, last_class_bug=True), rtol=1e-4)


Slopes = Callable[[Tensor, Tensor, Tensor], Tensor]


def network(dim: int, classes: int, seed: int = 0) -> tuple[torch.nn.Module, Slopes]:
    """Return a smooth network and its slopes by automatic differentiation: any classifier will do."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = torch.nn.Sequential(torch.nn.Linear(dim, 16), torch.nn.Tanh(), torch.nn.Linear(16, classes)).double()
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: net(x)))

    def slopes(x_nD: Tensor, class_nK: Tensor, label_n: Tensor) -> Tensor:
        jac_nCD = jacobian(x_nD).detach()
        rows = torch.arange(len(x_nD))
        return jac_nCD[rows[:, None], class_nK] - jac_nCD[rows, label_n][:, None]

    return net, slopes


def one_by_one(net: torch.nn.Module, x: Tensor, overshoot: float) -> float:
    """Return algorithm 2 of the paper for one row, with a gradient a class, as its text says."""
    label, moved = int(net(x).argmax()), torch.zeros_like(x)
    for _ in range(50):
        here = (x + (1 + overshoot) * moved).requires_grad_()
        logits = net(here)
        if int(logits.argmax()) != label:
            break
        own = torch.autograd.grad(logits[label], here, retain_graph=True)[0]
        best, step = math.inf, moved
        for c in range(len(logits)):
            if c != label:
                w = torch.autograd.grad(logits[c], here, retain_graph=True)[0] - own
                far = float(((logits[label] - logits[c]) / w.norm()).detach())
                if far < best:
                    best, step = far, far * w / w.norm()
        moved = moved + step
    return float(moved.norm())


@pytest.mark.parametrize("overshoot", [0.02, 0.5])
def test_a_curved_classifier_is_walked_as_one_row_alone_would_be(overshoot: float) -> None:
    net, slopes = network(5, 4)
    x_ND = rows(30, 5).double() * 2
    with torch.no_grad():
        found = boundary.Walk(lambda x: net(x), slopes, overshoot=overshoot).distance(x_ND)
    np.testing.assert_allclose(found, [one_by_one(net, x, overshoot) for x in x_ND], rtol=1e-6)


def test_the_perturbation_reaches_another_class() -> None:
    """No ball of 0.9 × the distance along the found direction changes the class; the walk's end does."""
    net, slopes = network(3, 3)
    x_ND = rows(40, 3).double()
    with torch.no_grad():
        found = boundary.Walk(lambda x: net(x), slopes).distance(x_ND)
        directions = torch.nn.functional.normalize(rows(3000, 3, seed=5).double(), dim=1)
        for x, far in zip(x_ND, found, strict=True):
            label = net(x).argmax()
            outside = net(x + 1.3 * float(far) * directions).argmax(dim=1)
            assert (outside != label).any(), "a sphere a little further out has another class somewhere"


def test_few_iterations_and_few_classes() -> None:
    net, slopes = network(5, 4)
    x_ND = rows(30, 5).double() * 3
    with torch.no_grad():
        all_of_them = boundary.Walk(lambda x: net(x), slopes).distance(x_ND)
        likeliest = boundary.Walk(lambda x: net(x), slopes, classes=1).distance(x_ND)
        once = boundary.Walk(lambda x: net(x), slopes, iterations=1).distance(x_ND)
    assert (likeliest >= all_of_them * 0.8).all() and (likeliest > all_of_them + 1e-3).any()
    assert (once <= all_of_them + 1e-9).all() and (once < all_of_them - 1e-3).any()


@pytest.mark.parametrize("count", [1, 17, 256, 300])
def test_rows_do_not_see_each_other(count: int) -> None:
    weight_CD, bias_C = affine_head(5, 8)
    x_ND = rows(600, 8)
    walk = affine_walk(weight_CD, bias_C)
    assert torch.equal(walk.distance(x_ND[100:][:count]), walk.distance(x_ND)[100:][:count])
    assert torch.equal(closed(x_ND[100:][:count], weight_CD, bias_C), closed(x_ND, weight_CD, bias_C)[100:][:count])


def test_no_rows() -> None:
    weight_CD, bias_C = affine_head(5, 8)
    assert affine_walk(weight_CD, bias_C).distance(torch.zeros(0, 8)).shape == (0,)
    assert closed(torch.zeros(0, 8), weight_CD, bias_C).shape == (0,)
