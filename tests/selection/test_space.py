"""`selection.space`: diversity on the head's activations, or on the features below it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import builders
import numpy as np
import pytest
import torch
from torch import Tensor

import alray.selection as selection
from alray.features import from_pool
from alray.models.head import Head
from alray.pool import Pool
from alray.selection.resident import Exclusion, Scan, Space
from alray.strategies import Diversity, Strategy, find
from alray.strategies.diversity import KMeans
from alray.strategies.shortlist import GrowingCap, Shortlist
from alray.table import Table
from alray.training import HeadConfig


class Spread(Strategy):
    """Every row is a candidate, and diversity alone decides."""

    name: Literal["spread"] = "spread"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "probs"})
    exact: ClassVar[bool] = False

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return torch.full((len(rows),), -0.1)

    def shortlist(self, budget: int) -> Shortlist:
        return GrowingCap(0.2, budget)

    @property
    def diversity(self) -> Diversity:
        return KMeans()


@pytest.fixture
def spots(tmp_path: Path) -> tuple[str, dict[str, int]]:
    """Six directions of features, of which an MLP head that adds up halves of the coordinates sees two."""
    rng = np.random.default_rng(2)
    matrix = np.concatenate([s + rng.normal(scale=0.02, size=(30, 6)) for s in np.eye(6) * 8]).astype(np.float16)
    names = builders.ids(len(matrix))
    for number, part in enumerate(np.array_split(rng.permutation(len(matrix)), 5)):
        columns = {"id": [names[i] for i in part], "features": builders.vectors(matrix[part])}
        builders.parquet(tmp_path / f"pool-{number}.parquet", columns)
    return str(tmp_path), {name: i // 30 for i, name in enumerate(names)}


def two_halves() -> Head:
    halves = np.repeat(np.eye(2), 3, axis=1)
    arrays = {"hidden_weight": halves, "hidden_bias": np.zeros(2), "weight": np.eye(2), "bias": np.zeros(2)}
    return Head("mlp", ("low", "high"), arrays)


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_features_tell_rows_apart_that_activations_do_not(spots: tuple[str, dict[str, int]], regime: str) -> None:
    path, spot_of = spots
    seen: dict[str, list[int]] = {}
    for space in ("features", "activations"):
        given: dict[str, Any] = {"head": two_halves(), "regime": regime, "space": space}
        found = selection.select(Spread(), path, budget=6, **given)
        seen[space] = sorted(spot_of[i] for i in found.picks.ids)
        assert found.report["space"] == space and found.report["regime"] == regime
    assert seen["features"] == [0, 1, 2, 3, 4, 5]
    assert seen["activations"] != seen["features"]


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_below_a_linear_head_both_are_the_same(tmp_path: Path, regime: str) -> None:
    path, _, names, labels = builders.features_pool(tmp_path, files=(200, 100))
    known = dict(zip(names[:40], labels[:40], strict=True))
    spaces: tuple[Space, ...] = ("activations", "features")
    found = [
        selection.select("alfa_mix", path, budget=12, labels=known, regime=regime, space=space)  # type: ignore[arg-type]
        for space in spaces
    ]
    assert found[0].picks.digest() == found[1].picks.digest()


@pytest.mark.parametrize("regime", ["central", "coreset"])
def test_shuffled_shards_give_the_same_picks_by_features(spots: tuple[str, dict[str, int]], regime: str) -> None:
    features = from_pool(Pool.open(spots[0], rows_per_shard=16))
    turned = dataclasses.replace(features, shards=features.shards[::-1])
    given: dict[str, Any] = {"head": two_halves(), "regime": regime, "space": "features"}
    digests = {selection.select(Spread(), one, budget=9, **given).picks.digest() for one in (features, turned)}
    assert len(digests) == 1


@pytest.mark.parametrize("alpha", ["closed_form", "random", "learned"])
def test_features_below_an_mlp_head_are_mixed_there(tmp_path: Path, alpha: str) -> None:
    path, _, names, labels = builders.features_pool(tmp_path)
    known = dict(zip(names[:40], labels[:40], strict=True))
    given: dict[str, Any] = {"labels": known, "head_config": HeadConfig(kind="mlp", hidden=8, epochs=3), "budget": 5}
    strategy = {"name": "alfa_mix", "alpha": alpha, "cap_step": 0.1}
    found = {space: selection.select(strategy, path, space=space, **given) for space in ("activations", "features")}
    assert [len(one.picks) for one in found.values()] == [5, 5]
    caps = -found["features"].picks.scores[np.array(found["features"].picks.reasons) == "strategy"] / 0.1
    assert len(caps) and np.abs(caps - caps.round()).max() < 1e-5  # caps that were tried
    assert found["features"].picks.digest() != found["activations"].picks.digest()


def test_points_are_of_the_space_and_of_its_size() -> None:
    rows = torch.ones(3, 6)
    for space, dim in (("activations", 2), ("features", 6)):
        scan = Scan("t", "v", find("random"), {}, two_halves(), Exclusion(frozenset()), space)  # type: ignore[arg-type]
        assert scan.points(rows).shape == (3, dim) and scan.points_dim(6) == dim
    assert Scan("t", "v", find("random"), {}, None, Exclusion(frozenset())).points_dim(6) == 6
