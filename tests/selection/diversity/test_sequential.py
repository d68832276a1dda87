"""Greedy k-centre and D² sampling over shards: the picks of the one-by-one algorithms, for any cut, order and lists.

The oracles recompute everything for every pick, in NumPy, from distances by their definitions: P14, P15, P16, P18 to
P21, V2, V3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import cut_rows
import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from alray import seeds
from alray.models.head import Head
from alray.ops.distances import Euclidean
from alray.runtime import Runtime, RuntimeConfig
from alray.selection.diversity import sequential
from alray.selection.diversity.candidates import Candidates
from alray.selection.diversity.diversify import diversify
from alray.selection.diversity.front import MergeNominees, Nominees, Rule
from alray.selection.diversity.two_round import Level, Proposed
from alray.strategies.diversity import DSquared, KCentre
from alray.table import as_ids

RACES = 3000
STRATEGIES = ["coreset", "cdal", "badge", "kmeans_pp"]


def picks(found: Candidates) -> list[int]:
    """Return the rows picked, in their order."""
    return cut_rows.numbers(diversify(found)[0])


def apart(x_ND: np.ndarray) -> np.ndarray:
    """Return the squared distances of all pairs of rows."""
    x = np.asarray(x_ND, dtype=np.float64)
    return ((x[:, None] - x) ** 2).sum(axis=2)


def greedy(squared_NN: np.ndarray, centres: Sequence[int], budget: int) -> list[int]:
    """Return greedy k-centre's picks; rows are numbered in the order of their ids."""
    chosen = list(centres)
    for _ in range(budget):
        nearest_N = squared_NN[:, chosen].min(axis=1)
        if not nearest_N.max() > 0:
            break
        chosen.append(int(nearest_N.argmax()))
    return chosen[len(centres) :]


def race(squared_NN: np.ndarray, centres: Sequence[int], wait_N: np.ndarray, budget: int) -> list[int]:
    """Return D² sampling's picks: hazards added up from event to event, the next row to reach its number fires."""
    chosen, spent_N = list(centres), np.zeros(len(squared_NN))
    while len(chosen) < len(centres) + budget:
        rate_N = squared_NN[:, chosen].min(axis=1)
        if not rate_N.max() > 0:
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            left_N = np.where(rate_N > 0, (wait_N - spent_N) / rate_N, np.inf)
        chosen.append(int(left_N.argmin()))
        spent_N = spent_N + rate_N * left_N.min()
    return chosen[len(centres) :]


def hashes(rows: int) -> seeds.Hashes:
    return seeds.hash_ids(cut_rows.builders.ids(rows))


def waits(rows: int, seed: int = 0) -> np.ndarray:
    return -np.log(seeds.uniform(seeds.key(seed, "race", 0), hashes(rows)))


def first_drawn(rows: int, seed: int = 0) -> int:
    return int(seeds.uniform(seeds.key(seed, "first centre", 0), hashes(rows)).argmax())


def small_pool(seed: int) -> tuple[np.ndarray, list[int], int, list[int], list[int]]:
    """Return a pool with equal rows and ties, its labelled rows, a budget, an order and sizes of shards."""
    rng = np.random.default_rng(seed)
    rows, dim = int(rng.integers(3, 30)), int(rng.integers(1, 4))
    matrix = rng.integers(0, 4, (rows, dim)).astype(np.float16)
    labelled = rng.choice(rows, int(rng.integers(0, min(4, rows - 1))), replace=False).tolist()
    cuts = np.sort(rng.integers(0, rows + 1, int(rng.integers(0, 5))))
    sizes = np.diff(np.r_[0, cuts, rows]).tolist()
    return matrix, labelled, int(rng.integers(1, rows - len(labelled) + 1)), rng.permutation(rows).tolist(), sizes


