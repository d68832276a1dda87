"""Other libraries' names: each is one of ours, or a sentence about the nearest that is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from alray.cli import app
from alray.errors import StrategyError
from alray.strategies import ALIASES, STRATEGIES, find
from alray.strategies.names import NOT_PROVIDED, hint, plain

# The names that people know (research notes §3.3), row by row.
KNOWN = {
    "random": "RandomSampling",
    "least_confidence": "uncertainty_sampling least_confident LeastConfidence LeastConfidenceSampling confidence "
    "uncertainty uncertainty_least_confidence",
    "margin": "margin_sampling BreakingTies margins MarginConfidence uncertainty_margin",
    "entropy": "EntropySampling PredictionEntropy uncertainty_entropy",
    "bald": "BALDDropout GreedyBALD",
    "power_bald": "PowerBALD",
    "coreset": "CoreSet GreedyCoreset KCenterGreedy KCenterSampling DIVERSITY",
    "kmeans": "KMeansSampling EmbeddingKMeans",
    "diverse": "diverse dbal DiverseMiniBatch",
    "cluster_margin": "cluster_margin",
    "badge": "BadgeSampling Badge",
    "alfa_mix": "alfamix AlphaMix ALFA-Mix alpha_mix_sampling",
    "typiclust": "typiclust TypiClust typicality",
    "prob_cover": "probcover ProbCover",
    "drop_query": "dropquery dropout DropQuery",
}
NOT_HERE = ["batch_bald", "max_herding", "galaxy", "bait", "direct", "base", "seals", "activelab"]


@pytest.mark.parametrize(("name", "alias"), [(name, alias) for name, all in KNOWN.items() for alias in all.split()])
def test_names_that_people_know_are_accepted(name: str, alias: str) -> None:
    assert find(alias).name == name


@pytest.mark.parametrize("alias", ALIASES)
def test_every_alias_builds_its_strategy(alias: str) -> None:
    assert find(alias).name == find({"name": alias}).name == ALIASES[alias]


def test_no_alias_hides_a_strategy_and_each_strategy_has_itself() -> None:
    assert not set(ALIASES) & set(STRATEGIES()) and set(ALIASES.values()) <= set(STRATEGIES())
    assert all(find(name).name == name for name in STRATEGIES())


def test_aliases_that_look_alike_mean_the_same() -> None:
    meant: dict[str, set[str]] = {}
    for alias, name in [*ALIASES.items(), *((name, name) for name in STRATEGIES())]:
        meant.setdefault(plain(alias), set()).add(name)
    assert all(len(names) == 1 for names in meant.values())


# Methods that are not here


@pytest.mark.parametrize("name", [*NOT_PROVIDED, *NOT_HERE])
def test_what_is_not_here_answers_with_the_nearest(name: str) -> None:
    nearest, why = NOT_PROVIDED[name]
    said = f"strategy: `{name}` is not provided; the nearest is `{nearest}`, because {why}"
    with pytest.raises(StrategyError) as refused:
        find(name)
    assert str(refused.value) == said and nearest in STRATEGIES()


def test_what_is_not_here_has_no_name_of_ours() -> None:
    ours = {plain(name) for name in [*STRATEGIES(), *ALIASES]}
    assert not ours & {plain(name) for name in NOT_PROVIDED}


@pytest.mark.parametrize("name", ["BatchBALD", "Batch-Bald", "BAIT", "GLISTER", "EPIG", "VAAL", "QueryByCommittee"])
def test_spelling_does_not_matter(name: str) -> None:
    with pytest.raises(StrategyError, match=rf"^strategy: `{name}` is not provided; the nearest is `"):
        find(name)


def test_a_command_exits_with_2_and_the_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "run.yaml"
    settings: dict[str, Any] = {"run": str(tmp_path / "run"), "pool": {"path": "x"}, "strategy": "bait"}
    config.write_text(yaml.safe_dump(settings))
    with pytest.raises(SystemExit) as ended:
        app.main(["run", str(config)])
    assert ended.value.code == 2
    assert "strategy: `bait` is not provided; the nearest is `badge`, because it" in capsys.readouterr().err


# Slips of the hand


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("core-set", "coreset"),
        ("Badg", "badge"),
        ("typi_clust", "typiclust"),
        ("KMEANS++", "kmeans_pp"),
        ("kcentergredy", "coreset"),
        ("least-confidence", "least_confidence"),
        ("breaking_ties", "margin"),
        ("powerbold", "power_bald"),
    ],
)
def test_a_typo_is_answered_with_the_name_that_was_meant(name: str, meant: str) -> None:
    with pytest.raises(StrategyError, match=rf"unknown name '{name.replace('+', '.')}'.*Did you mean `{meant}`\?"):
        find(name)


def test_what_is_like_nothing_is_answered_with_the_list() -> None:
    assert hint("zzz", STRATEGIES()) == ""
    with pytest.raises(StrategyError, match=r"unknown name 'zzz' \(expected one of active_ft, .*uncertain_gcn\)"):
        find("zzz")
