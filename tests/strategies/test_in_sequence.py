"""CoreSet, CDAL, BADGE and k-means++ as strategies: what they measure and ask for, and how picks are scored."""

from __future__ import annotations

from pathlib import Path

import builders
import numpy as np
import pytest
import torch

import alray.selection as selection
from alray import seeds
from alray.errors import StrategyError
from alray.models.head import Head
from alray.strategies import find
from alray.strategies.diversity import DSquared, KCentre
from alray.table import Table
from alray.training import HeadConfig

NAMES = ["coreset", "cdal", "badge", "kmeans_pp"]


@pytest.fixture
def pool(tmp_path: Path) -> tuple[str, np.ndarray, list[str], dict[str, str]]:
    path, matrix, names, labels = builders.features_pool(tmp_path, files=(120, 80), dim=6)
    return path, matrix.astype(np.float64), names, dict(zip(names[:30], labels[:30], strict=True))


def test_coreset_is_plain_greedy(pool: tuple[str, np.ndarray, list[str], dict[str, str]]) -> None:
    path, x, names, labels = pool
    found = selection.select("coreset", path, budget=60, labels=labels)
    nearest, wanted, lengths = ((x[:, None] - x[:30]) ** 2).sum(axis=2).min(axis=1), [], []
    for _ in range(60):
        at = int(nearest.argmax())
        wanted.append(names[at])
        lengths.append(nearest[at] ** 0.5)
        nearest = np.minimum(nearest, ((x - x[at]) ** 2).sum(axis=1))
    assert found.picks.ids.tolist() == wanted and set(found.picks.reasons) == {"strategy"}
    np.testing.assert_allclose(found.picks.scores, lengths, rtol=1e-6)
    assert found.report["diversity"] == "kcentre" and found.report["radius"] == pytest.approx(nearest.max() ** 0.5)


def head_of(labels: dict[str, str]) -> Head:
    return Head.linear(np.random.default_rng(0).normal(size=(4, 6)), np.zeros(4), sorted(set(labels.values())))


def probabilities(head: Head, x: np.ndarray) -> np.ndarray:
    """Return softmax(Wx + b) in fp64, [N, C]."""
    odds = np.exp(x @ head.weights["weight"].astype(np.float64).T + head.weights["bias"])
    return odds / odds.sum(axis=1, keepdims=True)


def raced(squared_NN: np.ndarray, centres: list[int], names: list[str], budget: int, seed: int) -> list[int]:
    """Return D² sampling's picks: every row waits for a sum of squared distances, the next to have it is picked."""
    wait_N = -np.log(seeds.uniform(seeds.key(seed, "race", 0), seeds.hash_ids(names)))
    chosen, spent_N = list(centres), np.zeros(len(names))
    for _ in range(budget):
        rate_N = squared_NN[:, chosen].min(axis=1)
        rate_N[chosen] = 0
        with np.errstate(divide="ignore", invalid="ignore"):
            left_N = np.where(rate_N > 0, (wait_N - spent_N) / rate_N, np.inf)
        chosen.append(int(left_N.argmin()))
        spent_N += rate_N * left_N.min()
    return chosen[len(centres) :]


def apart(x_NP: np.ndarray) -> np.ndarray:
    """Return the squared distances of all pairs of rows."""
    return ((x_NP[:, None] - x_NP) ** 2).sum(axis=2)


def test_cdal_is_plain_greedy_by_the_mean_of_both_divergences(
    pool: tuple[str, np.ndarray, list[str], dict[str, str]],
) -> None:
    path, x, names, labels = pool
    head = head_of(labels)
    p = probabilities(head, x)
    log = np.log(np.maximum(p, 1e-12))
    kl = (p[:, None] * (log[:, None] - log)).sum(axis=2)
    far_NN, chosen, wanted = (kl + kl.T) / 2, list(range(30)), []
    for _ in range(40):
        nearest = far_NN[:, chosen].min(axis=1)
        chosen.append(int(nearest.argmax()))
        wanted.append(nearest.max())
    found = selection.select("cdal", path, budget=40, labels=labels, head=head).picks
    assert found.ids.tolist() == [names[i] for i in chosen[30:]]
    np.testing.assert_allclose(found.scores, wanted, rtol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_badge_is_the_race_of_whole_gradients(
    seed: int, pool: tuple[str, np.ndarray, list[str], dict[str, str]]
) -> None:
    """The gradients of C × H numbers a row, made; labelled rows are no centres, and the longest gradient is first."""
    path, x, names, labels = pool
    head, x, free = head_of(labels), x[30:], names[30:]
    p = probabilities(head, x)
    gradient_NP = ((p - np.eye(4)[p.argmax(axis=1)])[:, :, None] * x[:, None]).reshape(len(x), -1)
    first = int((gradient_NP**2).sum(axis=1).argmax())
    wanted = [first, *raced(apart(gradient_NP), [first], free, 19, seed)]
    found = selection.select("badge", path, budget=20, labels=labels, head=head, seed=seed).picks
    assert found.ids.tolist() == [free[i] for i in wanted]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("labelled", [0, 30])
def test_kmeans_pp_is_the_race_of_unit_rows(
    seed: int, labelled: int, pool: tuple[str, np.ndarray, list[str], dict[str, str]]
) -> None:
    path, x, names, labels = pool
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16).astype(np.float64)
    drawn = int(seeds.uniform(seeds.key(seed, "first centre", 0), seeds.hash_ids(names)).argmax())
    centres = list(range(labelled)) or [drawn]
    wanted = raced(apart(unit), centres, names, 20 if labelled else 19, seed)
    found = selection.select("kmeans_pp", path, budget=20, labels=labels if labelled else None, seed=seed).picks
    assert found.ids.tolist() == [names[i] for i in (wanted if labelled else [drawn, *wanted])]


