"""Fine-tuning: it learns, it resumes to the same bits, and two workers do what one does."""

import json
import os
import signal
import sys

import builders
import numpy as np
import pytest
import torch

from alray import training
from alray.errors import ModelError
from alray.models import backbone
from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import LocalRuntime
from alray.runtime.local_train import LocalWorker
from alray.training import FineTune, LinearProbe, LpFt, TrainSet, classifier, evaluate, fine_tune
from alray.training import rows as rows_of
from alray.training.loop import Job, loop

CLASSES = [f"class-{i}" for i in range(4)]
NET = BackboneConfig(backbone="mobilenet_v3_small", image_size=32)
PIXELS = BackboneConfig(backbone="torch.nn:Flatten", image_size=8)  # Flatten(seed), with seed 1: every worker has it


@pytest.fixture
def given(tmp_path):
    path, ids, labels = builders.image_pool(tmp_path / "pool", files=(20, 12))
    return TrainSet(Pool.open(path, rows_per_shard=8), ids, labels, CLASSES)


def some(rows, which):
    return TrainSet(rows.pool, [rows.ids[i] for i in which], [rows.labels[i] for i in which], rows.classes)


def train(recipe, rows, folder, *, net=PIXELS, head=None, name="round-0001", seed=1, holdout=None, runtime=None):
    return training.run(
        recipe, rows, net, head, runtime or LocalRuntime(), name=name, folder=str(folder), seed=seed, holdout=holdout
    )


def test_it_learns_and_its_checkpoint_is_weights_again(given, tmp_path):
    recipe = FineTune(epochs=8, batch=8, lr=2e-3, optimizer="adamw", augmentation="none")
    trained = train(recipe, given, tmp_path / "out", net=NET, seed=0)
    assert trained.metrics["train_accuracy"] > 0.9 and [m["epoch"] for m in trained.history] == [*range(1, 9)]
    assert trained.history[0]["loss"] > trained.history[-1]["loss"]
    assert trained.metrics["rows"] == 32 and trained.metrics["steps"] == 4
    body = backbone.load(BackboneConfig(backbone=NET.backbone, weights=trained.checkpoint), seed=9)
    assert body.transform.crop == 32 and not torch.equal(
        body.body.features[0][0].weight, backbone.load(NET, 0).body.features[0][0].weight
    )
    stored = Head.load(f"{trained.checkpoint}/head.safetensors")
    assert stored.digest() == trained.head.digest() and stored.classes == tuple(CLASSES) == classifier.classes_of(
        trained.checkpoint
    )


def test_the_checkpoint_evaluates_as_the_model_it_holds(given, tmp_path):
    trained = train(FineTune(epochs=2, batch=8), given, tmp_path / "out")
    found = evaluate.accuracy(evaluate.Model.of_checkpoint(trained.checkpoint), given, LocalRuntime())
    body = backbone.load(BackboneConfig(backbone="torch.nn:Flatten", image_size=8), seed=1)
    rows = rows_of.locate(given)
    pixels = torch.stack([p for _, p in sorted(rows_of.pictures(rows, np.arange(32), body.transform))])
    with torch.no_grad():
        right = trained.head.logits(body(pixels)).argmax(1) == torch.from_numpy(rows.target_M)
    assert found["accuracy"] == pytest.approx(float(right.double().mean())) and found["rows"] == 32


def test_a_cut_run_resumes_to_the_same_bits(given, tmp_path, monkeypatch):
    recipe, held = FineTune(epochs=5, batch=8, augmentation="crop_flip"), some(given, range(24, 32))
    rows = some(given, range(24))
    whole = train(recipe, rows, tmp_path / "whole", net=NET, holdout=held)
    report = LocalWorker.report

    def cut(self, metrics, save=None):
        if metrics["epoch"] == 4:
            raise KeyboardInterrupt
        report(self, metrics, save)

    with monkeypatch.context() as patch:
        patch.setattr(LocalWorker, "report", cut)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, rows, tmp_path / "cut", net=NET, holdout=held)
    resumed = train(recipe, rows, tmp_path / "cut", net=NET, holdout=held)
    assert resumed.head.digest() == whole.head.digest()
    bodies = [BackboneConfig(backbone=NET.backbone, weights=run.checkpoint) for run in (whole, resumed)]
    assert backbone.load(bodies[0], 0).fingerprint == backbone.load(bodies[1], 0).fingerprint
    timeless = [[{k: v for k, v in m.items() if k != "seconds"} for m in run.history] for run in (whole, resumed)]
    assert timeless[0] == timeless[1]


