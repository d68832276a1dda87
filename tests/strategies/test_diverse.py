"""Diverse: what its base scores highest, and of that one row a cluster."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
from sklearn.cluster import KMeans

from alray.config import dump, parse
from alray.errors import ConfigError, StrategyError
from alray.selection import select
from alray.selection.select import LabelsLike
from alray.strategies import find
from alray.strategies.diverse import Diverse
from alray.strategies.diversity import KMeans as ByKMeans
from alray.strategies.shortlist import All

WORDS = ["strategy.base=entropy", "strategy.multiple=4"]


@pytest.fixture
def pool(tmp_path: Path) -> tuple[str, np.ndarray, list[str], LabelsLike]:
    path, matrix, names, labels = builders.features_pool(tmp_path, files=(90, 110), dim=4)
    return path, matrix, names, dict(zip(names[::10], labels[::10], strict=True))


def test_only_rows_that_the_base_nominates_are_picked(pool: tuple[str, Any, list[str], Any]) -> None:
    best = select("margin", pool[0], budget=15, labels=pool[3]).picks
    found = select({"name": "diverse", "base": "margin", "multiple": 3}, pool[0], budget=5, labels=pool[3])
    assert set(found.picks.ids) <= set(best.ids) and len(found.picks) == 5
    assert found.report["candidates"] == 180 and found.report["shortlist"] == 15 and found.report["filled"] == 0
    score_of = dict(zip(best.ids, best.scores, strict=True))
    assert [score_of[i] for i in found.picks.ids] == found.picks.scores.tolist()


def test_rows_that_may_not_be_picked_take_no_place_in_the_shortlist(pool: tuple[str, Any, list[str], Any]) -> None:
    gone = select("margin", pool[0], budget=30, labels=pool[3]).picks.ids.tolist()
    best = select("margin", pool[0], budget=15, labels=pool[3], exclude=gone).picks
    settings = {"name": "diverse", "multiple": 3}
    found = select(settings, pool[0], budget=5, labels=pool[3], exclude=gone)
    assert found.report["shortlist"] == 15 and set(found.picks.ids) <= set(best.ids) and not set(gone) & set(best.ids)


def test_one_pick_a_cluster_of_a_clear_shortlist(tmp_path: Path) -> None:
    """Three far groups of nominated rows: the picks are the rows that scikit-learn's centroids are nearest to."""
    rng = np.random.default_rng(0)
    matrix = np.repeat(np.eye(4)[:3] * 4, 20, axis=0) + rng.normal(scale=0.05, size=(60, 4))
    names = builders.ids(60)
    columns = {"id": names, "features": builders.vectors(matrix.astype(np.float16))}
    path = builders.parquet(tmp_path / "pool.parquet", columns)
    found = select({"name": "diverse", "base": "random", "multiple": 20}, path, budget=3)
    units = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    centres = KMeans(3, n_init=5, random_state=0).fit(units).cluster_centers_
    nearest = {names[int(np.argmin(((units - c) ** 2).sum(1)))] for c in centres}
    assert set(found.picks.ids) == nearest


@pytest.mark.parametrize(("multiple", "budget", "most"), [(10.0, 7, 70), (1.5, 3, 5), (1.0001, 10, 11)])
def test_the_base_nominates_multiple_times_the_budget(multiple: float, budget: int, most: int) -> None:
    built = find({"name": "diverse", "multiple": multiple})
    assert built.shortlist(budget) == All(most=most) and most == math.ceil(multiple * budget)
    assert built.diversity == ByKMeans() and not built.exact


@pytest.mark.parametrize("base", ["margin", "entropy", "random", "isal", "bald", "uncertain_gcn"])
def test_what_is_not_diversity_is_the_bases(base: str) -> None:
    built = find({"name": "diverse", "base": base})
    assert isinstance(built, Diverse) and built.base == find(base) and built.reference() == find(base).reference()
    assert built.wants == find(base).wants and built.sample(9) == find(base).sample(9)


# settings


def test_margin_is_the_base_unless_another_is_named() -> None:
    assert find("diverse") == find({"name": "diverse", "base": {"name": "margin"}}) == find("DiverseMiniBatch")


def test_a_base_is_found_by_its_alias_and_survives_a_stored_config() -> None:
    built = find({"name": "diverse", "base": {"name": "BreakingTies"}})
    assert "name: margin" in dump(built) and find({"name": "diverse", "base": "least_confident"}) != built


def test_words_of_the_command_line_reach_the_base(tmp_path: Path) -> None:
    from alray.cli.select import SelectSettings

    given = {"pool": {"path": "x"}, "strategy": {"name": "diverse"}, "budget": 3}
    assert parse(given, SelectSettings, overrides=WORDS).strategy == Diverse(base=find("entropy"), multiple=4)
    with pytest.raises(ConfigError, match=r"strategy.base.foo: unknown key"):
        parse(given, SelectSettings, overrides=[*WORDS, "strategy.base.foo=1"])


@pytest.mark.parametrize("base", ["alfa_mix", "diverse", {"name": "diverse", "base": "entropy"}])
def test_a_base_that_is_diverse_already_is_refused(base: Any) -> None:
    with pytest.raises(StrategyError, match=r"strategy.base: `\w+` is diverse already.*takes the best of a score"):
        find({"name": "diverse", "base": base})


@pytest.mark.parametrize("base", ["prob_cover", "core_gcn"])
def test_a_base_that_names_its_picks_and_no_more_is_refused(base: str) -> None:
    with pytest.raises(StrategyError, match=rf"strategy.base: `{base}` names the rows to pick.*nothing to thin out"):
        find({"name": "diverse", "base": base})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"base": "margn"}, r"strategy.base: unknown name 'margn' .*Did you mean `margin`\?"),
        ({"base": {"name": "margin", "x": 1}}, r"strategy.base.x: unknown key"),
        ({"multiple": 1}, r"strategy.multiple: is 1 \(expected a finite number, above 1"),
        ({"beta": 3}, r"strategy.beta: unknown key"),
    ],
)
def test_mistakes_inside_are_named_with_their_path(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        find({"name": "diverse", **fields})


def test_labels_are_asked_for_where_the_base_needs_them(pool: tuple[str, Any, list[str], Any]) -> None:
    with pytest.raises(StrategyError, match="`diverse` scores rows by a head's predictions"):
        select("diverse", pool[0], budget=5)
    assert len(select({"name": "diverse", "base": "random"}, pool[0], budget=5).picks) == 5


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ({"multiple": 3}, r"base: has `multiple` but no `name`.*`margin`.*`multiple` is a field of `diverse` itself"),
        ({"dropout": 0.3}, r"base: has `dropout` but no `name`, and the base is `margin`.*such as `name: bald`"),
    ],
)
def test_fields_of_a_base_without_a_name_are_said_to_be_of_the_default(base: dict[str, float], said: str) -> None:
    with pytest.raises(StrategyError, match=said):
        find({"name": "diverse", "base": base})
