"""BALD, PowerBALD and DropQuery against explicit passes in NumPy, on linear and on MLP heads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from alray import seeds
from alray.errors import StrategyError
from alray.models.head import Head
from alray.strategies import Given, find
from alray.strategies.drop_query import Mismatches
from alray.table import Table

DIM, HIDDEN, CLASSES, ROWS = 12, 9, 4, 60
NAMES = ["bald", "power_bald", "drop_query"]


def head(kind: str, classes: int = CLASSES) -> Head:
    rng = np.random.default_rng(1)
    shapes = {"weight": (classes, HIDDEN), "bias": (classes,)}
    if kind == "linear":
        shapes["weight"] = (classes, DIM)
    else:
        shapes |= {"hidden_weight": (HIDDEN, DIM), "hidden_bias": (HIDDEN,)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Head(kind, tuple(f"c{c}" for c in range(classes)), weights)  # type: ignore[arg-type]


def table(rows: int = ROWS, scale: float = 1.0, first: int = 0) -> Table:
    features = np.random.default_rng(2).normal(size=(rows + first, DIM))[first:] * scale
    ids = [f"row-{i}" for i in range(first, rows + first)]
    hashes = torch.from_numpy(seeds.hash_ids(ids).view(np.int64))
    return Table(ids, {"features": torch.from_numpy(features).float(), "hash": hashes})


def prepared(strategy: Any, kind: str = "linear", seed: int = 0, classes: int = CLASSES) -> dict[str, Any]:
    out: dict[str, Any] = strategy.prepare(Given(budget=5, seed=seed, round=2, head=head(kind, classes)))
    return out


def explicit(strategy: Any, kind: str, features: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Return the logits [S, N, C] of one pass a draw, in fp64, as the text says it."""
    w = {name: array.astype(np.float64) for name, array in head(kind).weights.items()}
    out = []
    for mask in masks.astype(np.float64):
        x = features * mask if kind == "linear" or strategy.where == "features" else features
        if kind == "mlp":
            x = np.maximum(x @ w["hidden_weight"].T + w["hidden_bias"], 0)
            x = x * mask if strategy.where == "hidden" else x
        out.append(x @ w["weight"].T + w["bias"])
    return np.array(out)


def information(logits: np.ndarray) -> np.ndarray:
    """Return H(mean p) − mean H(p), [N], for logits [S, N, C]."""
    probs = np.exp(logits - logits.max(axis=2, keepdims=True))
    probs /= probs.sum(axis=2, keepdims=True)

    def entropy(p: np.ndarray) -> np.ndarray:
        return np.asarray(-(p * np.log(np.where(p > 0, p, 1))).sum(axis=-1))

    return np.asarray(entropy(probs.mean(axis=0)) - entropy(probs).mean(axis=0))


# BALD


@pytest.mark.parametrize(("kind", "where", "size"), [
    ("linear", "hidden", DIM), ("linear", "features", DIM), ("mlp", "hidden", HIDDEN), ("mlp", "features", DIM)
])  # fmt: skip
def test_bald_is_the_information_of_so_many_explicit_passes(kind: str, where: str, size: int) -> None:
    strategy = find({"name": "bald", "where": where, "draws": 11, "dropout": 0.3})
    ready, rows = prepared(strategy, kind), table()
    assert ready["masks"].shape == (11, size)
    logits = explicit(strategy, kind, rows["features"].double().numpy(), ready["masks"])
    np.testing.assert_allclose(strategy.score(rows, ready), information(logits), atol=3e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -0.5])
def test_p23_dropout_zero_is_refused_with_the_reason(name: str, value: float) -> None:
    with pytest.raises(StrategyError, match=rf"strategy.dropout: is {value:g}, .*all scores are 0: set a share above"):
        find({"name": name, "dropout": value})


@pytest.mark.parametrize("name", NAMES)
def test_dropout_of_everything_is_refused(name: str) -> None:
    with pytest.raises(StrategyError, match=r"strategy.dropout: is 1 \(expected .*below 1"):
        find({"name": name, "dropout": 1})


def test_p23_masks_that_leave_nothing_out_score_zero() -> None:
    strategy = find("bald")
    ready = prepared(strategy) | {"masks": np.ones((20, DIM), dtype=np.float32)}
    assert (strategy.score(table(), ready) == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_p24_scoring_changes_nothing_of_a_head(name: str) -> None:
    """P24: a head's batch norm is folded into its weights, and its file is the same after scoring as before."""
    strategy, before = find(name), head("mlp").digest()
    ready = prepared(strategy, "mlp")
    strategy.score(table(), ready)
    assert ready["head"].digest() == before


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_rows_do_not_see_each_other(name: str, kind: str) -> None:
    strategy = find(name)
    ready = prepared(strategy, kind)
    whole = strategy.score(table(200), ready)
    assert torch.equal(strategy.score(table(17, first=150), ready), whole[150:167])


@pytest.mark.parametrize("name", NAMES)
def test_masks_are_the_rounds_and_the_seeds(name: str) -> None:
    strategy = find(name)
    one, same, other = prepared(strategy), prepared(strategy), prepared(strategy, seed=1)
    assert (one["masks"] == same["masks"]).all() and (one["masks"] != other["masks"]).any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0, 1e4])
