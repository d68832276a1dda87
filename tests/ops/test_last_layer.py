"""The last layer's gradient and Hessian, against finite differences, autograd's Hessian, and fits with one row more."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from alray.ops import conjugate_gradients, influence, last_layer
from alray.ops.last_layer import Curvature

M, D, C, L2 = 60, 4, 3, 3.0


class Problem:
    """A small logistic regression, Σ wᵢ·CEᵢ + ½·l2·‖W‖², fitted until nothing moves; a reference set; candidates."""

    def __init__(self, seed: int = 0, weighted: bool = False, rows: int = M) -> None:
        rng = np.random.default_rng(seed)
        centres = rng.normal(size=(C, D))
        self.label_M, self.label_R = rng.integers(C, size=rows), rng.integers(C, size=30)
        self.x_MD = centres[self.label_M] + rng.normal(size=(rows, D))
        self.x_RD = centres[self.label_R] + rng.normal(size=(30, D))
        self.z_ND, self.label_N = rng.normal(size=(25, D)) * 1.5, rng.integers(C, size=25)
        self.weight_M = rng.uniform(0.5, 2, size=rows) if weighted else np.ones(rows)
        self.theta = self.fit()

    def fit(self, row: int | None = None, label: int | None = None, times: float = 1.0) -> np.ndarray:
        """Return θ [C, D + 1] of least loss, by Newton's method, with a candidate added `times`."""
        x, y, w = self.x_MD, self.label_M, self.weight_M
        if row is not None:
            x, y, w = np.r_[x, self.z_ND[row : row + 1]], np.r_[y, label], np.r_[w, times]
        x, onehot = np.c_[x, np.ones(len(x))], np.eye(C)[y]
        ridge = np.tile(np.r_[np.full(D, L2), 0.0], C)

        def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
            logits = x @ theta.reshape(C, D + 1).T
            logp = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            slope = ((np.exp(logp) - onehot) * w[:, None]).T @ x
            return -(w[:, None] * onehot * logp).sum() + 0.5 * (ridge * theta**2).sum(), slope.ravel() + ridge * theta

        theta = minimize(loss, np.zeros(C * (D + 1)), jac=True, method="BFGS", options={"gtol": 1e-9}).x
        for _ in range(4):  # to the last digit
            logits = x @ theta.reshape(C, D + 1).T
            p = np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True))
            bend = np.diag(ridge).astype(float)
            for pi, xi, wi in zip(p, x, w, strict=True):
                bend += wi * np.kron(np.diag(pi) - np.outer(pi, pi), np.outer(xi, xi))
            theta = theta - np.linalg.pinv(bend) @ loss(theta)[1]
        return theta.reshape(C, D + 1)

    def reference(self, theta: np.ndarray) -> float:
        """Return the mean loss of the reference set."""
        logits = np.c_[self.x_RD, np.ones(len(self.x_RD))] @ theta.T
        return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(logits)), self.label_R]).mean())

    def curvature(self, damping: float = 0.0) -> Curvature:
        weight, bias = self.layer()
        return Curvature.of(t(self.x_MD), weight, bias, weight_M=t(self.weight_M), l2=L2, damping=damping)

    def layer(self) -> tuple[Tensor, Tensor]:
        return t(self.theta[:, :-1]), t(self.theta[:, -1])

    def predicted(self) -> np.ndarray:
        """Return I(z, R) of every candidate with its label: by the product, conjugate gradients and `of_label`."""
        curve, (weight, bias) = self.curvature(), self.layer()
        v = last_layer.gradient(t(self.x_RD), torch.from_numpy(self.label_R), weight, bias)
        s = conjugate_gradients.solve(curve.times, v, tol=1e-13, iterations=500).s
        probs = last_layer.logits(t(self.z_ND), weight, bias).softmax(1)
        along = last_layer.with_one(t(self.z_ND)) @ s.T
        return -influence.of_label(probs, along, torch.from_numpy(self.label_N)).numpy()


def t(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, dtype=np.float64))


@pytest.mark.parametrize("weighted", [False, True])
def test_p33_influence_is_what_refitting_does(weighted: bool) -> None:
    """P33: I(z, R) is the slope of the reference loss by the weight of z, by central differences of refits."""
    problem, step = Problem(weighted=weighted), 1e-4
    measured = []
    for row, label in enumerate(problem.label_N):
        up, down = (problem.reference(problem.fit(row, int(label), sign * step)) for sign in (1, -1))
        measured.append((up - down) / (2 * step))
    np.testing.assert_allclose(problem.predicted(), measured, atol=2e-7)