def test_the_global_random_stream_is_left_alone(given, tmp_path):
    before = torch.default_generator.get_state()
    train(FineTune(epochs=1, batch=8), given, tmp_path / "out")
    assert torch.equal(torch.default_generator.get_state(), before)


def test_other_rows_under_the_same_name_do_not_resume_the_first(given, tmp_path):
    first = train(FineTune(epochs=1, batch=8), given, tmp_path / "out")
    second = train(FineTune(epochs=1, batch=8), some(given, range(9)), tmp_path / "out")
    assert second.metrics["rows"] == 9 and first.checkpoint != second.checkpoint


def test_the_holdout_stops_it_and_the_best_epoch_is_delivered(given, tmp_path):
    rows, held = some(given, range(16)), some(given, range(16, 32))
    wrong = TrainSet(held.pool, held.ids, [CLASSES[(CLASSES.index(x) + 1) % 4] for x in held.labels], CLASSES)
    trained = train(FineTune(epochs=20, batch=8, lr=0.05, patience=2), rows, tmp_path / "out", holdout=wrong)
    nll = [m["holdout_nll"] for m in trained.history]
    best = int(np.argmin(nll))
    assert len(nll) == best + 1 + 2 < 20
    delivered = evaluate.accuracy(evaluate.Model.of_checkpoint(trained.checkpoint), wrong, LocalRuntime())
    assert delivered["nll"] == pytest.approx(nll[best], rel=1e-5)


def test_patience_without_a_holdout_is_said(given, tmp_path, caplog):
    trained = train(FineTune(epochs=3, batch=32, patience=1), given, tmp_path / "out")
    assert len(trained.history) == 3 and "`training.patience` is 1 but there is no holdout yet" in caplog.text


@pytest.mark.parametrize("rows", [1, 2, 9])
def test_few_rows_and_batch_norm_do_not_crash(given, tmp_path, rows):
    trained = train(FineTune(epochs=1, batch=8), some(given, range(rows)), tmp_path / "out", net=NET)
    assert trained.metrics["rows"] == rows and np.isfinite(trained.metrics["loss"])


def test_an_unreadable_picture_is_counted_and_left_out(tmp_path, given):
    cells = [builders.picture(i)[0] if i != 3 else b"broken" for i in range(8)]
    path = builders.parquet(tmp_path / "p" / "pool-00.parquet", {"id": builders.ids(8), "image": cells})
    rows = TrainSet(Pool.open(path), builders.ids(8), given.labels[:8], CLASSES)
    trained = train(FineTune(epochs=2, batch=4), rows, tmp_path / "out")
    assert [(m["rows"], m["unreadable"]) for m in trained.history] == [(7, 1), (7, 1)]


def test_a_features_pool_fits_a_probe_and_refuses_to_fine_tune(tmp_path):
    path, matrix_ND, ids, labels = builders.features_pool(tmp_path)
    rows = TrainSet(Pool.open(path, rows_per_shard=20), ids[:50], labels[:50], CLASSES)
    head = train(LinearProbe(), rows, tmp_path / "out").head
    assert head.digest() == training.fit_head(training.HeadConfig(), matrix_ND[:50], labels[:50], CLASSES, 1).digest()
    for recipe in (FineTune(), LpFt()):
        with pytest.raises(ModelError, match="the pool holds `features` and no pictures"):
            train(recipe, rows, tmp_path / "out")


def test_augmentation_reaches_the_model(given, tmp_path):
    digests = {
        kind: train(FineTune(epochs=1, batch=8, augmentation=kind), given, tmp_path / kind).head.digest()
        for kind in ("none", "crop", "crop_flip")
    }
    assert len(set(digests.values())) == 3


# On Ray


