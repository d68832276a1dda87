"""Near-duplicates: one walk down the ranking that skips what lies close to anything bought, whatever the strategy."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch

from alray.errors import ConfigError
from alray.models.head import Head
from alray.ops.kmeans import unit_rows
from alray.selection import select, under_rules
from alray.selection.near_duplicates import Near

COPIES, KINDS, DIM = 5, 40, 8


@dataclass
class World:
    """40 directions in space, each five times: as it is, longer, and three times with jitter; shuffled."""

    path: str
    names: list[str]
    kind: dict[str, int]
    unit: dict[str, np.ndarray]
    head: Head
    labels: dict[str, str]


@pytest.fixture
def world(tmp_path: Path) -> World:
    rng = np.random.default_rng(4)
    kinds_ND = rng.normal(size=(KINDS, DIM))
    copies_ND = np.concatenate([kinds_ND, 3 * kinds_ND, *(kinds_ND + rng.normal(scale=0.01, size=(3, KINDS, DIM)))])
    order = rng.permutation(len(copies_ND))
    matrix_ND, kind_N = copies_ND[order].astype(np.float16), np.tile(np.arange(KINDS), COPIES)[order]
    names = builders.ids(len(matrix_ND))
    for number, part in enumerate((slice(0, 90), slice(90, 200))):
        columns = {"id": names[part], "features": builders.vectors(matrix_ND[part])}
        builders.parquet(tmp_path / f"pool-{number}.parquet", columns, 16)
    head = Head.linear(rng.normal(size=(3, DIM)).astype(np.float32), np.zeros(3, dtype=np.float32), ["a", "b", "c"])
    exact_ND = matrix_ND.astype(np.float64) / np.linalg.norm(matrix_ND.astype(np.float64), axis=1, keepdims=True)
    exact_ND = exact_ND.astype(np.float16).astype(np.float64)  # the distance is that of unit rows in fp16
    labels = {names[n]: "abc"[n % 3] for n in range(0, 30, 5)}
    kind = dict(zip(names, kind_N.tolist(), strict=True))
    unit = dict(zip(names, exact_ND, strict=True))
    return World(str(tmp_path / "pool-*.parquet"), names, kind, unit, head, labels)


def walk(world: World, ranking: list[str], bought: list[str], budget: int, least: float) -> list[str]:
    """Return the first `budget` of the ranking that are not near to anything bought before them."""
    picked: list[str] = []
    for i in ranking:
        if len(picked) < budget and all(
            ((world.unit[i] - world.unit[j]) ** 2).sum() / 2 >= least for j in bought + picked
        ):
            picked.append(i)
    return picked


def closest(world: World, ids: list[str]) -> float:
    """Return the smallest cosine distance between two of the rows, or one of them and a label."""
    rows_ND, bought_MD = (np.array([world.unit[i] for i in some]) for some in (ids, [*world.labels, *ids]))
    distance_NM = 1 - rows_ND @ bought_MD.T
    np.fill_diagonal(distance_NM[:, len(world.labels) :], np.inf)
    return float(distance_NM.min())


@pytest.mark.parametrize("least", [1e-4, 0.01, 0.1, 0.4])
@pytest.mark.parametrize("budget", [1, 10, 25])
@pytest.mark.parametrize("name", ["margin", "random"])
def test_scores_are_one_walk_down_the_ranking(name: str, budget: int, least: float, world: World) -> None:
    more: dict[str, Any] = {"labels": world.labels, "head": world.head, "seed": 3}
    ranking = select(name, world.path, budget=len(world.names), **more).picks.ids.tolist()
    found = select(name, world.path, budget=budget, min_distance=least, **more)
    assert found.picks.ids.tolist() == walk(world, ranking, list(world.labels), budget, least)
    assert set(found.picks.reasons) <= {"strategy"} and found.report["near_duplicates"] >= 0


def test_blocks_leave_no_trace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same picks when rows are compared three at a time, and offered no more than seven at once."""
    more: dict[str, Any] = {"labels": world.labels, "head": world.head, "min_distance": 0.01}
    whole = select("margin", world.path, budget=20, **more)
    monkeypatch.setattr("alray.selection.near_duplicates.TOGETHER", 3)
    monkeypatch.setattr(under_rules, "MOST", 7)
    found = select("margin", world.path, budget=20, **more)
    assert found.picks.digest() == whole.picks.digest() and found.report["near_duplicates"] > 0


@pytest.mark.parametrize("name", ["diverse", "alfa_mix", "random", "entropy"])
def test_no_two_picks_and_no_label_are_alike(name: str, world: World) -> None:
    found = select(name, world.path, budget=20, labels=world.labels, head=world.head, min_distance=0.01)
    assert len(found.picks) == 20 and closest(world, found.picks.ids.tolist()) >= 0.01
    kinds = [world.kind[i] for i in found.picks.ids]
    assert len(set(kinds)) == 20 and not set(kinds) & {world.kind[i] for i in world.labels}


def test_without_it_copies_are_bought(world: World) -> None:
    found = select("margin", world.path, budget=20, labels=world.labels, head=world.head)
    assert closest(world, found.picks.ids.tolist()) < 1e-3 and "near_duplicates" not in found.report


