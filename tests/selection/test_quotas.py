"""Quotas: exact for scores against one walk down the ranking, kept by diverse strategies, refused in sentences."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pyarrow as pa
import pytest

from alray.config import parse
from alray.errors import ConfigError, PoolError, StrategyError
from alray.models.head import Head
from alray.runtime import Runtime
from alray.selection import select
from alray.selection.quotas import check_columns, column_values
from alray.selection.settings import Quota, SelectionConfig

ROWS = 240
CLASSES = [f"class-{c}" for c in range(4)]


@dataclass
class World:
    """A pool with a `source` that goes by the score, a `video` of three rows each, and a head of known scores."""

    path: str
    names: list[str]
    columns: dict[str, list[Any]]
    head: Head
    score: dict[str, float]


@pytest.fixture
def world(tmp_path: Path) -> World:
    rng = np.random.default_rng(0)
    matrix_ND = rng.normal(size=(ROWS, 6)).astype(np.float16)
    weight_CD = rng.normal(size=(4, 6)).astype(np.float32)
    logits_NC = matrix_ND.astype(np.float64) @ weight_CD.T.astype(np.float64)
    names = builders.ids(ROWS)
    columns: dict[str, list[Any]] = {
        "source": [["web", "phone", "drone"][min(int(abs(x) * 2), 2)] for x in matrix_ND[:, 0]],
        "video": [f"v{n // 3}" for n in range(ROWS)],
        "camera": [None if n % 7 == 0 else n % 3 for n in range(ROWS)],
    }
    for number, part in enumerate((slice(0, 100), slice(100, 101), slice(101, ROWS))):
        cut = {name: column[part] for name, column in columns.items()}
        data = {"id": names[part], "features": builders.vectors(matrix_ND[part]), **cut}
        builders.parquet(tmp_path / f"pool-{number}.parquet", data, 32)
    head = Head.linear(weight_CD, np.zeros(4, dtype=np.float32), CLASSES)
    columns["predicted_class"] = [CLASSES[c] for c in logits_NC.argmax(axis=1)]
    found = select("margin", str(tmp_path / "pool-*.parquet"), budget=ROWS, head=head).picks
    score = dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
    return World(str(tmp_path / "pool-*.parquet"), names, columns, head, score)


def walk(world: World, quotas: Mapping[str, Any], budget: int, closed: set[str]) -> list[str]:
    """Return the ids of one walk down the ranking for minimums, and one for the rest: the rule, in plain words."""
    limits = {column: Quota(**{"at_most": {}, "at_least": {}, **given}) for column, given in quotas.items()}
    value = {c: dict(zip(world.names, map(text, world.columns[c]), strict=True)) for c in limits}
    ranking = sorted((i for i in world.names if i not in closed), key=lambda i: (-world.score[i], i))
    had: dict[str, Counter[str]] = {column: Counter() for column in limits}
    picked: list[str] = []
    for only_helpful in (True, False):
        for i in ranking:
            values = [(column, value[column][i]) for column in limits]
            helps = any(had[c][v] < limits[c].least(v) for c, v in values)
            fits = all(limits[c].most(v) is None or had[c][v] < limits[c].most(v) for c, v in values)  # type: ignore[operator]
            if len(picked) < budget and i not in picked and fits and (helps or not only_helpful):
                picked.append(i)
                for c, v in values:
                    had[c][v] += 1
    return sorted(picked, key=lambda i: (-world.score[i], i))


def text(cell: Any) -> str:
    return "null" if cell is None else str(cell)


CASES: dict[str, dict[str, Any]] = {
    "at most": {"source": {"at_most": {"web": 3}}},
    "at most, all alike": {"source": {"at_most": 9}},
    "at least": {"source": {"at_least": {"drone": 12}}},
    "at least, all alike": {"source": {"at_least": 9}},
    "both": {"source": {"at_most": {"*": 11, "web": 20}, "at_least": {"phone": 10}}},
    "one a video": {"video": {"at_most": 1}},
    "none of the others": {"source": {"at_most": {"*": 0, "web": 50}}},
    "whole numbers and nothing": {"camera": {"at_most": {"null": 2, "1": 4}, "at_least": {"2": 15}}},
    "predicted": {"predicted_class": {"at_most": 8, "at_least": {"class-3": 8}}},
    "two columns": {"source": {"at_most": 12, "at_least": {"drone": 9}}, "predicted_class": {"at_most": 10}},
    "three": {
        "source": {"at_most": {"web": 11}, "at_least": {"phone": 7}},
        "predicted_class": {"at_least": {"class-2": 9}, "at_most": {"class-0": 6}},
        "video": {"at_most": 2},
    },
}


def least(case: str) -> int:
    """Return how many rows the minimums of a case ask for: a budget below is refused."""
    asked = [q.get("at_least", {}) for q in CASES[case].values()]
    return sum(sum(minimums.values()) if isinstance(minimums, dict) else 3 * minimums for minimums in asked)


@pytest.mark.parametrize(("case", "budget"), [(c, b) for c in CASES for b in (1, 30, 70) if least(c) <= b])
def test_scores_under_quotas_are_one_walk_down_the_ranking(case: str, budget: int, world: World) -> None:
    gone = world.names[3::9]
    quotas = CASES[case]
    found = select("margin", world.path, budget=budget, head=world.head, exclude=gone, quotas=quotas)
    assert found.picks.ids.tolist() == walk(world, quotas, budget, set(gone))
    assert not found.report["filled"] and found.report["passes"] <= 12
    for column, counts in found.report["quotas"].items():
        value = dict(zip(world.names, map(text, world.columns[column]), strict=True))
        assert counts == {v: n for v, n in counts.items() if n == sum(value[i] == v for i in found.picks.ids)}


def test_a_minimum_for_every_value_is_checked_when_they_are_known(world: World) -> None:
    quotas = {"source": {"at_least": {"*": 9, "web": 3}}}
    with pytest.raises(StrategyError, match=r"at least 21 rows \(9 of each of 2 values\), and the budget is 20"):
        select("margin", world.path, budget=20, head=world.head, quotas=quotas)
    assert len(select("margin", world.path, budget=21, head=world.head, quotas=quotas).picks) == 21


def test_what_is_available_is_counted_before_a_minimum_closes_anything(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """No row fills three minimums at once, and a first look that asks for such rows finds none."""
    quotas = {"source": {"at_least": {"web": 9}}, "camera": {"at_least": {"1": 9}}, "video": {"at_least": {"v0": 3}}}
    with caplog.at_level(logging.WARNING, logger="alray"):
        found = select("margin", world.path, budget=10, head=world.head, quotas=quotas)
    assert found.report["available"] == ROWS and "left to pick from" not in caplog.text
    full = {"source": {"at_most": 2, "at_least": {"web": 2}}, "video": {"at_least": {"v0": 1}}}
    with caplog.at_level(logging.WARNING, logger="alray"):
        select("margin", world.path, budget=10, head=world.head, quotas=full)
    assert "6 rows are picked where 10 could be: the quotas are full" in caplog.text


def test_no_quota_changes_nothing(world: World) -> None:
    free = select("margin", world.path, budget=30, head=world.head).picks
    loose = select("margin", world.path, budget=30, head=world.head, quotas={"source": {"at_most": 200}}).picks
    assert loose.digest() == free.digest() and (loose.scores == free.scores).all()


@pytest.mark.parametrize("strategy", ["diverse", "alfa_mix"])
def test_diverse_strategies_keep_to_them(strategy: str, world: World) -> None:
    labels = {i: world.columns["predicted_class"][n] for n, i in enumerate(world.names) if n % 12 == 0}
    quotas = {"source": {"at_most": {"web": 6}, "at_least": {"drone": 9}}, "video": {"at_most": 1}}
    found = select(strategy, world.path, budget=24, labels=labels, head=world.head, quotas=quotas)
    value = {c: dict(zip(world.names, world.columns[c], strict=True)) for c in quotas}
    sources = Counter(value["source"][i] for i in found.picks.ids)
    assert len(set(found.picks.ids)) == 24 and not set(labels) & set(found.picks.ids)
    assert sources["web"] <= 6 and sources["drone"] >= 9
    assert max(Counter(value["video"][i] for i in found.picks.ids).values()) == 1


@pytest.mark.parametrize("name", ["coreset", "kmeans_pp"])
def test_rows_that_fill_a_minimum_are_kept_apart_from(name: str, tmp_path: Path) -> None:
    """The one row of `b` has to be there; twenty rows of `a` lie at its side, and one lies far off."""
    matrix_ND = np.array([[1.0, 0]] + [[1.0, 0.001 * n] for n in range(1, 21)] + [[0, 1.0]], dtype=np.float16)
    names = builders.ids(22)
    columns = {"id": names, "features": builders.vectors(matrix_ND), "source": ["b"] + ["a"] * 21}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    for seed in range(3):
        found = select(name, path, budget=2, seed=seed, quotas={"source": {"at_least": {"b": 1}}})
        assert set(found.picks.ids) == {names[0], names[21]}


def test_what_is_filled_keeps_to_them(world: World) -> None:
    """ALFA-Mix has few candidates at so small a cap; the rest is drawn, and not from the web."""
    labels = {i: world.columns["predicted_class"][n] for n, i in enumerate(world.names) if n % 6 == 0}
    strategy = {"name": "alfa_mix", "cap_step": 0.005, "cap_max": 0.005}
    more: dict[str, Any] = {"labels": labels, "head": world.head, "quotas": {"source": {"at_most": {"web": 0}}}}
    found = select(strategy, world.path, budget=60, **more)
    source = dict(zip(world.names, world.columns["source"], strict=True))
    assert found.picks.reasons.count("fill") == found.report["filled"] > 0
    assert "web" not in {source[i] for i in found.picks.ids} and len(found.picks) == 60


def test_the_same_on_any_cut_and_order_of_the_pool(world: World) -> None:
    from alray.pool import Pool

    whole = select("margin", world.path, budget=40, head=world.head, quotas=CASES["three"]).picks
    for rows in (7, 64):
        pool = Pool.open(world.path, rows_per_shard=rows)
        assert (
            select("margin", pool, budget=40, head=world.head, quotas=CASES["three"]).picks.ids.tolist()
            == whole.ids.tolist()
        )


def test_rows_that_fill_a_minimum_are_asked_for_by_their_values(tmp_path: Path) -> None:
    """Two rows in a thousand, wherever they rank, take one pass; and the rest another."""
    source = ["b" if n in (400, 900) else "a" for n in range(1000)]
    columns = {"id": builders.ids(1000), "features": builders.vectors(np.ones((1000, 2), np.float16)), "source": source}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    for seed in range(3):
        found = select("random", path, budget=10, seed=seed, quotas={"source": {"at_least": {"b": 2}}})
        assert {"row-00400", "row-00900"} <= set(found.picks.ids) and found.report["passes"] == 2


# What cannot be met


def test_a_minimum_that_the_pool_cannot_meet_is_said_with_numbers(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    there = Counter(world.columns["source"])["drone"]
    with caplog.at_level(logging.WARNING):
        found = select(
            "margin", world.path, budget=200, head=world.head, quotas={"source": {"at_least": {"drone": there + 5}}}
        )
    assert len(found.picks) == 200 and found.report["quotas"]["source"]["drone"] == there
    assert f"`source` 'drone' has {there} picks where at least {there + 5} were asked for" in caplog.text


def test_maximums_that_leave_fewer_rows_than_the_budget_are_said(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = select("margin", world.path, budget=50, head=world.head, quotas={"source": {"at_most": 4}})
    assert len(found.picks) == 12
    assert "12 rows are picked where 50 could be: the quotas are full (source: drone, phone, web)." in caplog.text


@pytest.mark.parametrize(
    ("quotas", "error", "said"),
    [
        ({"sauce": {"at_most": 1}}, PoolError, r"has no column `sauce`.*Did you mean `source`\?"),
        ({"features": {"at_most": 1}}, PoolError, r"`selection.quotas.features`: the column is .*strings"),
        ({"source": {"at_most": {"wep": 1}}}, StrategyError, r"quotas.source` names 'wep', .*Did you mean `web`\?"),
        ({"predicted_class": {"at_least": {"cat": 1}}}, StrategyError, r"names 'cat'"),
        ({"source": {"at_least": {"web": 11}}}, StrategyError, r"at least 11 rows, and the budget is 10"),
        ({"source": {"at_least": 5, "at_most": 3}}, ConfigError, r"quotas.source: at least 5 and at most 3 of '\*'"),
        ({"source": {"at_least": {"web": 5}, "at_most": 3}}, ConfigError, r"at least 5 and at most 3 of 'web'"),
        ({"source": {"at_mots": 3}}, ConfigError, r"quotas.source.at_mots: unknown key.*`at_most`"),
        ({"source": {"at_most": -1}}, ConfigError, r"quotas.source.at_most.*: is -1 .*0 or more"),
        ({"source": {"at_most": {"web": "x"}}}, ConfigError, r"quotas.source.at_most.web: is 'x' .*whole number"),
    ],
)
def test_mistakes_are_sentences(quotas: Any, error: type[Exception], said: str, world: World) -> None:
    with pytest.raises(error, match=said):
        select("margin", world.path, budget=10, head=world.head, quotas=quotas)


def test_predictions_need_a_head_and_labels_give_one(world: World) -> None:
    quotas = {"predicted_class": {"at_most": 6}}
    with pytest.raises(StrategyError, match=r"predicted_class` counts a head's predictions.*Give labels or a head"):
        select("random", world.path, budget=10, quotas=quotas)
    labels = {i: world.columns["predicted_class"][n] for n, i in enumerate(world.names) if n % 6 == 0}
    found = select("random", world.path, budget=20, labels=labels, quotas=quotas)
    assert len(found.picks) == 20 and max(found.report["quotas"]["predicted_class"].values()) <= 6


def test_columns_can_be_checked_before_anything_is_paid_for(world: World) -> None:
    from alray.pool import Pool

    shards = Pool.open(world.path, rows_per_shard=40).shards
    video = Quota(at_most={"v79": 1})  # the last rows of the pool alone have it
    check_columns(shards, {"source": Quota(), "predicted_class": Quota(at_most={"x": 1}), "video": video})
    for column in ("sauce", "features"):
        with pytest.raises(PoolError, match=column):
            check_columns(shards, {column: Quota()})
    with pytest.raises(StrategyError, match=r"quotas.source` names 'wep', .*Did you mean `web`\?"):
        check_columns(shards, {"source": Quota(at_least={"web": 1, "wep": 1})})


def test_a_class_that_no_label_has_yet_has_no_rows(world: World, caplog: pytest.LogCaptureFixture) -> None:
    quotas = {"predicted_class": {"at_most": {"cat": 5, "class-0": 2}, "at_least": {"cat": 5}}}
    labels = {i: world.columns["predicted_class"][n] for n, i in enumerate(world.names) if n % 6 == 0}
    with caplog.at_level(logging.WARNING):
        found = select("margin", world.path, budget=20, labels=labels, quotas=quotas)
    counts = found.report["quotas"]["predicted_class"]
    assert len(found.picks) == 20 and counts["cat"] == 0 and counts["class-0"] <= 2
    assert "`selection.quotas.predicted_class` names 'cat': no class of the head, which knows 'class-0'" in caplog.text
    with pytest.raises(StrategyError, match=r"names 'cat', which is none of the 4 classes"):
        select("margin", world.path, budget=20, labels=labels, quotas=quotas, classes=CLASSES)


def test_a_folder_of_pictures_has_no_columns() -> None:
    from alray.pool.shard import Shard

    with pytest.raises(PoolError, match="is a folder of pictures and has no column `source`"):
        Shard(0, "pictures", 0, 3, "folder", "").column("source")


# Settings and columns


def test_words_of_the_command_line(tmp_path: Path) -> None:
    words = ["quotas.source.at_most=5", "quotas.source.at_least.web=2", "min_distance=0.1"]
    config = parse({}, SelectionConfig, overrides=words)
    assert config.quotas["source"] == Quota(at_most={"*": 5}, at_least={"web": 2}) and config.min_distance == 0.1
    assert config.quotas["source"].most("web") == 5 and config.quotas["source"].least("phone") == 0


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (pa.array(["a", None, "b", "a"]), ["a", "null", "b", "a"]),
        (pa.array([3, 3, None], pa.int16()), ["3", "3", "null"]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
        (pa.array([], pa.string()), []),
    ],
)
def test_columns_of_names(cells: pa.Array, names: list[str]) -> None:
    found = column_values(cells, "c")
    assert [found.names[n] for n in found.number_N] == names
    assert found.among(frozenset({"x", "3", "true", "a"})).tolist() == [n in {"x", "3", "true", "a"} for n in names]


@pytest.mark.ray
def test_on_ray_as_here(world: World, ray_runtime: Runtime) -> None:
    more: dict[str, Any] = {"budget": 40, "head": world.head, "quotas": CASES["three"], "min_distance": 0.02}
    here = select("margin", world.path, **more)
    there = select("margin", world.path, runtime=ray_runtime, **more)
    assert there.picks.digest() == here.picks.digest() and there.report["quotas"] == here.report["quotas"]
    with pytest.raises(PoolError, match="has no column `sauce`"):
        select("margin", world.path, runtime=ray_runtime, **{**more, "quotas": {"sauce": {"at_most": 1}}})
