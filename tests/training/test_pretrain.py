"""Pre-training: it learns, is found again, goes on where it was cut, and says so when it has collapsed."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray.errors import ConfigError, ModelError, TrainingError
from alray.models import backbone
from alray.models.backbone import BackboneConfig
from alray.pool import Pool
from alray.runtime import LocalRuntime, Runtime, Worker
from alray.runtime.local_train import LocalWorker
from alray.training import pretrain_loop, simsiam
from alray.training.pretrain import PretrainConfig, Pretrained, pretrain
from alray.training.pretrain_loop import Job, Learner, rows_of

NET = BackboneConfig(backbone="resnet8", image_size=8)
TIMES = ("seconds", "pictures_per_second")


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    path, *_ = builders.image_pool(tmp_path / "pool", files=(20, 12))
    return Pool.open(path, rows_per_shard=8)


def settings(folder: Path, **given: Any) -> PretrainConfig:
    small = {"epochs": 4, "batch": 16, "dim": 16, "hidden": 4, "lr": 0.5, "flip": False, "checkpoint_every": 1}
    return PretrainConfig(**{**small, "path": str(folder), **given})


def train(config: PretrainConfig, pool: Pool, runtime: Runtime | None = None, **more: Any) -> Pretrained:
    return pretrain(config, pool, NET, runtime or LocalRuntime(), **{"seed": 0, **more})


def timeless(found: Pretrained) -> list[dict[str, Any]]:
    return [{k: v for k, v in m.items() if k not in TIMES} for m in found.history]


def fingerprint(found: Pretrained) -> str:
    return backbone.load(BackboneConfig(backbone="resnet8", weights=found.checkpoint), seed=9).fingerprint


def test_it_learns_and_its_folder_is_weights(pool: Pool, tmp_path: Path) -> None:
    found = train(settings(tmp_path / "out", epochs=8), pool)
    assert [m["epoch"] for m in found.history] == [*range(1, 9)] and found.metrics == found.history[-1]
    assert found.history[-1]["loss"] < found.history[0]["loss"] - 0.2
    assert all(0.3 < m["spread"] < 1.2 and m["rows"] == 32 and m["steps"] == 2 for m in found.history)
    assert found.metrics["pictures_per_second"] > 0 and found.metrics["unreadable"] == 0
    assert fingerprint(found) != backbone.load(NET, 0).fingerprint
    loaded = backbone.load(BackboneConfig(backbone="resnet8", weights=found.checkpoint), seed=9)
    assert loaded.transform.crop == 8 and loaded.dim == 64


def test_the_second_call_finds_the_first_and_trains_nothing(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(tmp_path / "out")
    first = train(config, pool)
    monkeypatch.setattr(LocalRuntime, "train", lambda *_, **__: pytest.fail("it was trained again"))
    assert train(config, pool) == first
    other_hands = {"workers": 5, "cache_bytes": 0, "max_failures": 0, "checkpoint_every": 3}
    assert train(config.model_copy(update=other_hands), pool) == first


@pytest.mark.parametrize(
    "changed",
    [{"lr": 0.4}, {"epochs": 3}, {"crop_scale": 0.5}, {"flip": True}, {"dim": 8}, {"rotate": 5.0}, {"collapse": 0.1}],
)
def test_other_settings_are_another_run(pool: Pool, tmp_path: Path, changed: dict[str, Any]) -> None:
    one = settings(tmp_path)
    other = one.model_copy(update=changed)
    jobs = [Job(config, NET, pool.shards, 0) for config in (one, other)]
    from alray.training.pretrain import _digest

    digests = [_digest(job, pool) for job in (*jobs, Job(one, NET, pool.shards, 1))]
    digests.append(_digest(Job(one, NET.model_copy(update={"backbone": "resnet14"}), pool.shards, 0), pool))
    digests.append(_digest(jobs[0], Pool.open([s.uri for s in pool.shards[:1]])))
    assert len(set(digests)) == 5 and _digest(jobs[0], pool) == digests[0]


def test_a_cut_run_goes_on_to_the_same_bits(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"epochs": 7, "checkpoint_every": 2, "warmup": 1, "color": True}
    whole = train(settings(tmp_path / "whole", **config), pool)
    report = LocalWorker.report

    def cut(self: LocalWorker, metrics: dict[str, Any], save: Any = None) -> None:
        if metrics["epochs"][-1]["epoch"] == 6:
            raise KeyboardInterrupt
        report(self, metrics, save)

    with monkeypatch.context() as patch:
        patch.setattr(LocalWorker, "report", cut)
        with pytest.raises(KeyboardInterrupt):
            train(settings(tmp_path / "cut", **config), pool)
    epochs: list[int] = []
    monkeypatch.setattr(Learner, "epoch", noting(epochs, Learner.epoch))
    resumed = train(settings(tmp_path / "cut", **config), pool)
    assert epochs == [4, 5, 6]  # the fifth and sixth were trained before, but not committed
    assert fingerprint(resumed) == fingerprint(whole) and timeless(resumed) == timeless(whole)


def noting(epochs: list[int], run: Any) -> Any:
    def epoch(self: Learner, number: int) -> Any:
        epochs.append(number)
        return run(self, number)

    return epoch


def test_adamw_trains_too_and_the_stream_is_left_alone(pool: Pool, tmp_path: Path) -> None:
    before = torch.default_generator.get_state()
    found = train(settings(tmp_path / "out", optimizer="adamw", lr=0.01), pool)
    assert found.metrics["loss"] < found.history[0]["loss"]
    assert torch.equal(torch.default_generator.get_state(), before)


def test_the_rate_warms_up_and_falls_by_a_cosine_but_the_predictors_is_constant(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[tuple[float, float]] = []
    step = torch.optim.SGD.step

    def watching(self: torch.optim.SGD, *args: Any) -> Any:
        rates.append((self.param_groups[0]["lr"], self.param_groups[1]["lr"]))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", watching)
    train(settings(tmp_path / "out", epochs=4, warmup=1, lr=0.8), pool)
    peak = 0.8 * 16 / 256
    past = np.arange(6) / 6
    expected = [0, peak / 2, *(peak * 0.5 * (1 + np.cos(math.pi * past)))]
    assert np.allclose([rate for rate, _ in rates], expected) and {rate for _, rate in rates} == {peak}


def test_unreadable_pictures_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cells = [builders.picture(i)[0] if i % 5 else b"broken" for i in range(20)]
    path = builders.parquet(tmp_path / "p.parquet", {"id": builders.ids(20), "image": cells})
    found = train(settings(tmp_path / "out", epochs=2), Pool.open(path))
    assert [(m["rows"], m["unreadable"]) for m in found.history] == [(16, 4), (16, 4)]
    assert "training without row-00000" in caplog.text
    nothing = builders.parquet(tmp_path / "n.parquet", {"id": ["a", "b"], "image": [b"?", b"?"]})
    with pytest.raises(TrainingError, match="no picture that can be read among 2 rows"):
        train(settings(tmp_path / "out", epochs=1), Pool.open(nothing))


def test_a_step_with_one_picture_does_not_crash(tmp_path: Path) -> None:
    path, *_ = builders.image_pool(tmp_path / "pool", files=(1,))
    found = train(settings(tmp_path / "out", epochs=1), Pool.open(path))
    assert found.metrics["rows"] == 1 and found.metrics["spread"] is None


# Collapse


def attracted(p: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """The loss without its stop of the gradient: what the paper shows to collapse."""
    return -torch.cosine_similarity(p.float(), z.float(), dim=1)


def test_a_collapse_is_told_by_its_spread_and_what_to_change(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simsiam, "distance", attracted)
    config = settings(tmp_path / "out", epochs=30, lr=5.0, weight_decay=0.05, collapse=0.3, collapse_epochs=3)
    with pytest.raises(TrainingError, match=r"collapsed: the spread of the projections is 0\.\d+ after epoch \d+") as e:
        train(config, pool)
    for words in ("below `pretrain.collapse` = 0.3 for 3 epochs", "Lower `pretrain.lr` (5)", "weight_decay"):
        assert words in str(e.value)
    with pytest.raises(TrainingError, match="collapsed"):  # and it is not trained again to say so again
        monkeypatch.setattr(Learner, "epoch", lambda *_: pytest.fail("it was trained again"))
        train(config, pool)


def test_a_loss_that_is_no_number_stops_at_once(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simsiam, "distance", lambda p, z: (p * math.nan).sum(1))
    with pytest.raises(TrainingError, match=r"diverged in epoch 1: its loss is not a number. Lower `pretrain.lr`"):
        train(settings(tmp_path / "out"), pool)


def test_no_collapse_is_judged_while_the_rate_warms_up(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simsiam.Spread, "of", lambda sums: 0.2)
    with pytest.raises(
        TrainingError, match=r"spread of the projections is 0.200 after epoch 5 and was below .* 2 epoch"
    ):
        train(settings(tmp_path / "out", warmup=3, collapse_epochs=2, epochs=9), pool)


# What is refused


def test_a_pool_of_features_is_refused(tmp_path: Path) -> None:
    path, *_ = builders.features_pool(tmp_path)
    with pytest.raises(ModelError, match="`pretrain` trains a backbone on pictures, but the pool holds `features`"):
        train(settings(tmp_path), Pool.open(path))


def test_a_place_to_keep_the_result_is_needed(pool: Pool) -> None:
    with pytest.raises(ConfigError, match=r"`pretrain.path` is not set, and neither is `features.path`"):
        train(PretrainConfig(), pool)
    assert PretrainConfig().beside("there").path == "there/pretrained"
    assert PretrainConfig(path="here").beside("there").path == "here" and PretrainConfig().beside(None).path is None


def test_all_rows_of_the_pool_are_used_whatever_its_cut(pool: Pool, tmp_path: Path) -> None:
    rows = rows_of(pool.shards)
    assert list(rows.ids) == builders.ids(32) and len(rows.shards) == 5
    train(settings(tmp_path / "out", epochs=2), pool, trace=str(tmp_path))
    for epoch in (1, 2):
        used = [i for (e, _), parts in steps(tmp_path).items() if e == epoch for part in parts.values() for i in part]
        assert sorted(used) == builders.ids(32)


# On Ray


def steps(folder: Path) -> dict[tuple[int, int], dict[int, list[str]]]:
    """Return the ids of each rank's steps: {(epoch, step): {rank: ids}}; those of the last time, if run twice."""
    out: dict[tuple[int, int], dict[int, list[str]]] = {}
    for file in folder.glob("rank-*.jsonl"):
        for line in file.read_text().splitlines():
            step = json.loads(line)
            out.setdefault((step["epoch"], step["step"]), {})[int(file.stem[5:])] = step["ids"]
    return out


