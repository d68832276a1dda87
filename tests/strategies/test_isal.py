"""ISAL on the last layer: against refits of the head, its two solvers, and what it refuses."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr

from alray.errors import StrategyError
from alray.models import Head
from alray.ops import influence
from alray.selection import select
from alray.strategies import Given, find
from alray.strategies.isal import Isal
from alray.table import Table, as_ids
from alray.training.probe import HeadConfig, fit_head, fit_linear

CLASSES = ("class-0", "class-1", "class-2", "class-3")
L2 = 2.0


class Case:
    """Labelled rows, a head fitted on them until nothing moves, a reference set and candidates."""

    def __init__(self, labelled: int = 200, reference: int = 60, pool: int = 50, noise: float = 1.5) -> None:
        total = labelled + reference + pool
        features, labels = builders.features(total, 6, seed=5)
        features = features + np.random.default_rng(1).normal(scale=noise, size=features.shape)
        x = torch.from_numpy(features).float()
        self.label = torch.tensor([CLASSES.index(name) for name in labels])
        self.parts = torch.arange(total).split([labelled, reference, pool])
        self.x, self.texts = x, labels
        self.head = self.fit()

    def fit(self, row: int | None = None, label: int | None = None) -> Head:
        """Return the head with a row of the pool added."""
        train = self.parts[0]
        x, texts = self.x[train].numpy(), [self.texts[i] for i in train]
        if row is not None and label is not None:
            x, texts = np.r_[x, self.x[self.parts[2]][row : row + 1].numpy()], [*texts, CLASSES[label]]
        return fit_linear(x, texts, CLASSES, l2=L2, tol=1e-12, max_iter=2000)

    def loss(self, head: Head) -> float:
        """Return the mean loss of the reference set."""
        rows = self.parts[1]
        return float(F.cross_entropy(head.logits(self.x[rows]).double(), self.label[rows]))

    def table(self, part: int) -> Table:
        x = self.x[self.parts[part]]
        return Table(as_ids(builders.ids(len(x), start=1000 * part)), {"hidden": self.head.hidden(x)})

    def given(self) -> Given:
        label, reference = (self.label[self.parts[part]] for part in (0, 1))
        return Given(
            budget=5, seed=0, round=1, head=self.head, labelled=self.table(0), label_M=label, l2=L2,
            reference=self.table(1), reference_label_M=reference,
        )  # fmt: skip

    def scores(self, **fields: Any) -> np.ndarray:
        """Return the scores of the pool by a strategy with these fields."""
        strategy = Isal(**fields)
        x = self.x[self.parts[2]]
        rows = self.table(2).with_columns(probs=self.head.logits(x).softmax(1))
        return strategy.score(rows, strategy.prepare(self.given())).numpy()

    def pseudo(self) -> list[int]:
        labels: list[int] = self.head.logits(self.x[self.parts[2]]).argmax(1).tolist()
        return labels


@pytest.fixture(scope="module")
def case() -> Case:
    return Case()


def test_p39_p40_the_score_is_the_fall_of_the_reference_loss_when_the_row_is_added(case: Case) -> None:
    """P33, P39, P40 through the strategy: each row is added with its pseudo-label, and the head fitted again."""
    before = case.loss(case.head)
    fall = [before - case.loss(case.fit(row, label)) for row, label in enumerate(case.pseudo())]
    scores = case.scores(tol=1e-10)
    assert np.corrcoef(scores, fall)[0, 1] > 0.99 and spearmanr(scores, fall).statistic > 0.96
    assert fall[int(scores.argmax())] > 0 > fall[int(scores.argmin())]
    np.testing.assert_allclose(scores, fall, atol=0.15 * np.abs(fall).max())  # in nats, not up to a factor


def test_k_of_one_by_its_probability_is_the_weighted_one(case: Case) -> None:
    top_N = case.head.logits(case.x[case.parts[2]]).softmax(1).max(1).values.numpy()
    np.testing.assert_allclose(case.scores(weighted=True), top_N * case.scores(), rtol=1e-4, atol=1e-9)


def test_lissa_converges_to_a_damped_solve(case: Case) -> None:
    """P34 through the strategy: a long LiSSA is conjugate gradients with its effective damping, scale × damp."""
    lissa = {"damp": 1e-3, "scale": 1e3, "depth": 10_000, "repetitions": 1}
    by_lissa, by_cg = case.scores(solver="lissa", lissa=lissa), case.scores(damping=1.0, tol=1e-10)
    assert np.corrcoef(by_lissa, by_cg)[0, 1] > 0.9999
    np.testing.assert_allclose(by_lissa, by_cg, rtol=0.05, atol=0.02 * np.abs(by_cg).max())


@pytest.mark.parametrize("damping", [0.0, 0.3, 4.0])
def test_damping_is_per_labelled_row(case: Case, damping: float) -> None:
    """s solves (Σ H + l2 + damping·M·1) s = v, all of it dense: on every weight and bias alike."""
    given, classes = case.given(), len(CLASSES)
    x = torch.cat([case.x, torch.ones(len(case.x), 1)], 1).double()
    p, label = case.head.logits(case.x).double().softmax(1), torch.eye(classes)[case.label]
    bend = torch.diag(torch.cat([torch.full((6,), L2), torch.zeros(1)]).repeat(classes).double())
    bend += damping * 200 * torch.eye(len(bend))
    for i in case.parts[0]:
        bend += torch.kron(torch.diag(p[i]) - torch.outer(p[i], p[i]), torch.outer(x[i], x[i]))
    others = case.parts[1]
    v = (p - label)[others].T @ x[others] / len(others)
    s = torch.linalg.lstsq(bend, v.flatten()[:, None], driver="gelsd").solution.view(classes, 7)
    found = Isal(damping=damping, tol=1e-10).prepare(given)
    got = torch.from_numpy(np.c_[found["weight"], found["bias"]])
    np.testing.assert_allclose(got - got.mean(0), s - s.mean(0), rtol=1e-3, atol=1e-4 * float(s.abs().max()))


def test_published_lissa_is_near_a_similarity_of_gradients(case: Case) -> None:
    """Trap 10: with the published constants s is v times a number, so that H has no part in the picks."""
    strategy = Isal(solver="lissa")
    s = strategy.prepare(case.given())
    v = Isal(damping=1e9).prepare(case.given())
    assert np.corrcoef(s["weight"].ravel(), v["weight"].ravel())[0, 1] > 0.999


def test_lissa_that_diverges_is_refused(case: Case) -> None:
    with pytest.raises(StrategyError, match=r"LiSSA diverges.*Raise `lissa.scale`"):
        case.scores(solver="lissa", lissa={"scale": 1.0})


def test_all_classes_are_refused(case: Case) -> None:
    """P35: K = C says nothing, and is told so."""
    with pytest.raises(StrategyError, match=r"`top_k` is 4 and the head has 4 classes.*identically zero.*less than 4"):
        case.scores(top_k=4)
    assert np.abs(case.scores(top_k=3)).max() > 0


@pytest.mark.parametrize("change", [{"reference": None}, {"reference_label_M": None}])
def test_no_reference_set_is_refused(case: Case, change: dict[str, Any]) -> None:
    with pytest.raises(StrategyError, match=r"drawn at random.*none\. In a campaign set `training.holdout` above 0"):
        Isal().prepare(replace(case.given(), **change))
    with pytest.raises(StrategyError, match=r"fitted on labels.*none.*`strategy: random`"):
        Isal().prepare(replace(case.given(), labelled=None))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"solver": "lissa", "tol": 1e-3}, r"tol: belongs to `solver: cg` and would do nothing"),
        ({"solver": "lissa", "iterations": 9}, r"iterations: belongs to `solver: cg`"),
        ({"solver": "lissa", "damping": 0.5}, r"damping: belongs to `solver: cg`.*or set `lissa.damp`"),
        ({"lissa": {"depth": 9}}, r"lissa: belongs to `solver: lissa`"),
        ({"top_k": 2, "weighted": True}, r"weighted: would do nothing: with `top_k` 2"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        find({"name": "isal", **fields})


@pytest.mark.parametrize("fields", [{}, {"solver": "lissa", "lissa": {"depth": 9}}, {"tol": 0.1}, {"top_k": 2}])
def test_settings_with_every_default_written_out_are_read_back(fields: dict[str, Any]) -> None:
    strategy = find({"name": "isal", **fields})
    assert find(strategy.model_dump(mode="json")) == strategy


def test_one_label_cannot_be_a_reference_set(tmp_path: Path) -> None:
    pool, _, names, labels = builders.features_pool(tmp_path)
    with pytest.raises(StrategyError, match=r"1 is too few to keep any back\. Give more labels"):
        select("isal", pool, budget=5, labels={names[0]: labels[0]})


def test_one_class_is_said(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    head = Head.linear(np.ones((1, 6), np.float32), np.zeros(1, np.float32), ["class-0"])
    none, given = torch.zeros(200, dtype=torch.int64), case.given()
    given = replace(given, head=head, label_M=none, reference_label_M=none[:60])
    with caplog.at_level(logging.WARNING, logger="alray"):
        prepared = Isal().prepare(given)
    assert "one class to tell apart" in caplog.text and not prepared["weight"].any()


def test_what_conjugate_gradients_left_is_said(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="alray"):
        case.scores(iterations=1, tol=1e-12)
    assert "isal: 1 products, residual" in caplog.text


def test_without_l2_and_too_few_rows_conjugate_gradients_say_what_to_do() -> None:
    case = Case(labelled=6)
    given = replace(case.given(), l2=0.0)
    found = Isal(damping=0.01).prepare(given)
    assert np.isfinite(found["weight"]).all()


def test_an_mlp_head_is_judged_on_its_last_layer() -> None:
    """P37 below an MLP: the score is the last layer's gradient along s, by autograd."""
    case = Case()
    train = case.parts[0]
    config = HeadConfig(kind="mlp", hidden=8, epochs=5)
    case.head = fit_head(config, case.x[train].numpy(), [case.texts[i] for i in train], CLASSES, 0)
    prepared = Isal().prepare(case.given())
    hidden = case.head.hidden(case.x[case.parts[2]])
    weight, bias = (part.clone().requires_grad_() for part in case.head.last)
    logits = hidden @ weight.T + bias
    wanted = []
    for row in logits:
        slopes = torch.autograd.grad(-row.log_softmax(0).max(), [weight, bias], retain_graph=True)
        wanted.append(
            sum(
                float((g * torch.from_numpy(prepared[n])).sum())
                for g, n in zip(slopes, ("weight", "bias"), strict=True)
            )
        )
    rows = Table(case.table(2).ids, {"hidden": hidden, "probs": logits.detach().softmax(1)})
    np.testing.assert_allclose(Isal().score(rows, prepared), wanted, rtol=1e-3, atol=1e-6)


