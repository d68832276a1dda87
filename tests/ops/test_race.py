"""The race that D² sampling is: P14 and the third pick, by chi-square; times that never get earlier."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chisquare, kstest

from alray import seeds
from alray.ops import race

HASHES = seeds.hash_ids(f"row-{i}" for i in range(6))
TIMES = 10_000


def exponentials() -> torch.Tensor:
    """Return the numbers of six rows in ten thousand races, [races, rows]."""
    return torch.stack([race.exponentials(seeds.key(s, "race", 0), HASHES) for s in range(TIMES)])


def test_numbers_are_exponential_and_independent() -> None:
    drawn = exponentials().numpy()
    assert kstest(drawn.ravel(), "expon").pvalue > 0.01
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 0.04


def test_p14_the_first_to_fire_by_its_share_of_the_rates() -> None:
    rate_N = torch.tensor([4.0, 0.0, 1.0, 0.25, 2.5, 0.01], dtype=torch.float64)
    first = race.due(exponentials(), rate_N).argmin(dim=1)
    seen = torch.bincount(first, minlength=6).double()
    assert seen[1] == 0
    there = rate_N > 0
    assert chisquare(seen[there], TIMES * rate_N[there] / rate_N.sum()).pvalue > 0.001


def test_the_next_to_fire_after_rates_have_fallen_by_its_share_of_the_new_rates() -> None:
    before_N = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    after_N = torch.tensor([0.0, 0.3, 2.0, 0.4, 0.0, 0.1], dtype=torch.float64)
    due = race.due(exponentials(), before_N)
    fired = due.argmin(dim=1) == 0
    now = due[fired, 0]
    later = torch.stack([race.delayed(d, before_N, after_N, float(t)) for d, t in zip(due[fired], now, strict=True)])
    seen = torch.bincount(later.argmin(dim=1), minlength=6).double()
    there = after_N > 0
    assert seen[~there].sum() == 0 and fired.sum() > 3000
    assert chisquare(seen[there], seen.sum() * after_N[there] / after_N.sum()).pvalue > 0.001


def test_a_row_is_due_later_by_hand() -> None:
    # E = 6 at rate 2 is due at 3. At time 1 a third is used up; what is left, 4, takes 8 at rate 1/2.
    due = race.due(torch.tensor([6.0], dtype=torch.float64), torch.tensor([2.0], dtype=torch.float64))
    assert due.item() == 3
    assert race.delayed(due, torch.tensor([2.0]), torch.tensor([0.5]), 1.0).item() == 9
    assert race.delayed(due, torch.tensor([2.0]), torch.tensor([0.0]), 1.0).item() == torch.inf
    assert race.delayed(due, torch.tensor([2.0]), torch.tensor([2.5]), 1.0).item() == 3


def test_times_never_get_earlier_and_stay_in_every_bit_where_rates_do() -> None:
    g = torch.Generator().manual_seed(0)
    before = torch.rand(2000, generator=g, dtype=torch.float64)
    due = race.due(-torch.rand(2000, generator=g, dtype=torch.float64).log(), before)
    for share in (1 - 1e-16, 1 - 1e-15, 0.999999, 0.5, 1e-12):
        now = float(due.min())
        later = race.delayed(due, before, before * share, now)
        assert (later >= due).all()
        assert torch.equal(race.delayed(due, before, before, now), due)
    for now in due.sort().values[200::300].tolist():
        waiting = due > now
        assert torch.equal(race.delayed(due, before, before, now)[waiting], due[waiting])


def test_rows_that_never_fire_never_do() -> None:
    zero, never = torch.zeros(1, dtype=torch.float64), torch.tensor([torch.inf], dtype=torch.float64)
    assert torch.equal(race.due(zero + 1, zero), never) and torch.equal(race.delayed(never, zero, zero, 1.0), never)