@pytest.mark.parametrize("name", ["margin", "diverse", "alfa_mix"])
def test_a_pool_of_copies_gives_one_of_each_kind_and_says_so(
    name: str, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = sorted(set(range(KINDS)) - {world.kind[i] for i in world.labels})
    left = len(kinds)
    with caplog.at_level(logging.WARNING):
        found = select(name, world.path, budget=100, labels=world.labels, head=world.head, min_distance=0.01)
    assert sorted(world.kind[i] for i in found.picks.ids) == sorted(
        set(range(KINDS)) - {world.kind[i] for i in world.labels}
    )
    assert f"{left} rows are picked where 100 could be: " in caplog.text
    assert f"{found.report['near_duplicates']} rows are closer than 0.01 to one that is bought" in caplog.text
    assert found.report["near_duplicates"] == len(world.names) - len(world.labels) - left


def test_a_pool_of_copies_takes_few_passes(tmp_path: Path) -> None:
    """2,000 rows of 20 kinds: not one pass a pick, and not the whole pool at once."""
    rng = np.random.default_rng(0)
    matrix_ND = np.repeat(rng.normal(size=(20, 4)), 100, axis=0)[rng.permutation(2000)].astype(np.float16)
    columns = {"id": builders.ids(2000), "features": builders.vectors(matrix_ND)}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    found = select("random", path, budget=20, min_distance=1e-3)
    assert len(found.picks) == 20 and found.report["passes"] <= 8


def test_excluded_rows_count_as_bought(world: World) -> None:
    gone = world.names[40:60]
    found = select("random", world.path, budget=10, exclude=gone, min_distance=0.01)
    assert not {world.kind[i] for i in gone} & {world.kind[i] for i in found.picks.ids}


def test_zero_rows_are_copies_of_each_other_alone(tmp_path: Path) -> None:
    matrix_ND = np.concatenate([np.zeros((10, 4)), np.eye(4)]).astype(np.float16)
    columns = {"id": builders.ids(14), "features": builders.vectors(matrix_ND)}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    assert len(select("random", path, budget=14, min_distance=0.3).picks) == 5


def test_with_quotas_both_hold_and_scores_are_still_one_walk(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    matrix_ND = np.repeat(rng.normal(size=(30, 6)), 4, axis=0).astype(np.float16)
    names, order = builders.ids(120), rng.permutation(120)
    source = ["ab"[n % 2] for n in range(120)]
    columns = {"id": names, "features": builders.vectors(matrix_ND[order]), "source": source}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    ranking = select("random", path, budget=120).picks.ids.tolist()
    quotas = {"source": {"at_most": {"a": 12}, "at_least": {"b": 9}}}
    found = select("random", path, budget=25, min_distance=0.01, quotas=quotas)
    picked: list[int] = []
    for phase in ("b", "ab"):
        for row in (names.index(i) for i in ranking):
            of_a = sum(source[p] == "a" for p in picked)
            full = len(picked) == 25 or (phase == "b" and len(picked) == 9) or (source[row] == "a" and of_a == 12)
            if source[row] in phase and not full and order[row] // 4 not in {order[p] // 4 for p in picked}:
                picked.append(row)
    assert set(found.picks.ids) == {names[p] for p in picked}


@pytest.mark.parametrize("least", [-0.1, 1.0, "near"])
def test_what_is_no_distance_is_refused(least: Any, world: World) -> None:
    with pytest.raises(ConfigError, match=r"min_distance: is .* \(expected a finite number, 0 or more, below 1"):
        select("random", world.path, budget=3, min_distance=least)


# The distance


@pytest.mark.parametrize("dim", [1, 3, 512])
def test_the_distance_is_the_cosine_distance(dim: int) -> None:
    rng = np.random.default_rng(dim)
    base_ND = rng.normal(size=(8, dim))
    rows_ND = np.concatenate([base_ND, base_ND + rng.normal(scale=0.2, size=base_ND.shape)]).astype(np.float32)
    unit_ND = rows_ND.astype(np.float64) / np.linalg.norm(rows_ND.astype(np.float64), axis=1, keepdims=True)
    cosine_NN = 1 - unit_ND @ unit_ND.T
    units = unit_rows(torch.from_numpy(rows_ND))
    for least in (0.005, 0.02, 0.3):
        sure = np.abs(cosine_NN - least) > 1e-4 * least + 1e-7
        near_NN = np.array(
            [~np.array([Near(least, units[j : j + 1]).block(units).buy(i) for i in range(16)]) for j in range(16)]
        )
        assert (near_NN == (cosine_NN < least))[sure].all() if dim > 1 else near_NN.any()


def test_a_row_bought_in_a_block_closes_the_block_and_the_next() -> None:
    units = unit_rows(torch.tensor([[1.0, 0], [1, 0.01], [0, 1], [0.01, 1]]))
    near = Near(0.01, units[:0])
    first = near.block(units)
    assert [first.buy(n) for n in range(4)] == [True, False, True, False]
    second = near.block(units[[1, 3]])
    assert not second.buy(0) and not second.buy(1)
