"""Rows of numbers that a head makes none of: no strategy scores them, so that the pipeline quarantines them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import builders
import numpy as np
import pytest
import torch
from variants import CASES, built

from alray import seeds
from alray.models.head import Head
from alray.selection import select
from alray.strategies import Given, find
from alray.strategies.base import HEAD_NEEDS
from alray.table import Table

ROWS, DIM, CLASSES = 90, 8, 3
HUGE = 1e35
"""Of a weight: features of ±60,000 times this are no fp32 numbers."""

WITH_HEAD = [case for case in CASES if built(case).wants & HEAD_NEEDS and built(case).name != "isal"]
ACTIVATIONS = ["learning_loss", "core_gcn", "uncertain_gcn"]
"""They look at what the last layer takes and not at what it says: of a linear head, at features, which are numbers."""


def head(kind: Literal["linear", "mlp"]) -> Head:
    """Return a head that overflows: a linear one in its logits, an MLP in its hidden activations."""
    rng, names = np.random.default_rng(0), tuple(f"class-{c}" for c in range(CLASSES))
    if kind == "linear":
        return Head("linear", names, {"weight": HUGE * rng.normal(size=(CLASSES, DIM)), "bias": np.zeros(CLASSES)})
    below = {"hidden_weight": HUGE * rng.normal(size=(6, DIM)), "hidden_bias": np.zeros(6)}
    return Head("mlp", names, {**below, "weight": rng.normal(size=(CLASSES, 6)) / HUGE, "bias": np.zeros(CLASSES)})


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("case", WITH_HEAD)
def test_rows_that_the_head_overflows_on_are_quarantined(
    case: str, kind: Literal["linear", "mlp"], tmp_path: Path
) -> None:
    matrix, truth = builders.features(ROWS, DIM, classes=CLASSES)
    matrix[40], matrix[41] = 60_000, -60_000
    names = builders.ids(ROWS)
    path = builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(matrix)})
    labels = {names[i]: truth[i] for i in range(0, ROWS, 4) if i != 40}
    strategy, left = built(case), ROWS - len(range(0, ROWS, 4)) + 1
    found = select(strategy, path, budget=left, labels=labels, head=head(kind), max_quarantine=0.1)
    bad = set() if kind == "linear" and strategy.name in ACTIVATIONS else {names[40], names[41]}
    assert {row[0] for row in found.quarantine} == bad
    assert set(found.picks.ids) == set(names) - set(labels) - bad


@pytest.mark.parametrize("fields", [{}, {"top_k": 2}, {"weighted": True}])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_isal_gives_such_rows_no_number(fields: dict[str, Any], bad: float) -> None:
    """By itself: under heads as above there is no Hessian to solve with."""
    rng = np.random.default_rng(0)
    prepared = {"weight": rng.normal(size=(3, DIM)).astype(np.float32), "bias": np.zeros(3, dtype=np.float32)}
    hidden, logits = torch.from_numpy(rng.normal(size=(4, DIM))).float(), torch.from_numpy(rng.normal(size=(4, 3)))
    hidden[1], logits[1] = bad, logits[1] * bad
    logits[2, 0] = math.nan
    rows = Table(builders.ids(4), {"hidden": hidden, "probs": logits.float().softmax(dim=1)})
    score = find({"name": "isal", **fields}).score(rows, prepared)
    assert score.isnan().tolist() == [False, True, True, False] and score[[0, 3]].isfinite().all()


def test_learning_loss_gives_such_rows_no_number_where_its_units_hide_them() -> None:
    """Units that an infinite activation shuts, and a module that had nothing to learn."""
    rows = Table(builders.ids(2), {"features": torch.zeros(2, 1), "hidden": torch.tensor([[0.0], [math.inf]])})
    one = (np.array([[-1.0]], dtype=np.float32), np.ones(1, dtype=np.float32))
    layers = [one, one, (np.ones((1, 2), dtype=np.float32), np.zeros(1, dtype=np.float32))]
    for prepared, fine in (({"layers": layers}, 2.0), ({"layers": None}, -math.inf)):
        score = find("learning_loss").score(rows, prepared)
        assert score[0] == fine and score[1].isnan()


@pytest.mark.parametrize("name", ["uncertain_gcn", "core_gcn"])
def test_a_labelled_row_that_overflows_does_not_reach_the_graph(name: str) -> None:
    rng = np.random.default_rng(0)
    ids, hidden = builders.ids(30), torch.from_numpy(rng.normal(size=(30, 4))).float()
    hidden[29] = math.inf
    hashes = torch.from_numpy(seeds.hash_ids(ids).view(np.int64))
    sample, known = (Table(ids[p], {"hidden": hidden[p], "hash": hashes[p]}) for p in (slice(20), slice(20, 30)))
    strategy = find({"name": name, "epochs": 3, "hidden": 5})
    given = Given(budget=6, seed=0, round=0, sample=sample, labelled=known)
    without = replace(given, labelled=known.take(np.arange(9)))
    found, wanted = (strategy.score(sample, strategy.prepare(one)) for one in (given, without))
    assert torch.equal(found, wanted) and found.isfinite().sum() >= 6