def test_coreset_below_an_mlp_head_measures_where_it_is_told(
    pool: tuple[str, np.ndarray, list[str], dict[str, str]],
) -> None:
    path, _, _, labels = pool
    arrays = {"hidden_weight": np.eye(6)[:2], "hidden_bias": np.zeros(2), "weight": np.eye(2), "bias": np.zeros(2)}
    mlp = Head("mlp", ("class-0", "class-1"), arrays)
    kept = {i: label for i, label in labels.items() if label in mlp.classes}
    radius = [
        selection.select("coreset", path, budget=20, labels=kept, head=mlp, space=space).report["radius"]  # type: ignore[arg-type]
        for space in ("activations", "features")
    ]
    assert radius[0] < radius[1]


def test_cdal_takes_probabilities_once_or_twice() -> None:
    rows = Table(["a", "b"], {"probs": torch.tensor([[0.9, 0.1], [0.2, 0.8]])})
    assert torch.equal(find("cdal").points(rows, {}), rows["probs"])
    twice = find({"name": "cdal", "double_softmax": True}).points(rows, {})
    torch.testing.assert_close(twice, rows["probs"].softmax(dim=1))


def test_badge_points_are_residuals_and_activations() -> None:
    rows = Table(["a"], {"probs": torch.tensor([[0.75, 0.25]]), "hidden": torch.tensor([[3.0, 4.0, 5.0]])})
    points = find("badge").points(rows, {})
    assert torch.equal(points, torch.tensor([[-0.25, 0.25, 3, 4, 5]]))


def test_badge_starts_with_the_longest_gradient_or_at_random(
    pool: tuple[str, np.ndarray, list[str], dict[str, str]],
) -> None:
    path, x, names, labels = pool
    head = Head.linear(np.random.default_rng(0).normal(size=(4, 6)), np.zeros(4), sorted(set(labels.values())))
    probs = head.logits(torch.from_numpy(x).float()).softmax(dim=1).double().numpy()
    residual = probs - np.eye(4)[probs.argmax(axis=1)]
    length = np.linalg.norm(residual, axis=1) * np.linalg.norm(x, axis=1)
    for seed in (0, 1):
        found = selection.select("badge", path, budget=20, labels=labels, head=head, seed=seed)
        assert found.picks.ids[0] == names[30 + int(length[30:].argmax())]
        assert found.picks.scores.tolist() == list(range(20, 0, -1))
    first = {
        selection.select(
            {"name": "badge", "first": "uniform"}, path, budget=2, labels=labels, head=head, seed=s
        ).picks.ids[0]
        for s in range(6)
    }
    assert len(first) > 1


def test_kmeans_pp_measures_directions() -> None:
    rows = Table(["a", "b"], {"features": torch.tensor([[3.0, 4.0], [0.0, 0.0]])})
    points = find("kmeans_pp").points(rows, {})
    torch.testing.assert_close(points, torch.tensor([[0.6, 0.8], [0.0, 0.0]]), rtol=1e-3, atol=0)


def test_rows_whose_points_are_no_numbers_have_no_score() -> None:
    rows = Table(
        ["a", "b"], {"features": torch.tensor([[1.0], [torch.inf]]), "probs": torch.tensor([[1.0], [torch.nan]])}
    )
    for name in ("coreset", "cdal"):
        score = find(name).score(rows, {})
        assert score[0] == 0 and score[1].isnan()


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_reach_the_diversity(name: str) -> None:
    assert find(name).diversity.exact and not find({"name": name, "rounds": "two_round"}).diversity.exact
    with pytest.raises(StrategyError, match=r"rounds"):
        find({"name": name, "rounds": "three"})


def test_what_each_asks_for() -> None:
    assert find("coreset").diversity == KCentre()
    assert find("cdal").diversity == KCentre("symmetric_kl")
    assert find("badge").diversity == DSquared("gradient", from_labelled=False, first="norm")
    assert find("kmeans_pp").diversity == DSquared()


@pytest.mark.parametrize("name", ["cdal", "badge"])
def test_a_head_is_enough_without_labels(name: str, pool: tuple[str, np.ndarray, list[str], dict[str, str]]) -> None:
    head = Head.linear(np.eye(4, 6), np.zeros(4), list("abcd"))
    found = selection.select(name, pool[0], budget=15, head=head).picks
    assert len(set(found.ids)) == 15 and set(found.reasons) == {"strategy"}


@pytest.mark.parametrize("name", NAMES)
def test_an_mlp_head(name: str, pool: tuple[str, np.ndarray, list[str], dict[str, str]]) -> None:
    given = {"labels": pool[3], "head_config": HeadConfig(kind="mlp", hidden=8, epochs=2)}
    assert len(selection.select(name, pool[0], budget=15, **given).picks) == 15  # type: ignore[arg-type]
