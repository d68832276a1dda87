"""The grid: every combination once, in an order of its own, under names that say what they are and never change."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from alray.errors import ConfigError
from alray.sweeps.grid import NAME, expand, text
from alray.sweeps.settings import Sweep

Made = Callable[..., Sweep]

WAYS = (
    "sweep.grid={way: {plain: {head.l2: 2.0}, mixed: {strategy.name: alfa_mix, budget.control: 0.2}}, "
    "head.tol: [0.0001, 0.00001]}"
)


def test_every_combination_with_every_seed(sweep: Made) -> None:
    trials = expand(sweep("sweep.grid={strategy.name: [random, margin, entropy], budget.per_round: [3, 6]}"))
    found = [(t.seed, t.settings.strategy.name, t.settings.budget.per_round) for t in trials]
    strategies = ("random", "margin", "entropy")
    assert found == [(seed, name, count) for seed in (0, 1) for name in strategies for count in (3, 6)]
    assert [t.settings.seed for t in trials] == [seed for seed, _, _ in found]
    assert len({t.name for t in trials}) == len({t.settings.run for t in trials}) == 12
    assert trials[0].varied == {"strategy.name": "random", "budget.per_round": "3"}


def test_a_name_is_readable_and_ends_with_the_hash_of_its_settings(sweep: Made) -> None:
    words = ["sweep.grid={strategy.name: [margin], budget.per_round: [3]}", "sweep.seeds=[5]"]
    [trial] = expand(sweep(*words))
    assert re.fullmatch(r"margin-per_round=3-seed=5-[0-9a-f]{8}", trial.name)
    assert trial.configuration == "margin, per_round=3"
    assert trial.settings.run == f"{sweep().home}/runs/{trial.name}"
    assert [t.name for t in expand(sweep(*words))] == [trial.name]
    assert [t.name for t in expand(sweep(*words, "campaign.runtime.workers=7"))] == [trial.name]  # how, and not what
    [other] = expand(sweep(*words, "campaign.head.l2=3"))
    assert other.name[:-8] == trial.name[:-8] and other.name != trial.name


def test_a_name_may_stand_for_several_settings(sweep: Made) -> None:
    trials = expand(sweep(WAYS, "sweep.seeds=1"))
    called = [f"{way}, tol={tol}" for way in ("plain", "mixed") for tol in (0.0001, 0.00001)]
    assert [t.configuration for t in trials] == called
    assert [(t.settings.strategy.name, t.settings.head.l2, t.settings.head.tol) for t in trials] == [
        ("margin", 2.0, 1e-4),
        ("margin", 2.0, 1e-5),
        ("alfa_mix", 1.0, 1e-4),
        ("alfa_mix", 1.0, 1e-5),
    ]
    assert trials[2].settings.budget.control == 0.2 and trials[2].varied["way"] == "mixed"


def test_keys_that_end_alike_are_told_apart(sweep: Made) -> None:
    grid = "sweep.grid={budget.total: [21, 30], head.max_iter: [90], stopping.rounds: [3], forecast.rounds: [[1]]}"
    first = expand(sweep(grid))[0].configuration
    assert first == "total=21, max_iter=90, stopping.rounds=3, forecast.rounds=1"


def test_without_a_grid_there_are_only_seeds(sweep: Made) -> None:
    trials = expand(sweep("sweep.grid={}", "sweep.seeds=3"))
    assert [t.name[:-9] for t in trials] == ["seed=0", "seed=1", "seed=2"]
    assert {t.configuration for t in trials} == {"all"}


def test_all_trials_share_one_place_for_features(sweep: Made) -> None:
    assert {t.settings.features.path for t in expand(sweep())} == {f"{sweep().home}/features"}
    assert {t.settings.features.path for t in expand(sweep("campaign.features.path=/mine"))} == {"/mine"}


@pytest.mark.parametrize("value", ["a/../../b", "a\nb", "=1+1", "x" * 300, "ünï", ".."])
def test_no_value_makes_a_dangerous_name(sweep: Made, value: str) -> None:
    told = sweep()
    told.config.grid.clear()
    told.config.grid["way"] = {value: {"head.l2": 2.0}}
    name = expand(told)[0].name
    assert re.fullmatch(r"[A-Za-z0-9_=+][A-Za-z0-9._=+-]*", name) and len(name) <= NAME + 9


def test_long_grids_have_short_names(sweep: Made) -> None:
    told = sweep()
    told.config.grid.clear()
    for n in range(8):
        told.config.grid[f"way{n}"] = {"x" * 39: {"head.l2": 2.0}}
    assert {len(t.name) for t in expand(told)} == {NAME + 9}


def test_one_campaign_twice_is_refused(sweep: Made) -> None:
    with pytest.raises(ConfigError, match=r"trials l2=1-seed=0-(\w+) and l2=1\.0-seed=0-\1 are one campaign: `sw"):
        expand(sweep("sweep.grid={head.l2: [1, 1.0]}"))


def test_a_mistake_in_a_trial_names_the_trial(sweep: Made) -> None:
    with pytest.raises(ConfigError) as refused:
        expand(sweep("sweep.grid={strategy.name: [margin, marign]}"))
    assert "sweep.yaml, trial marign-seed=0 has 1 mistake:" in str(refused.value)
    assert "marign" in str(refused.value) and "`margin`" in str(refused.value)
    with pytest.raises(ConfigError, match=r"budgte: .*Did you mean `budget`\?"):
        expand(sweep("sweep.grid={budgte.total: [21]}"))


def test_what_cannot_be_compared_is_refused(sweep: Made) -> None:
    with pytest.raises(ConfigError, match=r"`campaign.test` is not set: without test rows .* `test: \{path, labels\}`"):
        expand(sweep("campaign.test=null"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, "true"),
        (None, "none"),
        (0.001, "0.001"),
        ([20, 40], "20 40"),
        ({"name": "isal", "top": 3}, "isal top=3"),
        ({"at": 200}, "at=200"),
        ("a\n b", "a b"),
    ],
)
def test_a_value_as_a_person_says_it(value: object, said: str) -> None:
    assert text(value) == said
