"""LP-FT: it starts from the probe's weights as a probe's features see them, and ends no worse than it began."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError

from alray.errors import ModelError
from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.pool import Pool, digits
from alray.runtime import LocalRuntime
from alray.training import FineTune, HeadConfig, LinearProbe, LpFt, Recipe, Trained, TrainSet, evaluate, linear_probe

CLASSES = [f"class-{i}" for i in range(4)]
PIXELS = BackboneConfig(backbone="torch.nn:Flatten", image_size=8)
DIGITS = [str(i) for i in range(10)]
RANDOM = BackboneConfig(backbone="resnet18", image_size=32)  # weights drawn from the seed: the quickstart's


@pytest.fixture
def given(tmp_path: Path) -> TrainSet:
    path, ids, labels = builders.image_pool(tmp_path / "pool", files=(20, 12))
    return TrainSet(Pool.open(path, rows_per_shard=8), ids, labels, CLASSES)


def train(
    recipe: Recipe, rows: TrainSet, folder: Path, net: BackboneConfig = PIXELS, head: Head | None = None
) -> Trained:
    return recipe.train(rows, net, head, LocalRuntime(), name="r", folder=str(folder), seed=3)


def test_it_starts_from_the_head_of_the_round_or_from_a_probe_of_its_own(given: TrainSet, tmp_path: Path) -> None:
    head = train(LinearProbe(), given, tmp_path / "lp").head
    recipe = LpFt(epochs=1, batch=32, lr=1e-12, weight_decay=0)
    mlp = linear_probe.fit(HeadConfig(kind="mlp", hidden=4, epochs=1), given, PIXELS, LocalRuntime(), 3)
    for start in (head, None, mlp):  # given, or fitted on the way: the same probe
        tuned = train(recipe, given, tmp_path / "out", head=start).head
        assert np.allclose(tuned.weights["weight"], head.weights["weight"], atol=1e-6)


def test_a_head_of_other_classes_or_another_size_is_refused(given: TrainSet, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"LP-FT starts from a linear head over .* in this order, or none"):
        train(LpFt(), given, tmp_path, head=Head.linear(np.eye(4, 192), np.zeros(4), CLASSES[::-1]))
    with pytest.raises(ModelError, match=r"The head has weights of shape \[4, 5\]; the backbone and the classes need"):
        train(LpFt(), given, tmp_path, head=Head.linear(np.eye(4, 5), np.zeros(4), CLASSES))


def test_any_head_of_the_campaign_fits_and_its_own_probe_is_linear(given: TrainSet) -> None:
    LpFt().fits(given.pool, HeadConfig(kind="mlp"))
    with pytest.raises(ValidationError, match="LP-FT starts from a linear head, and `kind` is mlp: leave it out"):
        LpFt(probe=HeadConfig(kind="mlp"))


# On digits, from random weights: where it once diverged


def some_digits(folder: Path, name: str, rows: int) -> TrainSet:
    """Return the first rows of the digits' pool or test set, with their labels."""
    labels = folder / ("oracle.parquet" if name == "pool" else "test.parquet")
    table = pq.read_table(labels, columns=["id", "label"]).slice(0, rows).to_pydict()
    return TrainSet(Pool.open(str(folder / f"{name}.parquet")), table["id"], table["label"], DIGITS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("digits")
    digits.write(str(where))
    return where


def probe_accuracy(head: Head, test: TrainSet) -> float:
    ids, features = linear_probe.features(test, RANDOM, LocalRuntime(), 3)
    label_of = dict(zip(test.ids, test.labels, strict=True))
    said = head.logits(torch.from_numpy(features).float()).argmax(1).tolist()
    return float(np.mean([DIGITS[c] == label_of[i] for i, c in zip(ids, said, strict=True)]))


@pytest.mark.parametrize(("augmentation", "lost"), [("none", 0.0), ("crop", 0.05)])
def test_it_ends_no_worse_than_its_own_probe(folder: Path, tmp_path: Path, augmentation: str, lost: float) -> None:
    # Untrained features change with a shift of the picture: under crops, so few epochs cost a little at first.
    rows, test = some_digits(folder, "pool", 60), some_digits(folder, "test", 120)
    head = train(LinearProbe(), rows, tmp_path / "lp", RANDOM).head
    recipe = LpFt.model_validate({"epochs": 3, "augmentation": augmentation})
    tuned = train(recipe, rows, tmp_path / "ft", RANDOM, head)
    assert tuned.checkpoint is not None
    found = evaluate.accuracy(evaluate.Model.of_checkpoint(tuned.checkpoint), test, LocalRuntime())["accuracy"]
    begun = probe_accuracy(head, test)
    assert begun > 0.5 and found >= begun - lost


@pytest.mark.parametrize(("change", "worse"), [({}, False), ({"freeze_norms": False}, True)], ids=str)
def test_a_batchs_own_statistics_undo_the_probe_before_the_first_step(
    folder: Path, tmp_path: Path, change: dict[str, Any], worse: bool
) -> None:
    rows = some_digits(folder, "pool", 60)
    head = train(LinearProbe(), rows, tmp_path / "lp", RANDOM).head
    still = LpFt(epochs=1, lr=1e-9, augmentation="none", **change)
    assert (train(still, rows, tmp_path / "ft", RANDOM, head).history[0]["train_accuracy"] < 0.5) is worse


def test_fine_tuning_from_a_fresh_layer_keeps_its_defaults() -> None:
    assert (FineTune().freeze_norms, FineTune().clip_norm) == (False, None)
    assert (LpFt().freeze_norms, LpFt().clip_norm) == (True, 1.0)
