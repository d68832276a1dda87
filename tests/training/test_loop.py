"""The loop's arithmetic: the learning rate of every step, and the weight of every row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray import training
from alray.errors import ModelError
from alray.models import backbone
from alray.models.backbone import BackboneConfig
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.runtime.local_train import LocalWorker
from alray.training import FineTune, TrainSet, descent
from alray.training.loop import Job, Tuner
from alray.training.rows import locate

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


def test_rates_fall_at_the_milestones_and_the_layer_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[tuple[float, ...]] = []
    step = torch.optim.SGD.step

    def noting(self: torch.optim.SGD, *args: Any) -> Any:
        rates.append(tuple(group["lr"] for group in self.param_groups))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    recipe = FineTune(epochs=4, batch=8, lr=0.01, head_lr=0.1, nesterov=True, schedule="steps", milestones=[1, 3])
    train(recipe, rows_of(tmp_path, 16), tmp_path / "out")
    assert np.allclose(rates, np.outer(np.repeat([1, 0.1, 0.1, 0.01], 2), [0.01, 0.1]))


def test_frozen_norms_keep_the_statistics_they_came_with(tmp_path: Path) -> None:
    net, rows = BackboneConfig(backbone="resnet8", image_size=8), rows_of(tmp_path, 16)
    means = {}
    for frozen in (False, True):
        recipe = FineTune(epochs=1, batch=8, freeze_norms=frozen)
        made = recipe.train(rows, net, None, LocalRuntime(), name="r", folder=str(tmp_path / str(frozen)), seed=1)
        assert made.checkpoint is not None
        tuned = backbone.load(BackboneConfig(backbone="resnet8", weights=made.checkpoint), 0)
        means[frozen] = tuned.body.state_dict()["bn1.running_mean"]
    assert not means[True].any() and means[False].any()


def test_one_row_is_quiet_and_workers_that_share_statistics_agree_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(FineTune(), PIXELS, tuple(CLASSES), locate(rows_of(tmp_path, 4)), None, None, seed=1)
    tuner = Tuner(job, LocalWorker(str(tmp_path / "out")))
    assert [tuner._quiet(mine, 8) for mine in (0, 1, 2)] == [True, True, False]
    monkeypatch.setattr(descent, "synchronises", lambda worker: True)
    monkeypatch.setattr(LocalWorker, "world", 4)
    assert [tuner._quiet(mine, 8) for mine in (0, 1, 2)] == [False, False, False]
    assert [tuner._quiet(mine, 7) for mine in (1, 2)] == [True, True]


def test_weights_that_are_no_numbers_stop_the_run_and_name_the_settings(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"The training diverged in epoch \d of 9 at `lr` 1e\+38: .* Lower `lr`"):
        train(FineTune(epochs=9, batch=8, lr=1e38), rows_of(tmp_path, 16), tmp_path / "out")


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
