"""The loop's arithmetic: the learning rate of every step, and the weight of every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray import training
from alray.models.backbone import BackboneConfig
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.training import FineTune, TrainSet

CLASSES = [f"class-{i}" for i in range(4)]
PIXELS = BackboneConfig(backbone="torch.nn:Flatten", image_size=8)  # Flatten(seed), with seed 1: every worker has it


def rows_of(folder: Path, rows: int) -> TrainSet:
    path, ids, labels = builders.image_pool(folder / "pool", files=(rows,))
    return TrainSet(Pool.open(path), ids, labels, CLASSES)


def train(recipe: FineTune, rows: TrainSet, folder: Path, holdout: TrainSet | None = None) -> training.Trained:
    return training.run(
        recipe, rows, PIXELS, None, LocalRuntime(), name="r", folder=str(folder), seed=1, holdout=holdout
    )


def test_the_learning_rate_falls_by_one_cosine_over_all_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noting(self: torch.optim.SGD, *args: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    train(FineTune(epochs=3, batch=8, lr=0.5), rows_of(tmp_path, 32), tmp_path / "out")
    assert np.allclose(rates, 0.25 * (1 + np.cos(np.pi * np.arange(12) / 12)))


def test_balanced_classes_weigh_the_same_in_the_first_gradient(tmp_path: Path) -> None:
    # From a layer near zero every p is near 1/C, so the bias moves by lr·(weighted share of the class − 1/C).
    rows = rows_of(tmp_path, 32)
    keep = [i for i, label in enumerate(rows.labels) if label != "class-1" or i < 4]
    few = TrainSet(rows.pool, [rows.ids[i] for i in keep], [rows.labels[i] for i in keep], CLASSES)
    assert sorted(few.labels.count(name) for name in CLASSES) == [1, 8, 8, 8]
    moved = {}
    for weights in ("none", "balanced"):
        recipe = FineTune(epochs=1, batch=64, lr=1e-3, momentum=0, weight_decay=0, augmentation="none",
                          class_weights=weights)  # fmt: skip
        moved[weights] = train(recipe, few, tmp_path / weights).head.weights["bias"] / 1e-3
    share_C = np.array([few.labels.count(name) for name in CLASSES]) / 25
    assert np.allclose(moved["none"], share_C - 0.25, atol=0.03)
    assert np.allclose(moved["balanced"], 0, atol=0.03)


def test_a_holdout_that_nobody_can_read_decides_nothing(tmp_path: Path) -> None:
    broken = builders.parquet(tmp_path / "broken" / "p.parquet", {"id": ["x", "y"], "image": [b"?", b"?"]})
    holdout = TrainSet(Pool.open(broken), ["x", "y"], CLASSES[:2], CLASSES)
    recipe, rows = FineTune(epochs=3, batch=8, lr=0.01, patience=1), rows_of(tmp_path, 16)
    found = train(recipe, rows, tmp_path / "held", holdout)
    assert found.head.digest() == train(recipe, rows, tmp_path / "all").head.digest()
    assert len(found.history) == 3 and "holdout_nll" not in found.metrics
