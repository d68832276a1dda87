"""k-means: exact sums in any split, the laws of its seeding and steps, and its edges, against NumPy by brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from alray import seeds
from alray.ops import kmeans


def units(rows: int = 3000, dim: int = 24, seed: int = 0) -> Tensor:
    """Return fp16 unit rows of a mixture with very uneven groups."""
    rng = np.random.default_rng(seed)
    group = np.minimum(rng.geometric(0.4, size=rows), 8)
    x = rng.normal(size=(9, dim))[group] * 2 + rng.normal(size=(rows, dim))
    return kmeans.unit_rows(torch.from_numpy(x))


def brute(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return all squared distances in fp64, [N, K]."""
    return ((x[:, None].astype(np.float64) - centres[None].astype(np.float64)) ** 2).sum(axis=2)


def inertia(x: Tensor, centres: Tensor) -> float:
    return float(brute(x.numpy(), centres.numpy()).min(axis=1).sum())


def start(x: Tensor, clusters: int, seed: int = 0) -> Tensor:
    return kmeans.plus_plus(x, torch.ones(len(x)), clusters, seeds.generator(seed, "test"))


# rows


def test_unit_rows_have_length_one_and_zero_stays_zero() -> None:
    x = torch.tensor([[3.0, 4.0], [0, 0], [65504, 65504], [6e-8, 0], [-1e-3, 0]])
    found = kmeans.unit_rows(x)
    assert found.dtype == torch.float16
    half = 2**-0.5
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [half, half], [1, 0], [-1, 0]], atol=5e-4)


# exact sums


@pytest.mark.parametrize("shards", [2, 7, 64])
@pytest.mark.parametrize("seed", range(3))
def test_sums_have_the_same_bits_for_any_shards_in_any_order(shards: int, seed: int) -> None:
    x = units()
    label = kmeans.nearest(x, start(x, 20))[0]
    sums, counts = kmeans.cluster_sums(x, label, 20)
    rng = np.random.default_rng(seed)
    owner, order = rng.integers(shards, size=len(x)), rng.permutation(shards)
    parts = []
    for shard in order:
        rows = torch.from_numpy(rng.permutation(np.flatnonzero(owner == shard)))
        parts.append(kmeans.cluster_sums(x[rows], label[rows], 20))
    assert torch.equal(sum(p[0] for p in parts), sums) and torch.equal(sum(p[1] for p in parts), counts)


def test_sums_are_the_true_ones() -> None:
    x = units(500)
    label = torch.arange(500) % 7
    sums, counts = kmeans.cluster_sums(x, label, 9)
    whole = np.round(x.numpy().astype(np.float64) * 2**24).astype(object)  # integers of any size
    for k in range(9):
        assert counts[k] == (label == k).sum()
        assert (sums[k].numpy() * 2**24 == whole[label.numpy() == k].sum(axis=0)).all()


def test_only_rounded_rows_are_summed() -> None:
    with pytest.raises(AssertionError):
        kmeans.cluster_sums(units().float(), torch.zeros(3000, dtype=torch.int64), 1)


def test_no_rows_sum_to_zero() -> None:
    sums, counts = kmeans.cluster_sums(units()[:0], torch.zeros(0, dtype=torch.int64), 3)
    assert not sums.any() and counts.tolist() == [0, 0, 0]
    assert len(kmeans.nearest(units()[:0], torch.zeros(3, 24))[0]) == 0


# nearest


def test_nearest_is_the_brute_forces() -> None:
    x = units(5000)  # more than a chunk
    centres = start(x, 30)
    label, squared = kmeans.nearest(x, centres)
    truth = brute(x.numpy(), centres.numpy())
    np.testing.assert_allclose(squared, truth.min(axis=1), atol=2e-6)
    wrong = label.numpy() != truth.argmin(axis=1)
    assert wrong.mean() < 1e-3 and np.ptp(np.sort(truth[wrong])[:, :2], axis=1).max(initial=0) < 1e-6


@pytest.mark.parametrize("clusters", [2, 3, 7, 8, 17, 64, 100, 333])
def test_ties_go_to_the_lowest_centroid(clusters: int) -> None:
    x = units(300)
    assert not kmeans.nearest(x, start(x, 1).repeat(clusters, 1))[0].any()
    centres = torch.zeros(clusters, 24)
    assert not kmeans.nearest(x, centres)[0].any()


def test_distances_are_never_negative() -> None:
    x = units(200)
    assert (kmeans.nearest(x, x.float())[1] >= 0).all()


def test_distances_to_the_own_centroid_are_the_brute_forces() -> None:
    x = units(400)
    centres, label = start(x, 5), torch.arange(400) % 5
    truth = brute(x.numpy(), centres.numpy())[np.arange(400), label]
    np.testing.assert_allclose(kmeans.distances(x, centres, label), truth, rtol=1e-12)


# seeding


def test_plus_plus_draws_by_squared_distance() -> None:
    x = kmeans.unit_rows(torch.tensor([[1.0, 0], [1, 0.3], [0, 1], [-1, 0], [-1, -0.2]]))
    weight = torch.tensor([1.0, 3, 1, 2, 1])
    counts: dict[tuple[int, ...], int] = dict.fromkeys(itertools.permutations(range(5), 3), 0)
    rows = {tuple(row.tolist()): i for i, row in enumerate(x.float())}
    for seed in range(6000):
        drawn = kmeans.plus_plus(x, weight, 3, seeds.generator(seed, "chi-square"))
        counts[tuple(rows[tuple(row.tolist())] for row in drawn)] += 1
    squared, w = brute(x.numpy(), x.numpy()), weight.numpy().astype(np.float64)
    expected = []
    for first, second, third in counts:
        mass_2 = w * squared[first]
        mass_3 = w * np.minimum(squared[first], squared[second])
        expected.append(w[first] / w.sum() * mass_2[second] / mass_2.sum() * mass_3[third] / mass_3.sum() * 6000)
    often = np.array(expected) > 5
    found = np.array(list(counts.values()))
    rest = [[found[~often].sum()], [np.array(expected)[~often].sum()]]
    chi = stats.chisquare(np.r_[found[often], rest[0]], np.r_[np.array(expected)[often], rest[1]])
    assert chi.pvalue > 1e-3


