"""Random numbers hang on (seed, purpose, round, id) alone, and behave like random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from alray import seeds

IDS = [f"row-{i}" for i in range(20_000)]
HASHES = seeds.hash_ids(IDS)


def splitmix(z: int) -> int:
    """Return SplitMix64's step in Python's own integers."""
    mask = 2**64 - 1
    z = (z + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_splitmix_has_its_published_first_value() -> None:
    assert splitmix(0) == 0xE220A8397B1DCDAF


@pytest.mark.parametrize("stream", [0, 1, 2**63, 2**64 - 1])
def test_numbers_are_two_splitmix_steps_of_hash_and_key(stream: int) -> None:
    hashes = np.array([0, 1, 2**64 - 1, 12345678901234567890], dtype=np.uint64)
    expected = [(splitmix(splitmix(int(h) ^ stream)) >> 11) * 2.0**-53 for h in hashes]
    np.testing.assert_allclose(seeds.uniform(stream, hashes), expected, rtol=0, atol=2.0**-53)


def test_hashes_are_those_of_any_machine() -> None:
    assert seeds.hash_ids(["a"])[0] == int.from_bytes(bytes.fromhex("40f89e395b66422f"), "little")  # b2sum -l 64
    assert seeds.hash_ids(["a", "ü", ""]).tolist() == [int(seeds.hash_ids([i])[0]) for i in ("a", "ü", "")]
    assert seeds.hash_ids([]).shape == (0,) and HASHES.dtype == np.uint64
    assert len(np.unique(HASHES)) == len(IDS)


def test_a_row_draws_the_same_number_beside_any_others() -> None:
    stream = seeds.key(0, "test", 1)
    whole = seeds.uniform(stream, HASHES)
    order = np.random.default_rng(0).permutation(len(IDS))
    assert (seeds.uniform(stream, HASHES[order]) == whole[order]).all()
    assert seeds.uniform(stream, HASHES[7:8])[0] == whole[7]


def test_a_row_has_a_sequence_of_its_own_and_any_stretch_of_it_can_be_had_alone() -> None:
    stream = seeds.key(0, "test", 1)
    whole = seeds.uniforms(stream, HASHES[:50], 0, 40)
    assert (whole[:, 0] == seeds.uniform(stream, HASHES[:50])).all()
    assert (seeds.uniforms(stream, HASHES[3:9], 7, 20) == whole[3:9, 7:27]).all()
    state = splitmix(int(HASHES[5]) ^ stream)
    expected = [(splitmix(state + k * 0x9E3779B97F4A7C15) >> 11) * 2.0**-53 for k in range(40)]
    np.testing.assert_allclose(whole[5], expected, rtol=0, atol=2.0**-53)


def test_sequences_of_rows_are_uniform_and_share_nothing() -> None:
    numbers = seeds.uniforms(seeds.key(0, "test", 1), HASHES[:2000], 0, 8)
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-4
    assert np.abs(np.corrcoef(numbers.T) - np.eye(8)).max() < 5 / np.sqrt(2000)
    assert np.abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 5 / np.sqrt(16_000)


def test_drawing_leaves_the_hashes_alone() -> None:
    before = HASHES.copy()
    seeds.uniform(3, HASHES)
    assert (before == HASHES).all()


def test_numbers_are_uniform_and_streams_share_nothing() -> None:
    streams = [seeds.key(s, p, r) for s in (0, 1) for p in ("random", "fill") for r in (0, 1)]
    numbers = np.stack([seeds.uniform(stream, HASHES) for stream in streams])
    assert ((numbers > 0) & (numbers <= 1)).all()
    assert min(stats.kstest(row, "uniform").pvalue for row in numbers) > 1e-4
    correlation = np.corrcoef(numbers) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(len(IDS))


def test_keys_tell_apart_what_their_parts_spell_together() -> None:
    parts = [(1, "a", 1, 11), (1, "a", 11, 1), (11, "a", 1), (1, "a1", 1), (1, "a", "1", "1", "1"), (0, "a"), (-1, "a")]
    assert len({seeds.key(*p) for p in parts}) == len(parts)  # type: ignore[arg-type]
    assert all(0 <= seeds.key(*p) < 2**64 for p in parts)  # type: ignore[arg-type]
    assert seeds.key(0, "a", 1) == seeds.key(0, "a", "1")


def test_generators_are_streams_too() -> None:
    assert seeds.generator(0, "a", 1).random() == seeds.generator(0, "a", 1).random()
    assert seeds.generator(0, "a", 1).random() != seeds.generator(0, "a", 2).random()
    one, again, other = (torch.rand(3, generator=seeds.torch_generator(0, p)) for p in ("a", "a", "b"))
    assert torch.equal(one, again) and not torch.equal(one, other)