def test_p33_adding_a_row_moves_the_reference_loss_as_predicted() -> None:
    """P33, P39: predicted and true change of adding each row once; the most helpful one really helps."""
    problem = Problem(rows=400)
    before = problem.reference(problem.theta)
    true = [problem.reference(problem.fit(row, int(label))) - before for row, label in enumerate(problem.label_N)]
    predicted = problem.predicted()
    assert np.corrcoef(predicted, true)[0, 1] > 0.995
    best = int(predicted.argmin())
    assert predicted[best] < 0 and true[best] < 0  # P40: ascending influence begins with what helps


def test_the_gradient_is_autograds() -> None:
    problem = Problem()
    weight, bias = (part.clone().requires_grad_() for part in problem.layer())
    F.cross_entropy(t(problem.x_RD) @ weight.T + bias, torch.from_numpy(problem.label_R)).backward()
    found = last_layer.gradient(t(problem.x_RD), torch.from_numpy(problem.label_R), *problem.layer())
    assert weight.grad is not None and bias.grad is not None
    np.testing.assert_allclose(found[:, :-1], weight.grad, atol=1e-12)
    np.testing.assert_allclose(found[:, -1], bias.grad, atol=1e-12)


def dense(problem: Problem, damping: float) -> Tensor:
    """Return the Hessian [C·(D + 1), C·(D + 1)] by autograd."""
    x, y, w = last_layer.with_one(t(problem.x_MD)), torch.from_numpy(problem.label_M), t(problem.weight_M)

    def loss(theta: Tensor) -> Tensor:
        losses = F.cross_entropy(x @ theta.view(C, D + 1).T, y, reduction="none")
        weights = theta.view(C, D + 1)[:, :-1]
        return (w * losses).sum() + 0.5 * L2 * weights.square().sum() + 0.5 * damping * theta.square().sum()

    found: Tensor = torch.autograd.functional.hessian(loss, t(problem.theta.ravel()))  # type: ignore[no-untyped-call]
    return found


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_p38_the_product_is_the_hessians(damping: float) -> None:
    """P38: H S against autograd's whole Hessian and against differences of gradients, and symmetric."""
    problem = Problem(1, weighted=True)
    draw = torch.Generator().manual_seed(3)
    a, b = (torch.randn(C, D + 1, generator=draw, dtype=torch.float64) for _ in range(2))
    curve = problem.curvature(damping)
    np.testing.assert_allclose(curve.times(a).ravel(), dense(problem, damping) @ a.ravel(), atol=1e-10)
    assert float((a * curve.times(b)).sum()) == pytest.approx(float((b * curve.times(a)).sum()), rel=1e-12)
    ends = []
    for sign in (1, -1):
        theta = (t(problem.theta) + sign * 1e-5 * a).requires_grad_()
        losses = F.cross_entropy(
            last_layer.with_one(t(problem.x_MD)) @ theta.T, torch.from_numpy(problem.label_M), reduction="none"
        )
        ridge = 0.5 * L2 * theta[:, :-1].square().sum() + 0.5 * damping * theta.square().sum()
        ends.append(torch.autograd.grad((t(problem.weight_M) * losses).sum() + ridge, theta)[0])
    np.testing.assert_allclose(curve.times(a), (ends[0] - ends[1]) / 2e-5, atol=1e-5)


def test_the_rows_products_add_up_to_the_whole() -> None:
    problem = Problem(2, weighted=True)
    s = torch.randn(C, D + 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    curve = problem.curvature()
    np.testing.assert_allclose(sum(curve.times_row(row, s) for row in range(M)), curve.times(s), atol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_conjugate_gradients_agree_with_a_dense_solve(offset: float) -> None:
    problem = Problem(3)
    problem.x_MD += offset
    problem.theta = problem.fit()
    v = torch.randn(C, D + 1, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    curve = problem.curvature(damping=0.01)
    factor = curve.precondition()
    assert factor is not None
    found = conjugate_gradients.solve(
        curve.times, v, tol=1e-12, iterations=300, precondition=lambda r: torch.cholesky_solve(r.T, factor).T
    )
    wanted = torch.linalg.solve(dense(problem, 0.01), v.ravel()).view(C, D + 1)
    np.testing.assert_allclose(found.s, wanted, atol=1e-7 * float(wanted.abs().max()))
    assert found.residual <= 1e-12 and found.iterations < 60


def test_one_class_curves_nowhere_and_has_no_gradient() -> None:
    x, weight, bias = torch.randn(5, 2).double(), torch.randn(1, 2).double(), torch.zeros(1).double()
    assert last_layer.gradient(x, torch.zeros(5, dtype=torch.int64), weight, bias).abs().max() == 0
    curve = Curvature.of(x, weight, bias, weight_M=None, l2=0.0, damping=0.0)
    assert curve.times(torch.ones(1, 3).double()).abs().max() == 0 and curve.precondition() is None