@pytest.mark.ray
def test_two_workers_take_the_batches_of_one_and_its_losses(ray_runtime: Runtime, tmp_path: Path) -> None:
    path, *_ = builders.image_pool(tmp_path / "pool", files=(160, 96))
    config, traces = {"epochs": 8, "batch": 64, "lr": 0.2, "color": False}, [tmp_path / "t1", tmp_path / "t2"]
    for folder in traces:
        folder.mkdir()
    one = train(settings(tmp_path / "one", **config), Pool.open(path), trace=str(traces[0]))
    two = train(settings(tmp_path / "two", **config, workers=2), Pool.open(path), ray_runtime, trace=str(traces[1]))
    alone, shared = steps(traces[0]), steps(traces[1])
    assert sorted(alone) == sorted(shared) and len(alone) == 8 * 4
    for key, ranks in shared.items():
        assert ranks[0] + ranks[1] == alone[key][0] and len(ranks[0]) == len(ranks[1]) == 32
    losses = np.array([[m["loss"] for m in found.history] for found in (one, two)])
    assert np.abs(losses[0] - losses[1]).max() < 0.1  # batch norm is over 32 rows and not 64
    assert one.metrics["spread"] == pytest.approx(two.metrics["spread"], abs=0.1)


def killing(config: dict[str, Any], worker: Worker) -> None:
    """Run the loop; rank 1 dies by SIGKILL once, when it has trained epoch 3 and before that epoch is committed."""
    report = worker.report

    def deadly(metrics: dict[str, Any], save: Any = None) -> None:
        mark = Path(config["job"].trace) / "killed"
        if metrics["epochs"][-1]["epoch"] == 3 and worker.rank == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        report(metrics, save)

    worker.report = deadly  # type: ignore[method-assign]
    pretrain_loop.loop(config, worker)


@pytest.mark.ray
def test_a_worker_that_is_killed_costs_an_epoch_and_no_bits(
    ray_runtime: Runtime, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    import ray.cloudpickle

    config = settings(tmp_path / "whole", epochs=5, workers=2)
    whole = train(config, pool, ray_runtime)
    monkeypatch.setattr("alray.training.pretrain.loop", killing)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        config = config.model_copy(update={"path": str(tmp_path / "killed")})
        killed = train(config, pool, ray_runtime, trace=str(tmp_path))
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert (tmp_path / "killed").exists() and timeless(killed) == timeless(whole)
    assert fingerprint(killed) == fingerprint(whole)


@pytest.mark.ray
def test_it_trains_on_object_storage(ray_runtime: Runtime, pool: Pool, s3: str) -> None:
    config = settings(Path("x"), epochs=1, workers=1).model_copy(update={"path": f"{s3}/pretrained"})
    found = train(config, pool, ray_runtime)
    assert found.checkpoint.startswith("s3://") and train(config, pool, ray_runtime) == found
    assert fingerprint(found) != backbone.load(NET, 0).fingerprint
