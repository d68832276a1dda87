"""Dropout draws of a whole network: a selection over pictures, cut as one likes, and backbones that have no dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray.errors import StrategyError
from alray.features import FeaturesConfig, FeatureSet, build
from alray.models.backbone import plain
from alray.models.head import Head
from alray.models.network import Network
from alray.ops import dropout_layers
from alray.ops.disagreement import mutual_information
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.selection import Selection, select
from alray.strategies import Given, find
from alray.table import Table

BACKBONE = FeaturesConfig(backbone="dropout_backbone:make", image_size=8)
NAMES = ["bald", "power_bald", "drop_query"]


def made(folder: Path, rows_per_shard: int, backbone: str = BACKBONE.backbone) -> tuple[FeatureSet, dict[str, str]]:
    """Return the features of 45 pictures, and labels of nine."""
    path, names, labels = builders.image_pool(folder / "pool", files=(25, 20))
    config = FeaturesConfig(backbone=backbone, image_size=8, path=str(folder / "features"))
    features = build(Pool.open(path, rows_per_shard=rows_per_shard), config, LocalRuntime(), seed=3)  # type: ignore[arg-type]
    return features, dict(zip(names[::5], labels[::5], strict=True))


def run(name: str, features: FeatureSet, labels: dict[str, str], backbone: FeaturesConfig = BACKBONE) -> Selection:
    strategy: dict[str, Any] = {"name": name, "where": "backbone", "draws": 6}
    return select(strategy, features, budget=8, labels=labels, backbone=backbone, seed=3)


@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_scored_and_the_cut_leaves_no_trace(name: str, tmp_path: Path) -> None:
    found = [run(name, *made(tmp_path / str(rows), rows)) for rows in (100, 7)]
    assert len(found[0].picks) == 8 and found[0].picks.digest() == found[1].picks.digest()
    assert np.array_equal(found[0].picks.scores, found[1].picks.scores)


def test_p24_the_score_is_that_of_the_networks_own_layers_which_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    head = Head.linear(rng.normal(size=(3, 16)).astype(np.float32) * 9, np.zeros(3, np.float32), list("abc"))
    network = Network(plain(BACKBONE), head)
    strategy = find({"name": "bald", "where": "backbone", "draws": 4})
    assert strategy.wants == {"draws", "backbone+images"}
    ready = strategy.prepare(Given(budget=1, seed=5, round=2, head=head, network=network))
    module = network.module(torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    pictures = torch.from_numpy(rng.integers(256, size=(10, 3, 8, 8), dtype=np.uint8))
    score = strategy.score(Table(builders.ids(10), {"pictures": pictures}), ready)
    draws = dropout_layers.passes(module, pictures, 4, (5, "bald dropout", 2))
    expected = mutual_information(logits_NC.softmax(dim=1) for logits_NC in draws)
    np.testing.assert_allclose(score, expected, atol=1e-6)
    assert (score > 0).all()
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_backbone_without_dropout_layers_is_refused(name: str, tmp_path: Path) -> None:
    other = FeaturesConfig(backbone="small_backbone:make", image_size=8)
    with pytest.raises(StrategyError, match=rf"`{name}`.*small_backbone:make has none .*Use `where: hidden`"):
        run(name, *made(tmp_path, 100, other.backbone), other)


def test_a_pool_of_features_has_no_pictures(tmp_path: Path) -> None:
    pool, _, names, labels = builders.features_pool(tmp_path)
    with pytest.raises(StrategyError, match="`bald` with these settings needs pictures and the backbone"):
        select({"name": "bald", "where": "backbone"}, pool, budget=3, labels=dict(zip(names[:9], labels, strict=False)))