def test_plus_plus_draws_every_row_when_asked_for_all() -> None:
    x = units(60)
    assert len(np.unique(start(x, 60).numpy(), axis=0)) == len(np.unique(x.float().numpy(), axis=0))


def test_plus_plus_of_identical_rows_repeats_them() -> None:
    x = units(1).repeat(50, 1)
    assert torch.equal(start(x, 5), x[:5].float())


def test_plus_plus_never_draws_a_row_without_weight() -> None:
    x = units(40)
    weight = torch.zeros(40)
    weight[[3, 17, 30]] = torch.tensor([1.0, 2, 3])
    drawn = kmeans.plus_plus(x, weight, 3, seeds.generator(0, "test"))
    assert sorted(brute(drawn.numpy(), x.numpy()).argmin(axis=1)) == [3, 17, 30]


def test_the_seed_decides() -> None:
    x = units()
    assert torch.equal(start(x, 9, 1), start(x, 9, 1)) and not torch.equal(start(x, 9, 1), start(x, 9, 2))


# steps


def test_lloyd_is_the_brute_forces_and_never_raises_the_inertia() -> None:
    x, clusters = units(800), 12
    centres = start(x, clusters)
    theirs, before = centres.numpy().astype(np.float64), np.inf
    for steps in range(1, 12):
        label = brute(x.numpy(), theirs).argmin(axis=1)
        theirs = np.stack(
            [
                x.numpy()[label == k].astype(np.float64).mean(axis=0) if (label == k).any() else theirs[k]
                for k in range(12)
            ]
        ).astype(np.float32)
        ours, _ = kmeans.lloyd(x, centres, iterations=steps)
        np.testing.assert_array_equal(ours.numpy(), theirs)
        assert inertia(x, ours) <= before + 1e-9
        before = inertia(x, ours)


def test_lloyd_stops_when_nothing_moves() -> None:
    x = units(500)
    centres, steps = kmeans.lloyd(x, start(x, 5), iterations=100)
    again, more = kmeans.lloyd(x, centres, iterations=100)
    assert steps < 100 and more == 1 and torch.equal(again, centres)


def test_an_empty_cluster_keeps_its_place() -> None:
    x = units(100)
    away = torch.full((1, 24), 9.0)
    centres, _ = kmeans.lloyd(x, torch.cat([start(x, 2), away]), iterations=5)
    assert torch.equal(centres[2:], away)
    assert torch.equal(
        kmeans.means(torch.ones(1, 2).double(), torch.zeros(1), torch.tensor([[3.0, 4]])),
        away[:, :2] - torch.tensor([[6.0, 5]]),
    )


def test_as_many_clusters_as_rows_leave_no_inertia() -> None:
    x = units(40)
    centres, _ = kmeans.lloyd(x, start(x, 40), iterations=10)
    assert inertia(x, centres) == 0


@pytest.mark.parametrize("clusters", [1, 3])
def test_identical_rows_end_on_themselves(clusters: int) -> None:
    x = units(1).repeat(30, 1)
    centres, _ = kmeans.lloyd(x, start(x, clusters), iterations=10)
    assert torch.equal(centres, x[:clusters].float())


def test_a_zero_row_is_a_row_like_any_other() -> None:
    x = torch.cat([units(50), torch.zeros(1, 24, dtype=torch.float16)])
    centres, _ = kmeans.lloyd(x, start(x, 51), iterations=3)
    assert inertia(x, centres) == 0 and (centres == 0).all(dim=1).any()


# weighted points


def test_weights_stand_for_repeated_rows() -> None:
    x = units(60).float()
    weight = torch.arange(60) % 4 + 1
    once = kmeans.weighted(x, weight, 4, seeds.generator(0, "w"), tries=5, iterations=50)
    repeated = x.repeat_interleave(weight, dim=0)
    label = brute(repeated.numpy(), once.numpy()).argmin(axis=1)
    means = np.stack([repeated.numpy()[label == k].mean(axis=0) for k in range(4)])
    np.testing.assert_allclose(once, means, atol=1e-6)


def test_more_tries_never_cost_inertia() -> None:
    x, weight = units(300).float(), torch.ones(300)
    runs = [kmeans.weighted(x, weight, 8, seeds.generator(0, "w"), tries=n, iterations=20) for n in (1, 3, 8)]
    cost = [inertia(x, run) for run in runs]
    assert cost[0] >= cost[1] >= cost[2]


def test_blobs_far_apart_get_one_centre_each() -> None:
    rng = np.random.default_rng(0)
    blobs = np.eye(12)[rng.integers(12, size=600)] + rng.normal(size=(600, 12)) * 0.01
    x = kmeans.unit_rows(torch.from_numpy(blobs))
    centres = kmeans.weighted(x.float(), torch.ones(600), 12, seeds.generator(0, "w"), tries=3, iterations=20)
    assert sorted(centres.argmax(dim=1).tolist()) == list(range(12)) and inertia(x, centres) < 1
