"""Rows drawn at random: those with the highest of the numbers that their ids draw, from any shards."""

from __future__ import annotations

from typing import Any

import cut_rows
import numpy as np
import pytest
from scipy.stats import chisquare

from alray import seeds
from alray.selection import at_random
from alray.selection.diversity.diversify import diversify
from alray.selection.resident import Exclusion
from alray.strategies.diversity import Uniform

ROWS = 40
MATRIX = np.random.default_rng(0).normal(size=(ROWS, 3)).astype(np.float16)
CUTS: list[dict[str, Any]] = [{}, {"sizes": [7, 1, 32]}, {"order": np.arange(ROWS)[::-1], "sizes": [20, 20]}]
NAMES = cut_rows.builders.ids(ROWS)


def highest(purpose: str, rows: list[int], count: int, seed: int = 3) -> list[str]:
    """Return the ids of these rows with the highest numbers of a stream, highest first."""
    number = seeds.uniform(seeds.key(seed, purpose, 0), seeds.hash_ids(NAMES))
    return [NAMES[i] for i in sorted(rows, key=lambda i: -number[i])[:count]]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("count", [1, 9, 36])
def test_uniform_and_fill_take_the_rows_that_drew_the_highest_numbers(count: int, cut: dict[str, Any]) -> None:
    labelled = [0, 5, 11, 39]
    free = [i for i in range(ROWS) if i not in labelled]
    more = {"budget": count, "labelled": labelled, "seed": 3, "diversity": Uniform(), **cut}
    found = cut_rows.candidates("coreset", MATRIX, **more)
    assert diversify(found)[0].tolist() == highest("uniform", free, count)
    taken = cut_rows.builders.ids(20)
    filled = at_random.fill(found.held, found.scan, count, 3, 0, np.array(taken))[0]
    assert filled.tolist() == highest("fill", [i for i in free if i >= 20], count)


@pytest.mark.parametrize("cut", CUTS)
def test_a_sample_is_drawn_among_all_that_may_be_picked(cut: dict[str, Any]) -> None:
    found = cut_rows.candidates("coreset", MATRIX, budget=1, **cut)
    closed = Exclusion(frozenset(NAMES[30:]))
    sample = at_random.sample(found.held, closed, 12, 3, 0)
    assert sample.ids.tolist() == sorted(highest("sample", list(range(30)), 12))
    np.testing.assert_array_equal(sample["features"], MATRIX[cut_rows.numbers(sample.ids)].astype(np.float32))
    assert len(at_random.sample(found.held, closed, 99, 3, 0)) == 30


def test_every_row_is_as_likely_as_every_other() -> None:
    """Chi-square over 600 seeds: three of ten rows."""
    seen = np.zeros(10)
    for seed in range(600):
        found = cut_rows.candidates("coreset", MATRIX[:10], budget=3, seed=seed, diversity=Uniform(), sizes=[4, 6])
        seen[cut_rows.numbers(diversify(found)[0])] += 1
    assert seen.sum() == 1800 and chisquare(seen).pvalue > 0.001
