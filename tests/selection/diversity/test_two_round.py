"""The two-round approximation: blocks of shards first, then their picks; the same in any order, and what it costs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import builders
import cut_rows
import numpy as np
import pytest
from scipy.stats import chisquare

import alray.selection as selection
from alray import seeds
from alray.features import from_pool
from alray.models.head import Head
from alray.ops.distances import Euclidean
from alray.pool import Pool
from alray.selection.diversity.diversify import diversify
from alray.selection.diversity.front import Rule
from alray.selection.diversity.two_round import Level, Proposed
from alray.strategies import find
from alray.strategies.diversity import DSquared, KCentre
from alray.table import as_ids

STRATEGIES = ["coreset", "cdal", "badge", "kmeans_pp"]
SIZES = [17, 60, 3, 120, 100]


def pool(seed: int = 0, rows: int = 300, dim: int = 5) -> np.ndarray:
    return builders.features(rows, dim, seed=seed, classes=12)[0]


def head(dim: int = 5) -> Head:
    rng = np.random.default_rng(0)
    return Head.linear(rng.normal(size=(3, dim)), np.zeros(3), ["a", "b", "c"])


@pytest.mark.parametrize("labelled", [[], [0, 100]])
@pytest.mark.parametrize("name", STRATEGIES)
def test_distinct_rows_named_as_an_approximation(name: str, labelled: list[int]) -> None:
    way = {"name": name, "rounds": "two_round"}
    found = cut_rows.candidates(way, pool(), budget=20, labelled=labelled, sizes=SIZES, head=head())
    ids, scores = diversify(found)
    assert len(set(ids)) == len(scores) == 20 and found.report["sequence"] == "two-round approximation"
    assert not find(way).diversity.exact and find(name).diversity.exact


@pytest.mark.parametrize("name", STRATEGIES)
def test_shuffled_shards_give_the_same_picks(name: str, tmp_path: Path) -> None:
    path, _, names, labels = builders.features_pool(tmp_path, files=(50, 120, 9, 200))
    known = dict(zip(names[:30], labels[:30], strict=True))
    features = from_pool(Pool.open(path, rows_per_shard=25))
    digests = set()
    for order in (slice(None), slice(None, None, -1)):
        turned = dataclasses.replace(features, shards=features.shards[order])
        found = selection.select({"name": name, "rounds": "two_round"}, turned, budget=25, labels=known)
        digests.add(found.picks.digest())
    assert len(digests) == 1


def test_one_shard_is_greedy_itself() -> None:
    exact = cut_rows.candidates("coreset", pool(), budget=30, labelled=[7])
    rough = cut_rows.candidates({"name": "coreset", "rounds": "two_round"}, pool(), budget=30, labelled=[7])
    assert diversify(rough)[0].tolist() == diversify(exact)[0].tolist()


def coverage(matrix: np.ndarray, chosen: list[int]) -> np.ndarray:
    x = matrix.astype(float)
    return ((x[:, None] - x[chosen]) ** 2).sum(axis=2).min(axis=1)


def test_the_radius_stays_within_twice_that_of_exact_greedy() -> None:
    # Greedy is within 2 of the optimum, two rounds within 4.
    for seed in range(5):
        matrix = pool(seed)
        radius = []
        for rounds in ("exact", "two_round"):
            way = KCentre(rounds=rounds)  # type: ignore[arg-type]
            found = cut_rows.candidates("coreset", matrix, budget=25, labelled=[0], sizes=SIZES, diversity=way)
            radius.append(coverage(matrix, [0, *cut_rows.numbers(diversify(found)[0])]).max() ** 0.5)
        assert radius[0] * 0.5 <= radius[1] <= radius[0] * 2


def test_the_potential_of_d_squared_is_near_that_of_the_exact_race() -> None:
    potential: dict[str, list[float]] = {"exact": [], "two_round": []}
    for seed in range(25):
        for rounds, seen in potential.items():
            way = DSquared(rounds=rounds)  # type: ignore[arg-type]
            matrix = pool(0)
            found = cut_rows.candidates("coreset", matrix, budget=25, sizes=SIZES, seed=seed, diversity=way)
            seen.append(float(coverage(matrix, cut_rows.numbers(diversify(found)[0])).sum()))
    assert np.mean(potential["two_round"]) < 1.15 * np.mean(potential["exact"])


def test_a_pick_stands_for_the_rows_that_it_is_the_nearest_to() -> None:
    line = np.array([[0.0], [1], [2], [3], [50], [51], [90], [100]], dtype=np.float32)
    level = Level(Rule(Euclidean()), np.array([[0.0]], dtype=np.float32), 2)
    found = level(Proposed(as_ids(builders.ids(8)), line, np.array([1.0, 1, 1, 1, 2, 3, 1, 1])))
    assert cut_rows.numbers(found.ids_n) == [7, 4]  # at 100, then at 50; rows 0 to 3 are nearest to the labelled 0
    assert found.weight_n.tolist() == [2, 5]


def test_a_row_that_stands_for_many_fires_as_often_as_they_would() -> None:
    """Chi-square: chances are the weight times the squared distance, for the first pick of a race and the next."""
    line, weight = np.array([[1.0], [2], [3], [-1]], dtype=np.float32), np.array([9.0, 1, 2, 4])
    seen = np.zeros((4, 4))
    for seed in range(3000):
        level = Level(Rule(Euclidean(), stream=seeds.key(seed, "race", 0)), np.array([[0.0]], dtype=np.float32), 2)
        first, second = cut_rows.numbers(level.picks(Proposed(as_ids(builders.ids(4)), line, weight)).ids_K)
        seen[first, second] += 1
    apart = (line - line.T) ** 2
    rate = weight * line[:, 0] ** 2
    assert chisquare(seen.sum(axis=1), 3000 * rate / rate.sum()).pvalue > 0.001
    for first in range(4):
        others = np.delete(np.arange(4), first)
        rate = (weight * np.minimum(line[:, 0] ** 2, apart[first]))[others]
        assert chisquare(seen[first][others], seen[first].sum() * rate / rate.sum()).pvalue > 0.001


def test_rows_fewer_than_the_budget_all_go_on() -> None:
    rows = Proposed(as_ids(["b", "a"]), np.zeros((2, 1), dtype=np.float32), np.ones(2))
    assert Level(Rule(Euclidean()), None, 5)(rows) is rows
    assert Proposed.joined([rows, rows]).ids_n.tolist() == ["a", "a", "b", "b"]


def test_every_level_draws_numbers_of_its_own() -> None:
    race = Level(Rule(Euclidean(), stream=5), None, 2)
    streams = [race.at(name).rule.stream for name in ("shard", "block", "root")]
    assert len({5, *streams}) == 4 and streams[0] == race.at("shard").rule.stream
    assert Level(Rule(Euclidean()), None, 2).at("root").rule.stream is None


def test_a_row_that_won_in_its_shard_by_luck_wins_no_more_often_above() -> None:
    # Two shards of ten rows at equal rates let five through each: above, each is as likely as the nine others again.
    x, ids, lucky, races = np.eye(20, dtype=np.float32), as_ids(builders.ids(20)), 0, 150
    for seed in range(races):
        level = Level(Rule(Euclidean(), stream=seed), np.zeros((1, 20), dtype=np.float32), 5)
        shard, root = level.at("shard"), level.at("root")
        sent = [shard(Proposed(ids[half], x[half], np.ones(10))) for half in (slice(10), slice(10, 20))]
        first = shard.picks(Proposed(ids[:10], x[:10], np.ones(10))).ids_K[0]
        lucky += root.picks(Proposed.joined(sent)).ids_K[0] == first
    assert lucky / races < 0.25  # one in ten; with the same numbers on both levels, one in two
