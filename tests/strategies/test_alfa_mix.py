"""ALFA-Mix as a strategy: its anchors, its score, its switch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks import alfa_candidates as brute

from alray.errors import StrategyError
from alray.models.head import Head
from alray.ops.anchors import class_means
from alray.strategies import Given, find
from alray.strategies.alfa_mix import AlfaMix
from alray.table import Table


def given(case: brute.Case, label: np.ndarray, labelled: np.ndarray) -> Given:
    """Return what a round gives the strategy: labelled rows, their classes, a head."""
    names = [f"c{c}" for c in range(len(case.weight_CD))]
    rows = torch.from_numpy(labelled.astype(np.float32))
    table = Table([f"l{i}" for i in range(len(rows))], {"features": rows, "hidden": rows})
    head = Head.linear(case.weight_CD, case.bias_C, names)
    return Given(budget=5, seed=0, round=0, labelled=table, label_M=torch.from_numpy(label), head=head)


@pytest.mark.parametrize("frozen", [True, False])
def test_score_is_minus_the_cap_of_the_official_loop(frozen: bool) -> None:
    rng = np.random.default_rng(1)
    labelled = np.maximum(rng.normal(size=(4, 24)), 0).astype(np.float16)
    label = np.arange(4)  # of five classes
    case = brute.make("relu", 600, 24, 5, 1, 1)
    case = brute.Case("own anchors", case.rows_ND, case.weight_CD, case.bias_C, brute.anchors_of(labelled, label, 5))
    strategy = AlfaMix(freeze_equal=frozen)
    prepared = strategy.prepare(given(case, label, labelled))
    hidden = torch.from_numpy(case.rows_ND.astype(np.float32))
    score = strategy.score(Table(range(600), {"hidden": hidden}), prepared)  # type: ignore[arg-type]
    assert score.dtype == torch.float32
    found = -score.numpy().astype(np.float64)[None] < brute.CAPS[:, None]
    differs = found != brute.official(case)
    assert brute.official(case)[-1].sum() > 20 and differs.any() != frozen  # most rows share a zero with an anchor
    assert brute.outside_band(case, differs if frozen else differs & ~brute.touching(case)) == 0


def test_anchors_are_class_means_and_an_absent_class_has_the_mean_of_all() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float16)
    label = np.where(np.arange(30) < 1, 3, np.arange(30) % 2)  # one row of class 3, none of 2 and 4
    found = class_means(torch.from_numpy(rows.astype(np.float32)), torch.from_numpy(label), 5)
    np.testing.assert_array_equal(found, brute.anchors_of(rows, label, 5))
    np.testing.assert_array_equal(found[3], rows[0].astype(np.float32))
    np.testing.assert_array_equal(found[2], rows.astype(np.float64).mean(axis=0).astype(np.float32))
    assert torch.equal(found[2], found[4])


def test_anchors_of_rows_far_from_zero_keep_their_digits() -> None:
    rows = np.full((10_000, 1), 1000.1, dtype=np.float16)
    found = class_means(torch.from_numpy(rows.astype(np.float32)), torch.zeros(10_000, dtype=torch.int64), 1)
    assert found.item() == float(rows[0, 0])


def test_prepared_survives_a_process_that_makes_it_read_only() -> None:
    case = brute.make("gaussian", 10, 8, 3, 2, 0)
    strategy = AlfaMix()
    prepared = strategy.prepare(given(case, np.arange(6) % 3, case.rows_ND[:6]))
    for array in prepared.values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    strategy.score(Table(range(10), {"hidden": torch.from_numpy(case.rows_ND.astype(np.float32))}), prepared)  # type: ignore[arg-type]


def test_without_labels_it_says_what_to_do() -> None:
    with pytest.raises(StrategyError, match=r"there are no labels\. Give labels, or start with `strategy: random`"):
        AlfaMix().prepare(Given(budget=1, seed=0, round=0))


@pytest.mark.parametrize("field", [{"cap_step": 0}, {"cap_step": 1.5}, {"shortlist_multiple": 1}, {"cap": 0.2}])
def test_wrong_fields_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(StrategyError, match=next(iter(field))):
        find({"name": "alfa_mix", **field})
