"""The graph network against dense NumPy, its gradient against finite differences, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alray import seeds
from alray.ops import gcn, kmeans


def units(rows: int, dim: int = 5, seed: int = 0, positive: bool = False) -> torch.Tensor:
    x = np.random.default_rng(seed).normal(size=(rows, dim))
    return kmeans.unit_rows(torch.from_numpy(np.abs(x) if positive else x))


def adjacency(x: torch.Tensor) -> np.ndarray:
    """A = S D⁻¹ + I, entry by entry."""
    y = x.double().numpy()
    s = np.maximum(y @ y.T, 0)
    np.fill_diagonal(s, 0)
    return s / np.maximum(s.sum(axis=0), 1e-12) + np.eye(len(y))


def weights(dim: int = 5, hidden: int = 7, seed: int = 0) -> gcn.Weights:
    return gcn.Weights.drawn(dim, hidden, seeds.torch_generator(seed, "test"))


@pytest.mark.parametrize("positive", [False, True])
def test_products_with_the_graph_are_those_of_the_dense_matrix(positive: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcn, "BLOCK", 16)
    x = units(50, positive=positive)
    graph, dense, values = gcn.Graph(x), adjacency(x), np.random.default_rng(1).normal(size=(50, 3))
    given = torch.from_numpy(values).float()
    np.testing.assert_allclose((graph @ given).numpy(), dense @ values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(graph.back(given).numpy(), dense.T @ values, rtol=1e-5, atol=1e-5)
    assert bool(graph._blocks) != positive


def test_beside_its_own_weight_a_column_adds_up_to_one() -> None:
    eye = torch.eye(30)
    assert torch.allclose((gcn.Graph(units(30)) @ eye).sum(dim=0), torch.full((30,), 2.0), atol=1e-5)


def test_a_node_without_neighbours_keeps_its_own_values() -> None:
    # Opposite, orthogonal and zero rows: no weight between any two.
    x = kmeans.unit_rows(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]]))
    values = torch.arange(8.0).reshape(4, 2)
    assert torch.equal(gcn.Graph(x) @ values, values)


def sparse(rows: int = 200, dim: int = 64, seed: int = 0) -> torch.Tensor:
    """Return fp16 unit rows as behind a ReLU, a tenth of each not zero; the last two share no coordinate with any."""
    rng = np.random.default_rng(seed)
    x = np.abs(rng.normal(size=(rows, dim))) * (rng.random((rows, dim)) < 0.1)
    x[:, 0] += 0.1 * rng.random(rows)
    x[:, -6:], x[-2:] = 0, 0
    x[-2, -6:-3], x[-1, -3:] = rng.random(3) + 0.2, rng.random(3) + 0.2
    return kmeans.unit_rows(torch.from_numpy(x))


@pytest.mark.parametrize("seed", range(5))
def test_thin_products_beside_nodes_without_neighbours(seed: int) -> None:
    """x·Σx − ‖x‖² of such a node is rounding, which must not be divided by."""
    x, values = sparse(seed=seed), np.random.default_rng(1).normal(size=(200, 3))
    graph, dense, given = gcn.Graph(x), adjacency(x), torch.from_numpy(values).float()
    np.testing.assert_allclose((graph @ given).numpy(), dense @ values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(graph.back(given).numpy(), dense.T @ values, rtol=1e-5, atol=1e-5)
    assert torch.equal((graph @ given)[-2:], given[-2:]) and (graph @ given).dtype == torch.float32


def test_thin_products_of_rows_that_are_no_fp16_numbers() -> None:
    """Then the squares do not cancel to the last bit, and what is left of them is no neighbour."""
    rng = np.random.default_rng(3)
    x = sparse().double() * torch.from_numpy(rng.uniform(0.9, 1.1, size=(200, 1)))
    x = torch.nn.functional.normalize(x, dim=1).float()
    values = torch.from_numpy(rng.normal(size=(200, 2))).float()
    np.testing.assert_allclose((gcn.Graph(x) @ values).numpy(), adjacency(x) @ values.double().numpy(), atol=1e-5)


def test_a_neighbour_that_is_far_still_counts() -> None:
    """One weak neighbour has the whole of a column, however little it weighs beside all others."""
    x = sparse()
    x[-1, -6] = 1e-3
    values = torch.from_numpy(np.random.default_rng(1).normal(size=(200, 2))).float()
    dense = adjacency(x)
    assert dense[-2, -1] == 1
    np.testing.assert_allclose((gcn.Graph(x) @ values).numpy(), dense @ values.double().numpy(), atol=1e-5)


def test_hidden_activations_beside_nodes_without_neighbours_stay_small() -> None:
    recipe = gcn.Recipe(epochs=3, hidden=16)
    assert gcn.fit(sparse(seed=1), torch.arange(200) < 20, recipe, seeds.torch_generator(0, "test"))[1].max() < 5


def test_the_forward_pass_is_that_of_dense_numpy() -> None:
    x, w = units(40), weights()
    graph, dense = gcn.Graph(x), adjacency(x)
    first, bias, second, last = (t.double().numpy() for t in w.all())
    hidden = np.maximum(dense @ x.double().numpy() @ first + bias, 0)
    got = gcn.hidden(graph @ x.float(), w)
    np.testing.assert_allclose(got.numpy(), hidden, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(gcn.logits(got, graph, w).numpy(), (dense @ hidden @ second)[:, 0] + last, atol=1e-4)


def test_the_loss_weighs_the_means_of_both_kinds() -> None:
    logit, labelled = torch.tensor([0.0, 2.0, -1.0]), torch.tensor([True, False, False])
    s = 1 / (1 + np.exp(-logit.numpy()))
    by_hand = -np.log(s[0]) - 1.2 * (np.log(1 - s[1]) + np.log(1 - s[2])) / 2
    assert float(gcn.loss(logit, labelled, 1.2)) == pytest.approx(by_hand, rel=1e-6)
    assert torch.isfinite(gcn.loss(torch.tensor([-200.0, 200.0]), torch.tensor([True, False]), 1.2))


@pytest.mark.parametrize("positive", [False, True])
def test_the_gradient_is_that_of_finite_differences(positive: bool) -> None:
    x, w = units(30, positive=positive), weights(hidden=4)
    graph, labelled = gcn.Graph(x), torch.arange(30) < 8
    spread = graph @ x.float()
    for tensor in w.all():
        tensor.requires_grad_()
    gcn.loss(gcn.logits(gcn.hidden(spread, w), graph, w), labelled, 1.2).backward()  # type: ignore[no-untyped-call]
    dense, wide = adjacency(x), [t.detach().double().numpy() for t in w.all()]

    def loss(parts: list[np.ndarray]) -> float:
        hidden = np.maximum(dense @ x.double().numpy() @ parts[0] + parts[1], 0)
        z = (dense @ hidden @ parts[2])[:, 0] + parts[3]
        known = labelled.numpy()
        return float(np.log1p(np.exp(-z[known])).mean() + 1.2 * np.log1p(np.exp(z[~known])).mean())

    for number, tensor in enumerate(w.all()):
        for at in np.ndindex(tensor.shape):
            sides = []
            for step in (1e-5, -1e-5):
                parts = [part.copy() for part in wide]
                parts[number][at] += step
                sides.append(loss(parts))
            assert float(tensor.grad[at]) == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=2e-4)  # type: ignore[index]


@pytest.mark.parametrize(("dropout", "decay"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.3), (0.4, 0.2)])
def test_training_is_adam_by_hand(dropout: float, decay: float) -> None:
    """Five epochs of Kingma & Ba's algorithm 1 in NumPy with the gradient by the chain rule, from the same draws.

    Decay is added to the gradient; what dropout keeps grows by 1/(1 − dropout).
    """
    recipe = gcn.Recipe(hidden=6, epochs=5, rate=0.02, decay=decay, dropout=dropout, weight=1.7)
    x, labelled = units(40), np.arange(40) < 12
    score, hidden = gcn.fit(x, torch.from_numpy(labelled), recipe, seeds.torch_generator(1, "test"))
    generator = seeds.torch_generator(1, "test")
    parts = [t.double().numpy() for t in gcn.Weights.drawn(5, 6, generator).all()]
    dense = adjacency(x)
    spread = dense @ x.double().numpy()
    mean, square = [np.zeros_like(p) for p in parts], [np.zeros_like(p) for p in parts]

    def forward(keep: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        activation = np.maximum(spread @ parts[0] + parts[1], 0)
        return activation, (dense @ (activation * keep) @ parts[2])[:, 0] + parts[3]

    for epoch in range(1, 6):
        keep = (torch.rand(40, 6, generator=generator) >= dropout).double().numpy() / (1 - dropout)
        activation, z = forward(keep)
        s = 1 / (1 + np.exp(-z))
        dz = np.where(labelled, (s - 1) / 12, 1.7 * s / 28)[:, None]
        back = dense.T @ dz
        down = back @ parts[2].T * keep * (activation > 0)
        slopes = [spread.T @ down, down.sum(axis=0), (activation * keep).T @ back, dz.sum(axis=0)]
        for at, slope in enumerate(slopes):
            slope = slope + decay * parts[at]
            mean[at], square[at] = 0.9 * mean[at] + 0.1 * slope, 0.999 * square[at] + 0.001 * slope**2
            move = (mean[at] / (1 - 0.9**epoch)) / (np.sqrt(square[at] / (1 - 0.999**epoch)) + 1e-8)
            parts[at] = parts[at] - 0.02 * move
    activation, z = forward(1.0)
    np.testing.assert_allclose(hidden.numpy(), activation, atol=1e-4)
    np.testing.assert_allclose(score.numpy(), 1 / (1 + np.exp(-z)), atol=1e-4)


def test_what_is_labelled_looks_labelled_after_training() -> None:
    # Two blobs, and every label in one of them: the other blob looks unlabelled.
    rng = np.random.default_rng(0)
    centres = np.repeat([[3.0, 0, 0, 1], [0, 3.0, 1, 0]], 60, axis=0)
    x = kmeans.unit_rows(torch.from_numpy(centres + rng.normal(scale=0.3, size=(120, 4))))
    labelled = torch.arange(120) < 40
    score, hidden = gcn.fit(x, labelled, gcn.Recipe(), seeds.torch_generator(0, "test"))
    assert hidden.shape == (120, 128) and ((score > 0) & (score < 1)).all()
    assert score[labelled].min() > score[60:].max()


def test_the_same_generator_trains_the_same_network() -> None:
    x, labelled = units(60), torch.arange(60) < 20
    runs = [gcn.fit(x, labelled, gcn.Recipe(epochs=20), seeds.torch_generator(s, "test"))[0] for s in (3, 3, 4)]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_without_dropout_more_steps_lower_the_loss() -> None:
    x, labelled = units(60), torch.arange(60) < 20

    def loss(epochs: int) -> float:
        recipe = gcn.Recipe(epochs=epochs, dropout=0.0)
        score = gcn.fit(x, labelled, recipe, seeds.torch_generator(0, "test"))[0]
        return float(gcn.loss(score.logit(), labelled, 1.2))

    losses = [loss(epochs) for epochs in (1, 10, 50, 200)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.98 * losses[0]