def test_what_it_wants_follows_its_parameters(tmp_path: Path) -> None:
    assert find("isal").wants == {"hidden", "probs", "reference"}
    assert find({"name": "isal", "params": "all_weights"}).wants == {"reference", "backbone+images"}
    pool, _, ids, labels = builders.features_pool(tmp_path)
    known = dict(zip(ids[:40], labels[:40], strict=True))
    with pytest.raises(StrategyError, match=r"`isal` with these settings needs pictures.*`params: last_layer`"):
        select({"name": "isal", "params": "all_weights"}, pool, budget=3, labels=known)


def test_the_best_scores_of_the_pool_are_picked(tmp_path: Path) -> None:
    """Through the pipeline, over shards: the rows with the highest scores, by the formula over the whole pool."""
    pool, features_ND, ids, labels = builders.features_pool(tmp_path, files=(150, 33, 80))
    known = dict(zip(ids[::6], labels[::6], strict=True))
    found = select({"name": "isal", "top_k": 2}, pool, budget=12, labels=known, seed=4)
    head = found.head
    from alray.selection.reference import kept_back

    rows = np.arange(0, len(ids), 6)
    back = kept_back(as_ids([ids[i] for i in rows]), 4, 0.2)
    assert 0 < back.sum() < len(back) / 2
    x = torch.from_numpy(features_ND.astype(np.float32))
    label = torch.tensor([head.classes.index(name) for name in labels])
    train, others = rows[~back], rows[back]
    own = fit_linear(features_ND[train], [labels[i] for i in train], head.classes)
    assert own.digest() == head.digest()  # the reference set was not trained on
    hx = torch.cat([x, torch.ones(len(x), 1)], 1).double()
    p = head.logits(x).double().softmax(1)
    bend = torch.diag(torch.cat([torch.ones(8), torch.zeros(1)]).repeat(4).double())
    for i in train:
        bend += torch.kron(torch.diag(p[i]) - torch.outer(p[i], p[i]), torch.outer(hx[i], hx[i]))
    v = ((p - torch.eye(4)[label])[others].T @ hx[others] / len(others)).ravel()
    s = torch.linalg.lstsq(bend, v[:, None], driver="gelsd").solution.view(4, 9)
    wanted = influence.benefit(p, hx @ s.T, 2, weighted=False).numpy()
    free = [i for i in np.argsort(-wanted) if ids[i] not in known][:12]
    assert {ids[i] for i in free} == set(found.picks.ids)
    np.testing.assert_allclose(found.picks.scores, wanted[free], rtol=1e-3)