@pytest.fixture
def sent_by_value(ray_runtime):
    """Workers cannot import this file; its functions are sent whole."""
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def killing(config, worker):
    """Run the loop; rank 1 dies by SIGKILL once, when it has trained epoch 3 and before that epoch is committed."""
    report = worker.report

    def deadly(metrics, save=None):
        if metrics["epoch"] == 3 and worker.rank == 1 and not os.path.exists(config["mark"]):
            open(config["mark"], "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        report(metrics, save)

    worker.report = deadly
    loop(config, worker)


def seen(folder):
    """Return the ids of each rank's steps: {(epoch, step): {rank: [ids of each time it was run]}}."""
    out = {}
    for rank in (0, 1):
        for line in (folder / f"rank-{rank}.jsonl").read_text().splitlines():
            step = json.loads(line)
            out.setdefault((step["epoch"], step["step"]), {}).setdefault(rank, []).append(step["ids"])
    return out


@pytest.mark.ray
@pytest.mark.usefixtures("sent_by_value")
def test_a_worker_killed_in_epoch_3_of_6_resumes_on_disjoint_halves(ray_runtime, given, tmp_path):
    recipe = FineTune(epochs=6, batch=8)
    job = Job(recipe, NET, tuple(CLASSES), rows_of.locate(given), None, None, seed=0, trace=str(tmp_path))
    config = {"job": job, "mark": str(tmp_path / "killed")}
    result = ray_runtime.train(killing, config, workers=2, name="r", folder=str(tmp_path / "out"))
    assert (tmp_path / "killed").exists()
    assert [m["epoch"] for m in result.history] == [1, 2, 3, 4, 5, 6] and result.metrics["rows"] == 32
    steps = seen(tmp_path)
    assert sorted(steps) == [(epoch, step) for epoch in range(1, 7) for step in range(4)]
    for (epoch, _), ranks in steps.items():
        for parts in ranks.values():
            assert len(parts) == (2 if epoch == 3 else 1) and all(part == parts[0] for part in parts)
        assert len(ranks[0][0]) == len(ranks[1][0]) == 4 and not set(ranks[0][0]) & set(ranks[1][0])
    for epoch in range(1, 7):
        used = [i for (e, _), ranks in steps.items() if e == epoch for rank in (0, 1) for i in ranks[rank][0]]
        assert sorted(used) == sorted(given.ids)


@pytest.mark.ray
def test_two_workers_take_the_steps_of_one(ray_runtime, given, tmp_path):
    rows, held = some(given, range(21)), some(given, range(21, 32))
    recipe = FineTune(epochs=3, batch=8, workers=2, class_weights="balanced", label_smoothing=0.1)
    one = train(recipe, rows, tmp_path / "one", holdout=held)
    two = train(recipe, rows, tmp_path / "two", holdout=held, runtime=ray_runtime)
    assert np.allclose(one.head.weights["weight"], two.head.weights["weight"], atol=1e-5)
    for a, b in zip(one.history, two.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=1e-4) and a["rows"] == b["rows"] == 21
        assert a["holdout_nll"] == pytest.approx(b["holdout_nll"], abs=1e-4)


@pytest.mark.ray
def test_two_workers_judge_the_model_that_is_delivered(ray_runtime, given, tmp_path):
    # Each has batch-norm statistics of its own halves, and the checkpoint holds the first one's.
    rows, held = some(given, range(24)), some(given, range(24, 32))
    net, recipe = BackboneConfig(backbone="resnet18", image_size=32), FineTune(epochs=1, batch=8, lr=1e-3)
    found = train(recipe, rows, tmp_path, net=net, holdout=held, runtime=ray_runtime)
    judged = evaluate.accuracy(evaluate.Model.of_checkpoint(found.checkpoint), held, LocalRuntime())
    assert found.metrics["holdout_nll"] == pytest.approx(judged["nll"], rel=1e-4)


@pytest.mark.ray
def test_it_fine_tunes_and_evaluates_on_object_storage(ray_runtime, given, s3):
    recipe = FineTune(epochs=1, batch=8, workers=1)
    trained = train(recipe, given, f"{s3}/fine-tune", runtime=ray_runtime)
    assert trained.checkpoint.startswith("s3://")
    model = evaluate.Model.of_checkpoint(trained.checkpoint)
    assert evaluate.accuracy(model, given, ray_runtime) == evaluate.accuracy(model, given, LocalRuntime())


def test_the_run_of_a_round_is_named_by_what_it_trains_on(given):
    job = Job(FineTune(), NET, tuple(CLASSES), rows_of.locate(given), None, None, seed=0)
    wider = Job(FineTune(workers=3), NET, tuple(CLASSES), rows_of.locate(given), None, None, seed=0)
    other = Job(FineTune(), NET, tuple(CLASSES), rows_of.locate(given), None, None, seed=1)
    assert fine_tune._digest(job) == fine_tune._digest(wider) != fine_tune._digest(other)


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 0.1}, {"head_lr": 0.1}, {"nesterov": True}, {"schedule": "constant"}, {"schedule": "cosine_7_16"},
        {"schedule": "steps", "milestones": [2]}, {"gamma": 0.5}, {"clip_norm": 1.0}, {"freeze_norms": True},
    ],
    ids=str,
)  # fmt: skip
def test_a_run_with_another_recipe_never_resumes_this_one(given, change):
    rows = rows_of.locate(given)
    one, other = (Job(FineTune(**c), NET, tuple(CLASSES), rows, None, None, seed=0) for c in ({}, change))
    assert fine_tune._digest(one) != fine_tune._digest(other)
