"""Learning loss as a strategy: it is taught by losses of rows that a head has not seen, and says when it cannot be."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray.errors import StrategyError
from alray.models.head import Head
from alray.runtime import LocalRuntime
from alray.selection import select
from alray.selection.losses import with_losses
from alray.selection.stages import with_hidden
from alray.strategies import Given, find
from alray.table import Table
from alray.training.crossval import fold_of
from alray.training.probe import HeadConfig, fit_head

DIM, CLASSES = 6, ["class-0", "class-1", "class-2", "class-3"]


def given(count: int = 160, config: HeadConfig | None = None, **more: Any) -> Given:
    """Return what the pipeline starts from: labelled rows of four classes and a head."""
    features_ND, truth = builders.features(count, DIM, seed=3)
    head = fit_head(config or HeadConfig(), features_ND, truth, CLASSES, 0)
    label_M = torch.tensor([CLASSES.index(name) for name in truth])
    labelled = Table(builders.ids(count), {"features": torch.from_numpy(features_ND).float()})
    plain = {"budget": 5, "seed": 0, "round": 0, "labelled": labelled, "label_M": label_M, "head": head}
    return Given(**{**plain, **more})


def judged(found: Given) -> Given:
    return with_losses(found, find("learning_loss"), LocalRuntime())


def test_losses_are_those_of_heads_fitted_without_the_row() -> None:
    """Each loss by hand: a head fitted on the other folds, and −ln p of the row's label."""
    start = given(60, head_config=HeadConfig(l2=3.0))
    found = judged(start).losses
    assert found is not None and found.ids.tolist() == start.labelled.ids.tolist()  # type: ignore[union-attr]
    features, fold_M = found["features"].numpy(), fold_of(found.ids.tolist(), 0)
    names = [CLASSES[c] for c in start.label_M.tolist()]  # type: ignore[union-attr]
    for row in (0, 17, 59):
        rest = np.flatnonzero(fold_M != fold_M[row])
        head = fit_head(HeadConfig(l2=3.0), features[rest], [names[i] for i in rest], CLASSES, 0)
        logp = head.logits(torch.from_numpy(features[row : row + 1])).double().log_softmax(dim=1)[0]
        assert found["loss"][row] == pytest.approx(-float(logp[CLASSES.index(names[row])]), rel=1e-5)


def test_losses_of_a_head_of_unknown_settings_are_those_of_its_like(caplog: pytest.LogCaptureFixture) -> None:
    config = HeadConfig(kind="mlp", hidden=8)
    with caplog.at_level(logging.INFO, logger="alray"):
        unknown = judged(given(40, config)).losses
    assert "not known how the head was fitted" in caplog.text and "mlp heads" in caplog.text
    known = judged(given(40, config, head_config=config)).losses
    assert unknown is not None and known is not None and torch.equal(unknown["loss"], known["loss"])


def test_only_strategies_that_need_losses_have_heads_fitted_for_them() -> None:
    start = given(40)
    assert with_losses(start, find("margin"), LocalRuntime()) is start
    assert judged(judged(start)).losses is not None
    empty = given(40, labelled=None, label_M=None)
    assert judged(empty) is empty


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows, and labels that follow the second feature where the first is negative, and nothing elsewhere."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, DIM)).astype(np.float16)
    features[:, 1] *= 4
    label = np.where(features[:, 0] < 0, features[:, 1] > 0, rng.integers(2, size=count))
    return features, label.astype(np.int64)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_rows_that_the_model_does_badly_on_come_first(kind: Any) -> None:
    config, strategy = (
        HeadConfig(kind=kind, hidden=16, lr=1e-2),
        find({"name": "learning_loss", "epochs": 60, "width": 32}),
    )
    features_ND, label = halves(500, 0)
    head = fit_head(config, features_ND, [CLASSES[c] for c in label], CLASSES[:2], 0)
    labelled = Table(builders.ids(500), {"features": torch.from_numpy(features_ND).float()})
    start = given(labelled=labelled, label_M=torch.from_numpy(label), head=head, head_config=config)
    ready = strategy.prepare(with_hidden(judged(start)))
    assert len(ready["layers"]) == (2 if kind == "linear" else 3)
    x_ND = torch.from_numpy(halves(400, 1)[0]).float()
    score = strategy.score(Table(builders.ids(400), {"features": x_ND, "hidden": head.hidden(x_ND)}), ready)
    noisy, clean = score[x_ND[:, 0] > 0.3], score[x_ND[:, 0] < -0.3]
    above = (noisy[:, None] > clean[None, :]).double().mean()  # the area under the curve of telling them apart
    assert above > 0.8, above


def test_without_labels_it_says_what_to_use() -> None:
    head = Head.linear(np.eye(4, DIM, dtype=np.float32), np.zeros(4, dtype=np.float32), CLASSES)
    with pytest.raises(StrategyError, match=r"`learning_loss` learns from .*there are no labels.*`strategy: random`"):
        find("learning_loss").prepare(Given(budget=1, seed=0, round=0, head=head))


def test_losses_that_do_not_differ_teach_nothing_and_rows_are_drawn(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pool, _, names, _ = builders.features_pool(tmp_path)
    labels = dict.fromkeys(names[:10], "only")
    with caplog.at_level(logging.WARNING, logger="alray"):
        found = select("learning_loss", pool, budget=7, labels=labels)
    assert "no two differ: picks are drawn at random" in caplog.text
    assert set(found.picks.reasons) == {"fill"} and len(found.picks) == 7


def test_rounds_and_seeds_have_modules_of_their_own(tmp_path: Path) -> None:
    pool, _, names, labels = builders.features_pool(tmp_path)
    known = dict(zip(names[::4], labels[::4], strict=True))
    strategy = {"name": "learning_loss", "epochs": 3}
    digests = {
        select(strategy, pool, budget=9, labels=known, seed=s, round=r).picks.digest() for s in (0, 1) for r in (0, 1)
    }
    assert len(digests) == 4
