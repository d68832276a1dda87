"""The guard: halves that never change, and a verdict that is the LogME of the same rows on both sides."""

from __future__ import annotations

import numpy as np
import pytest

from alray.ops.logme import logme
from alray.ops.moments import Moments
from alray.proxy import guard

LABELS = {f"p{n:03d}": f"class-{n % 3}" for n in range(200)}


def features(spread: float, seed: int = 0, dim: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    target = np.arange(60) % 3
    return np.eye(dim)[target] * spread + rng.normal(size=(60, dim)), target


def test_halves_are_disjoint_whole_and_about_equal() -> None:
    found = guard.halves(LABELS, seed=1)
    assert {**found.first, **found.second} == LABELS
    assert not set(found.first) & set(found.second)
    assert 70 < len(found.first) < 130


def test_a_row_stays_in_its_half_whatever_labels_come_later() -> None:
    few = guard.halves(dict(list(LABELS.items())[:50]), seed=1)
    all_ = guard.halves(LABELS, seed=1)
    assert set(few.first) <= set(all_.first) and set(few.second) <= set(all_.second)
    assert guard.halves(LABELS, seed=2).first != all_.first


def test_better_features_are_accepted_and_worse_ones_are_not() -> None:
    weak, target = features(0.5)
    strong, _ = features(4.0, seed=1)
    verdict = guard.judge(weak, strong, target, 3)
    assert verdict.accepted and verdict.rows == 60
    assert verdict.before == pytest.approx(logme(Moments.of(weak, target, 3)).score)
    assert verdict.after == pytest.approx(logme(Moments.of(strong, target, 3)).score)
    assert f"LogME {verdict.after:.4f} on 60 held-out rows, above the {verdict.before:.4f}" in verdict.reason
    back = guard.judge(strong, weak, target, 3)
    assert not back.accepted and "not above" in back.reason


def test_features_of_another_size_can_be_compared() -> None:
    weak, target = features(0.5)
    strong, _ = features(4.0, seed=1, dim=90)
    assert guard.judge(weak, strong, target, 3).accepted


def test_the_same_features_are_not_better() -> None:
    same, target = features(1.0)
    assert not guard.judge(same, same, target, 3).accepted


def test_rows_of_one_class_say_nothing_and_the_old_features_stay() -> None:
    weak, _ = features(0.5)
    verdict = guard.judge(weak, weak, np.zeros(60, dtype=np.int64), 3)
    assert not verdict.accepted and verdict.before is None and "60 held-out rows say nothing: " in verdict.reason
