"""Gumbel noise: its distribution, and winners with the chances that the scores say."""

from __future__ import annotations

import numpy as np
from scipy import stats

from alray import seeds
from alray.ops import gumbel


def test_it_has_the_gumbel_distribution() -> None:
    noise = gumbel.noise(seeds.key(0, "test"), np.arange(20_000, dtype=np.uint64))
    assert stats.kstest(noise, stats.gumbel_r.cdf).pvalue > 0.01 and np.isfinite(noise).all()


def test_the_highest_of_scores_and_noise_win_by_their_chances() -> None:
    """Chi-square over 4,000 keys: the winner of ln w + noise is row i with chance w_i / Σ w."""
    weights, hashes = np.array([0.1, 1, 2, 3, 6]), seeds.hash_ids(list("abcde"))
    won = [int(np.argmax(np.log(weights) + gumbel.noise(seeds.key(s, "win"), hashes))) for s in range(4000)]
    expected = 4000 * weights / weights.sum()
    assert stats.chisquare(np.bincount(won, minlength=5), expected).pvalue > 0.01


def test_a_rows_noise_is_its_own() -> None:
    hashes = seeds.hash_ids([f"row-{i}" for i in range(100)])
    whole = gumbel.noise(7, hashes)
    assert (gumbel.noise(7, hashes[40:60]) == whole[40:60]).all() and (gumbel.noise(8, hashes) != whole).all()