@pytest.fixture(params=[1, 3, 1000])
def sent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let shards send so many rows."""
    monkeypatch.setattr(sequential, "MOST", request.param)
    monkeypatch.setattr(sequential, "FEW", request.param)
    return int(request.param)


@pytest.mark.parametrize("forgetful", [False, True])
def test_p18_k_centre_is_the_one_by_one_algorithm(sent: int, forgetful: bool) -> None:
    for seed in range(40):
        matrix, labelled, budget, order, sizes = small_pool(seed)
        centres = labelled or [first_drawn(len(matrix))]
        wanted = ([] if labelled else centres) + greedy(apart(matrix), centres, budget - (not labelled))
        more: dict[str, Any] = {"order": order, "sizes": sizes, "labelled": labelled, "forgetful": forgetful}
        found = cut_rows.candidates("coreset", matrix, budget=budget, **more)
        assert picks(found) == wanted
        assert found.report["sequence"] == "exact" and found.report["reduces"] <= budget + 3
        left = apart(matrix)[:, [*labelled, *wanted]].min(axis=1)
        assert found.report["radius"] == np.sqrt(left.max()) and found.report["potential"] == left.sum()


@pytest.mark.parametrize("forgetful", [False, True])
def test_d_squared_is_the_one_by_one_race(sent: int, forgetful: bool) -> None:
    for seed in range(40):
        matrix, labelled, budget, order, sizes = small_pool(seed)
        centres = labelled or [first_drawn(len(matrix), seed)]
        wait_N = waits(len(matrix), seed)
        wanted = ([] if labelled else centres) + race(apart(matrix), centres, wait_N, budget - (not labelled))
        found = cut_rows.candidates(
            "coreset",
            matrix,
            budget=budget,
            order=order,
            sizes=sizes,
            labelled=labelled,
            seed=seed,
            forgetful=forgetful,
            diversity=DSquared(),
        )
        assert picks(found) == wanted


def test_shorter_lists_take_more_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).normal(size=(600, 6))
    reduces = []
    for most in (1, 40, 1000):
        monkeypatch.setattr(sequential, "MOST", most)
        monkeypatch.setattr(sequential, "FEW", most)
        found = cut_rows.candidates("coreset", matrix, budget=60, labelled=[0])
        picks(found)
        reduces.append(found.report["reduces"])
    assert reduces[0] == 61 and reduces[0] > reduces[1] > reduces[2] and reduces[2] < 10


# bits


def head(dim: int, classes: int = 5, seed: int = 0) -> Head:
    rng = np.random.default_rng(seed)
    return Head.linear(rng.normal(size=(classes, dim)), rng.normal(size=classes), [f"c{n}" for n in range(classes)])


@pytest.mark.parametrize("name", STRATEGIES)
def test_near_ties_and_equal_rows_are_decided_alike_in_any_cut(name: str) -> None:
    rng = np.random.default_rng(3)
    matrix = (10 + 0.1 * rng.normal(size=(400, 37))).astype(np.float16)
    matrix[300:] = matrix[200:300]
    matrix[100:200] = matrix[:100] + np.where(rng.random((100, 37)) < 0.1, 2.0**-7, 0)  # the least step of fp16 at 10
    given: dict[str, Any] = {"budget": 60, "labelled": [5, 50, 305], "head": head(37)}
    whole = diversify(cut_rows.candidates(name, matrix, **given))
    for seed, sizes in enumerate(([400], [1, 399], [17] * 23 + [9], [200, 3, 197])):
        order = np.random.default_rng(seed).permutation(400)
        ids, scores = diversify(cut_rows.candidates(name, matrix, order=order, sizes=sizes, **given))
        assert ids.tolist() == whole[0].tolist() and np.array_equal(scores, whole[1])


@pytest.mark.parametrize("dim", [24, 77])
def test_rows_that_are_equally_far_are_taken_by_id(dim: int) -> None:
    # Shuffles of one row are equally far from a centre of equal coordinates; sums that round may disagree.
    rng = np.random.default_rng(dim)
    base = rng.normal(size=dim).astype(np.float16)
    shuffled = np.stack([rng.permutation(base) for _ in range(40)])
    matrix = np.concatenate([np.full((1, dim), 0.7), shuffled]).astype(np.float16)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(41)
        found = cut_rows.candidates("coreset", matrix, budget=1, labelled=[0], order=order, sizes=[3, 20, 18])
        assert picks(found) == [1]


# properties


def test_v3_on_a_line() -> None:
    matrix = np.array([[0], [1], [2], [5], [9], [10]])
    found = cut_rows.candidates("coreset", matrix, budget=4, labelled=[0])
    ids, scores = diversify(found)
    assert cut_rows.numbers(ids) == [5, 3, 2, 1] and scores.tolist() == [10, 5, 2, 1]


def test_p19_the_radius_is_at_most_twice_the_best() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix, budget = rng.normal(size=(12, 2)).astype(np.float16), int(rng.integers(1, 4))
        found = cut_rows.candidates("coreset", matrix, budget=budget, labelled=[0])
        picks(found)
        tries = itertools.combinations(range(1, 12), budget)
        best = min(apart(matrix)[:, [0, *extra]].min(axis=1).max() for extra in tries)
        assert np.sqrt(best) - 1e-9 <= found.report["radius"] <= 2 * np.sqrt(best) + 1e-9


@pytest.mark.parametrize("name", ["coreset", "cdal"])
def test_p20_distances_of_successive_picks_do_not_rise(name: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(300, 9))
    _, scores = diversify(cut_rows.candidates(name, matrix, budget=299, labelled=[0], head=head(9)))
    assert len(scores) == 299 and (np.diff(scores) <= 0).all() and scores[-1] > 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_p15_as_many_as_there_are_distinct_rows_gives_each_once(name: str) -> None:
    matrix = np.random.default_rng(1).normal(size=(25, 6))
    matrix = np.concatenate([matrix, matrix])
    labelled = [] if name == "badge" else [3]
    found = cut_rows.candidates(name, matrix, budget=45, labelled=labelled, head=head(6), sizes=[10, 40])
    assert sorted(n % 25 for n in picks(found)) == [n for n in range(25) if n not in labelled]


@pytest.mark.parametrize("name", STRATEGIES)
def test_p16_no_row_twice_before_all_others_once(name: str) -> None:
    matrix = np.random.default_rng(2).normal(size=(20, 5))
    for seed in range(10):
        found = cut_rows.candidates(name, np.repeat(matrix, 2, axis=0), budget=20, head=head(5), seed=seed)
        assert sorted(n // 2 for n in picks(found)) == list(range(20))


def test_v2_and_p14_the_second_pick_of_the_gradients_and_the_third_after_it() -> None:
    # V2: (2, 0) is the longest; (0, 1) and (1, 0) follow with 5/6 and 1/6. One more row makes a third pick a draw.
    x = np.array([[2.0, 0], [0, 1], [1, 0], [1.5, 0.5]], dtype=np.float32)
    ids, squared = as_ids(cut_rows.builders.ids(4)), apart(x)
    seen = np.zeros((4, 4))
    for seed in range(RACES):
        level = Level(Rule(Euclidean(), seeds.key(seed, "race", 0), "norm"), None, 3)
        first, second, third = cut_rows.numbers(level.picks(Proposed(ids, x, np.ones(4))).ids_K)
        assert first == 0
        seen[second, third] += 1
    share = squared[0] / squared[0].sum()
    assert chisquare(seen.sum(axis=1)[1:], RACES * share[1:]).pvalue > 0.001
    for second in (1, 2, 3):
        rate = np.minimum(squared[0], squared[second])
        there = rate > 0
        expected = seen[second].sum() * rate / rate.sum()
        assert seen[second][~there].sum() == 0
        assert chisquare(seen[second][there], expected[there]).pvalue > 0.001
    three = squared[0, :3] / squared[0, :3].sum()
    assert three.tolist() == pytest.approx([0, 5 / 6, 1 / 6])


def test_the_first_pick_without_centres_is_any_row() -> None:
    matrix = np.arange(8.0)[:, None]
    first = [
        picks(cut_rows.candidates("coreset", matrix, budget=1, seed=seed, diversity=way))[0]
        for seed in range(400)
        for way in (KCentre(), DSquared())
    ]
    assert chisquare(np.bincount(first[0::2], minlength=8)).pvalue > 0.001
    assert first[0::2] == first[1::2]


# merges


def test_nominees_merge_in_any_order_and_shape() -> None:
    rng = np.random.default_rng(0)
    parts = []
    for part in np.split(np.arange(40), [3, 10, 11, 30]):
        merit = rng.integers(0, 5, len(part)).astype(float)
        ids = as_ids([f"{n:02d}" for n in part])
        parts.append(Nominees(merit, merit, ids, merit[:, None].astype(np.float32)).best(4))
    merge = MergeNominees(6)
    whole = merge(parts)
    for order in itertools.permutations(range(5)):
        a, b, c, d, e = (parts[i] for i in order)
        for found in (merge([a, b, c, d, e]), merge([merge([a, b]), merge([c, merge([d, e])])])):
            assert found.ids_n.tolist() == whole.ids_n.tolist() and found.bound == whole.bound
            assert np.array_equal(found.rows_nG, whole.rows_nG)


def test_what_is_cut_off_bounds_what_is_sent() -> None:
    merit = np.array([3.0, 5, 5, 1, 5])
    found = Nominees(merit, merit, as_ids(list("edcba")), merit[:, None].astype(np.float32)).best(2)
    assert found.ids_n.tolist() == ["a", "c"] and found.bound == (-5.0, "d")


# edges


@pytest.mark.parametrize("name", STRATEGIES)
def test_identical_rows_leave_the_rest_to_the_fill(name: str) -> None:
    found = cut_rows.candidates(name, np.ones((30, 4)), budget=9, head=head(4), sizes=[10, 20])
    assert len(picks(found)) == 1
    if name != "badge":
        assert picks(cut_rows.candidates(name, np.ones((30, 4)), budget=9, labelled=[2], head=head(4))) == []


@pytest.mark.parametrize("name", STRATEGIES)
def test_one_feature_one_class_and_a_sure_head(name: str) -> None:
    line = np.linspace(-1, 1, 40)[:, None]
    for scale, classes in ((1.0, 1), (1e4, 2), (0.0, 3)):
        weight = scale * np.linspace(-1, 1, classes)[:, None] if classes > 1 else np.ones((1, 1))
        sure = Head.linear(weight, np.zeros(classes), [f"c{n}" for n in range(classes)])
        found = picks(cut_rows.candidates(name, line, budget=10, head=sure, sizes=[13, 27]))
        assert len(found) == len(set(found)) >= 1


def test_a_call_that_comes_late_is_answered_as_it_was_asked() -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 3))
    found = cut_rows.candidates("coreset", matrix, budget=10, labelled=[0])
    rule, shard = Rule(Euclidean()), found.held.map(lambda s: s)[0]
    picked = sequential.exact(found, rule, matrix[:1].astype(np.float16))
    for count in (0, 10, 4, 4, 9):
        centres = sequential.Centres(matrix[:1].astype(np.float16), picked.after(0))
        centres = sequential.Centres(centres.start_KG, picked_first(picked, count))
        squared_N = sequential.front(shard, found.scan, found.limit, rule, centres).squared_N
        rows = [0, *cut_rows.numbers(picked.ids_K[:count])]
        open_rows = cut_rows.numbers(shard.ids[found.limit.rows(shard, found.scan)])
        wanted = apart(matrix.astype(np.float16))[open_rows][:, rows].min(axis=1)
        torch.testing.assert_close(squared_N, torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)


def picked_first(picked: Any, count: int) -> Any:
    """Return the first `count` picks."""
    return type(picked)(picked.ids_K[:count], picked.rows_KG[:count], picked.squared_K[:count], picked.time_K[:count])


@pytest.mark.ray
def test_ray_with_1_and_2_workers_picks_what_this_process_picks(ray_runtime: Runtime) -> None:
    from alray.runtime.ray import RayRuntime

    matrix = np.random.default_rng(0).normal(size=(120, 9))
    given: dict[str, Any] = {"budget": 40, "labelled": [1, 2], "head": head(9), "sizes": [50, 3, 67]}
    for name, rounds, workers in (("coreset", "exact", 1), ("badge", "exact", 2), ("kmeans_pp", "two_round", 2)):
        way = {"name": name, "rounds": rounds}
        here = diversify(cut_rows.candidates(way, matrix, **given))
        found = cut_rows.candidates(way, matrix, **given, runtime=RayRuntime(RuntimeConfig(workers=workers)))
        with found.held:
            ids, scores = diversify(found)
        assert ids.tolist() == here[0].tolist() and np.array_equal(scores, here[1])
