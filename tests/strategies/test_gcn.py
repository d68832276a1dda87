"""UncertainGCN and CoreGCN as strategies: their nodes, their picks, and what they say without labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

import alray.selection as selection
from alray import seeds
from alray.errors import StrategyError
from alray.models.head import Head
from alray.ops import gcn, kmeans
from alray.strategies import find
from alray.strategies.base import Given
from alray.table import Table


def given(rows: int = 80, labelled: int = 12, budget: int = 9, dim: int = 6) -> Given:
    matrix, _ = builders.features(rows + labelled, dim)
    hidden = torch.from_numpy(matrix.astype(np.float32))
    names = builders.ids(rows + labelled)
    hashes = torch.from_numpy(seeds.hash_ids(names).view(np.int64))
    sample = Table(names[:rows], {"hidden": hidden[:rows], "hash": hashes[:rows]})
    known = Table(names[rows:], {"hidden": hidden[rows:]})
    return Given(budget=budget, seed=5, round=2, labelled=known, sample=sample)


def trained(one: Given, **recipe: Any) -> tuple[np.ndarray, np.ndarray]:
    assert one.sample is not None and one.labelled is not None
    nodes = kmeans.unit_rows(torch.cat([one.sample["hidden"], one.labelled["hidden"]]))
    known = torch.arange(len(nodes)) >= len(one.sample)
    score, hidden = gcn.fit(nodes, known, gcn.Recipe(**recipe), seeds.torch_generator(5, "gcn", 2))
    return score.numpy(), hidden.double().numpy()


def scores(name: str, one: Given, **fields: Any) -> np.ndarray:
    strategy = find({"name": name, **fields})
    assert one.sample is not None
    return np.asarray(strategy.score(one.sample, strategy.prepare(one)))


def test_the_score_is_how_near_a_row_is_to_a_tenth() -> None:
    one = given()
    found = scores("uncertain_gcn", one, epochs=10)
    np.testing.assert_array_equal(found, -np.abs(trained(one, epochs=10)[0][:80] - np.float32(0.1)))


@pytest.mark.parametrize(("field", "recipe", "value"), [
    ("unlabelled_weight", "weight", 3.0), ("weight_decay", "decay", 0.1), ("dropout", "dropout", 0.6),
    ("learning_rate", "rate", 0.01), ("hidden", "hidden", 9), ("epochs", "epochs", 7),
])  # fmt: skip
def test_every_setting_reaches_the_training(field: str, recipe: str, value: float) -> None:
    one = given()
    found = scores("uncertain_gcn", one, **{"epochs": 10, field: value})
    np.testing.assert_array_equal(
        found, -np.abs(trained(one, **{"epochs": 10, recipe: value})[0][:80] - np.float32(0.1))
    )
    assert (found != scores("uncertain_gcn", one, epochs=10)).any()


def test_core_gcn_goes_farthest_first_from_the_labelled_nodes() -> None:
    one = given()
    found = scores("core_gcn", one, epochs=10)
    hidden = trained(one, epochs=10)[1]
    have, picks = list(range(80, 92)), []
    for _ in range(9):
        least = np.sqrt(((hidden[:80, None] - hidden[have]) ** 2).sum(axis=2)).min(axis=1)
        picks.append(int(least.argmax()))
        assert found[picks[-1]] == pytest.approx(least.max(), rel=1e-4)
        have.append(picks[-1])
    assert set(np.flatnonzero(np.isfinite(found)).tolist()) == set(picks)
    assert np.argsort(-found, kind="stable")[:9].tolist() == picks


@pytest.mark.parametrize("name", ["uncertain_gcn", "core_gcn"])
def test_picks_come_from_the_subset_and_the_rest_is_filled(name: str, tmp_path: Path) -> None:
    path, _, names, truth = builders.features_pool(tmp_path, files=(60, 40))
    labels = {names[i]: truth[i] for i in range(0, 100, 10)}
    strategy = {"name": name, "subset": 15, "epochs": 5}
    found = selection.select(strategy, path, budget=20, labels=labels, runtime="local")
    assert found.report["sample"] == 15 and found.report["filled"] == 5
    assert found.picks.reasons == ("strategy",) * 15 + ("fill",) * 5


def test_no_more_labelled_nodes_than_the_subset_has_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def fit(units: torch.Tensor, known: torch.Tensor, *_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((len(units), int(known.sum())))
        return torch.zeros(len(units)), torch.zeros(len(units), 3)

    monkeypatch.setattr(gcn, "fit", fit)
    scores("uncertain_gcn", given(rows=80, labelled=12), subset=7)
    assert seen == [(87, 7)]


@pytest.mark.parametrize("name", ["uncertain_gcn", "core_gcn"])
def test_a_head_without_labels_is_no_help(name: str, tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path, files=(30,), dim=8)
    head = Head.linear(np.eye(3, 8, dtype=np.float32), np.zeros(3, dtype=np.float32), list("abc"))
    with pytest.raises(StrategyError, match=rf"`{name}` learns.*no labels.*`typiclust`, `prob_cover` or `random`"):
        selection.select(name, path, budget=3, head=head, runtime="local")
