"""The estimate of a round: every row is scored by a head that has not seen it, and only rows drawn at random count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from alray.runtime import RuntimeConfig, open_runtime
from alray.training import HeadConfig, fit_head
from alray.training.crossval import Estimate, cross_validated, fold_of, losses, out_of_fold, standard_error

CLASSES = ["a", "b", "c"]
CONFIG = HeadConfig()


def rows(count: int = 120, spread: float = 1.0, seed: int = 0) -> tuple[np.ndarray, list[str], list[str]]:
    rng = np.random.default_rng(seed)
    number = rng.integers(3, size=count)
    features = (np.eye(3, 6)[number] * spread + rng.normal(scale=0.6, size=(count, 6))).astype(np.float16)
    return features, [CLASSES[c] for c in number], [f"row-{i:03d}" for i in range(count)]


def test_each_row_is_scored_by_a_head_that_never_saw_its_fold() -> None:
    features, labels, ids = rows()
    right, trained = out_of_fold(CONFIG, features, labels, CLASSES, 0, ids, np.ones(120, dtype=bool))
    fold = fold_of(ids, 0)
    assert set(fold) == set(range(5))
    for number in range(5):
        outside = np.flatnonzero(fold != number)  # sorted by id already
        head = fit_head(CONFIG, features[outside], [labels[i] for i in outside], CLASSES, 0)
        for i in np.flatnonzero(fold == number):
            guess = head.logits(torch.from_numpy(features[i : i + 1].astype(np.float32))).argmax().item()
            assert right[i] == (CLASSES[int(guess)] == labels[i]) and trained[i] == len(outside)


def test_only_rows_drawn_at_random_count_and_all_rows_train() -> None:
    features, labels, ids = rows()
    scored = np.arange(120) < 40
    whole = out_of_fold(CONFIG, features, labels, CLASSES, 0, ids, np.ones(120, dtype=bool))[0]
    found = cross_validated(CONFIG, features, labels, CLASSES, 0, ids, scored)
    assert found is not None
    assert (found.rows, found.fitted) == (40, 120) and 90 <= found.trained <= 102
    assert found.accuracy == whole[:40].mean() and found.se == standard_error(int(whole[:40].sum()), 40)
    assert set(found.to_dict()) == {"accuracy", "se", "rows", "fitted", "trained"}


def test_labels_that_mean_nothing_are_not_learnt_by_heart() -> None:
    features, _, ids = rows(300)
    labels = [CLASSES[c] for c in np.random.default_rng(1).integers(3, size=300)]
    found = cross_validated(CONFIG, features, labels, CLASSES, 0, ids, np.ones(300, dtype=bool))
    assert found is not None and abs(found.accuracy - 1 / 3) < 4 * found.se


def test_the_order_of_the_rows_does_not_matter_and_the_folds_are_for_life() -> None:
    features, labels, ids = rows()
    mixed = np.random.default_rng(3).permutation(120)
    scored = np.arange(120) % 3 == 0
    one = out_of_fold(CONFIG, features, labels, CLASSES, 0, ids, scored)[0]
    other = out_of_fold(
        CONFIG, features[mixed], [labels[i] for i in mixed], CLASSES, 0, [ids[i] for i in mixed], scored[mixed]
    )[0]
    assert (one[mixed] == other).all()
    assert (fold_of(ids, 0)[:30] == fold_of(ids[:30], 0)).all()
    assert (fold_of(ids, 0) != fold_of(ids, 1)).any()


def test_where_no_head_can_be_fitted_there_is_no_estimate() -> None:
    features, labels, ids = rows(4)
    every = np.ones(4, dtype=bool)
    assert cross_validated(CONFIG, features, labels, CLASSES, 0, ids, ~every) is None
    assert cross_validated(CONFIG, features[:1], labels[:1], CLASSES, 0, ids[:1], every[:1]) is None
    assert cross_validated(CONFIG, features[:0], [], CLASSES, 0, [], every[:0]) is None


def test_a_class_with_one_label_is_wrong_where_it_is_left_out() -> None:
    features, labels, ids = rows(60, spread=9.0)
    labels = [label if label != "c" else "a" for label in labels]
    labels[7] = "c"
    right, _ = out_of_fold(CONFIG, features, labels, CLASSES, 0, ids, np.ones(60, dtype=bool))
    assert not right[7]


@pytest.mark.parametrize(("right", "total"), [(0, 60), (60, 60), (31, 60), (1, 1), (397, 400)])
def test_the_standard_error_is_never_zero(right: int, total: int) -> None:
    found = standard_error(right, total)
    assert found == pytest.approx(stats.beta(right + 0.5, total - right + 0.5).std())
    assert 0 < found < 0.5
    if right == 31:
        assert found == pytest.approx(np.sqrt(right / total * (1 - right / total) / total), rel=0.02)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_worker_gives_the_same_estimate(kind: Any) -> None:
    features, labels, ids = rows(60)
    config = HeadConfig(kind=kind, hidden=8, epochs=3)
    words = (config, features, labels, CLASSES, 0, ids, np.ones(60, dtype=bool))
    with open_runtime(RuntimeConfig(name="local")) as runtime:
        found = runtime.call(cross_validated, *words, stage="estimate")
    assert isinstance(found, Estimate) and found == cross_validated(*words)


def test_losses_are_of_heads_that_never_saw_the_row() -> None:
    ids, labels, features = (lambda found: (found[2], found[1], found[0]))(rows(60))
    config = HeadConfig()
    loss_M, known_M = losses(config, features, labels, sorted(set(labels)), 0, ids)
    assert known_M.all() and (loss_M > 0).all()
    again = losses(config, features[::-1], labels[::-1], sorted(set(labels)), 0, ids[::-1])[0][::-1]
    assert np.array_equal(loss_M, again)
    one, known = losses(config, features[:1], labels[:1], sorted(set(labels)), 0, ids[:1])
    assert not known.any() and one.tolist() == [0]