@pytest.mark.parametrize("classes", [1, 2])
def test_zero_rows_saturated_rows_and_few_classes_give_no_nan(name: str, scale: float, classes: int) -> None:
    strategy = find(name)
    score = strategy.score(table(scale=scale), prepared(strategy, classes=classes))
    assert not torch.isnan(score).any() and score.dtype == torch.float32
    if classes == 1 or (scale == 0 and name != "drop_query"):
        assert score.unique().tolist() == [-math.inf if name == "power_bald" else 0]


# PowerBALD


@pytest.mark.parametrize("beta", [0.0, 1.0, 3.0])
def test_power_bald_takes_rows_with_chances_of_their_information_to_the_power_beta(beta: float) -> None:
    """Chi-square: the first pick over 1,500 seeds against MI^β / Σ MI^β, the information held fixed."""
    strategy, rows = find({"name": "power_bald", "beta": beta}), table(8)
    ready = prepared(strategy)
    chance = information(explicit(strategy, "linear", rows["features"].double().numpy(), ready["masks"])) ** beta
    won = [
        int(strategy.score(rows, ready | {"stream": seeds.key(seed, "power_bald", 0)}).argmax()) for seed in range(1500)
    ]
    expected = 1500 * chance / chance.sum()
    assert stats.chisquare(np.bincount(won, minlength=8), expected).pvalue > 0.01


def test_power_bald_with_a_large_power_is_bald() -> None:
    """Both with the same masks: their purposes in the random stream differ."""
    power, plain = find({"name": "power_bald", "beta": 1000}), find("bald")
    ready, rows = prepared(power), table()
    first = plain.score(rows, ready).argsort(descending=True)[:5]
    assert torch.equal(power.score(rows, ready).argsort(descending=True)[:5], first)


def test_power_bald_leaves_rows_without_disagreement_for_last() -> None:
    strategy, rows = find("power_bald"), table()
    rows["features"][10:] = 0
    score = strategy.score(rows, prepared(strategy))
    assert (score[10:] == -math.inf).all() and torch.isfinite(score[:10]).all()
    cut = strategy.shortlist(20).decide(strategy.shortlist(20).statistic(score.numpy()))
    assert cut.count == 10 and cut.best is None  # the other ten are drawn at random


# DropQuery


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_drop_query_counts_the_passes_that_change_their_mind(kind: str) -> None:
    strategy = find({"name": "drop_query", "draws": 5})
    ready, rows = prepared(strategy, kind), table()
    features = rows["features"].double().numpy()
    whole = explicit(strategy, kind, features, np.ones((1, DIM)))[0].argmax(axis=1)
    expected = (explicit(strategy, kind, features, ready["masks"]).argmax(axis=2) != whole).sum(axis=0)
    assert strategy.score(rows, ready).tolist() == expected.tolist() and len(set(expected)) > 2


@pytest.mark.parametrize(("draws", "counts", "least", "above", "candidates"), [
    (3, [50, 30, 15, 5], 20, 1, 20),  # enough rows that more than one pass of three disagrees about
    (3, [50, 30, 15, 5], 21, 0, 50),  # one too few: one pass is enough
    (3, [50, 30, 15, 5], 51, 0, 50),  # still too few, but a row that no pass disagrees about is no candidate
    (5, [0, 40, 30, 20, 6, 4], 30, 2, 30),
    (5, [0, 40, 30, 20, 6, 4], 31, 1, 60),
    (5, [0, 40, 30, 20, 6, 4], 61, 0, 100),
    (1, [9, 1], 5, 0, 1),
    (3, [9, 0, 0, 0], 5, 0, 0),
])  # fmt: skip
def test_the_threshold_falls_while_there_are_too_few_candidates(
    draws: int, counts: list[int], least: int, above: float, candidates: int
) -> None:
    scores = np.repeat(np.arange(draws + 1), counts).astype(np.float32)
    np.random.default_rng(0).shuffle(scores)
    rule = Mismatches(draws, least)
    for shards in (1, 7):
        cut = rule.decide(sum(rule.statistic(part) for part in np.array_split(scores, shards)))  # type: ignore[arg-type]
        assert (cut.above, cut.count, cut.best) == (above, candidates, None)
        assert (scores > cut.above).sum() == candidates


def test_drop_query_wants_so_many_candidates_a_pick() -> None:
    assert find("drop_query").shortlist(8) == Mismatches(3, 200)
    assert find({"name": "drop_query", "multiple": 1.3}).shortlist(5) == Mismatches(3, 7)
