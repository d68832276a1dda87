"""The grid: campaigns embed the pool for themselves, start from one pre-trained backbone, and are run once."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest
import yaml
from benchmarks import regimes
from benchmarks.regimes import Campaign

import alray
from alray import reports

CONFIG = {
    "run": "none",
    "pool": {"path": "none"},
    "strategy": "margin",
    "labeller": {"name": "oracle", "path": "none"},
    "features": {"backbone": "small_backbone:make", "image_size": 8},
    "pretrain": {"epochs": 1, "batch": 32, "dim": 8, "hidden": 4},
    "training": {"when": "every", "recipe": {"name": "fine_tune", "epochs": 1}},
    "budget": {"initial": 15, "per_round": 6, "total": 21},
}


def told(folder: Path, *words: str) -> argparse.Namespace:
    """Return the options of a grid of standard and svpp with margin, one seed, on 60 digits."""
    (folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    ways = ["standard regime=standard", "svpp regime=svpp"]
    return argparse.Namespace(
        config=str(folder / "config.yaml"), words=list(words), ways=ways, strategies="margin", random_ways=None,
        seeds=1, jobs=1, threads=1, nice=0, runtime="local",
    )  # fmt: skip


def planned(folder: Path, args: argparse.Namespace) -> tuple[list[Campaign], dict[str, object]]:
    data = regimes.write_data(folder / "data", None, 60, 20)
    words = regimes.common(args, data)
    prepared = regimes.prepare(folder / "shared", args.config, words)
    return list(regimes.grid(args, folder, [*words, *prepared["words"]])), prepared


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Campaign]]:
    """Prepare a grid and run its campaigns in this process."""
    folder = tmp_path_factory.mktemp("grid")
    campaigns, _ = planned(folder, told(folder))
    assert not any(campaign.done() for campaign in campaigns)
    for campaign in campaigns:
        alray.run(campaign.settings)
    return folder, campaigns


def test_features_are_each_campaigns_own_and_the_pretrained_weights_are_shared(
    grid: tuple[Path, list[Campaign]],
) -> None:
    folder, campaigns = grid
    assert [c.name for c in campaigns] == ["standard-margin-0", "svpp-margin-0"]
    assert [c.settings.features.path for c in campaigns] == [f"{folder}/features/{c.name}" for c in campaigns]
    assert {c.settings.pretrain for c in campaigns} == {None}
    weights = {c.settings.features.weights for c in campaigns}
    assert len(weights) == 1 and weights.pop().startswith(f"{folder}/shared/pretrained/")
    assert {p.name for p in (folder / "shared").iterdir()} == {"pretrained", "prepared.json"}  # no features in it


def test_every_embedding_is_in_the_hours_of_the_run_that_needs_it(grid: tuple[Path, list[Campaign]]) -> None:
    """Nothing was embedded before: svpp did it once, standard once more, with the network that selects for it."""
    folder, campaigns = grid
    for campaign, embeddings in zip(campaigns, (2, 1), strict=True):
        files = sorted(Path(campaign.settings.run).glob("costs/*-features.json"))
        took = [json.loads(file.read_text())["seconds"] for file in files]
        assert len(took) == len(list((folder / f"features/{campaign.name}").iterdir())) == embeddings
        assert reports.read(campaign.settings.run).curve.hours_P3[-1, 0] * 3600 > took[-1] > 0.001


def test_done_campaigns_are_skipped_and_the_backbone_is_made_once(grid: tuple[Path, list[Campaign]]) -> None:
    folder, _ = grid
    before = {p: p.stat().st_mtime_ns for p in (folder / "shared").rglob("*")}
    again, prepared = planned(folder, told(folder))
    assert all(campaign.done() for campaign in again)
    assert list(prepared["seconds"]) == ["pre-training"]  # type: ignore[call-overload]
    other, _ = planned(folder, told(folder, "training.holdout=0.2"))
    assert not any(campaign.done() for campaign in other)
    assert {p: p.stat().st_mtime_ns for p in (folder / "shared").rglob("*")} == before
    with pytest.raises(SystemExit, match="Give another WORK"):
        regimes.write_data(folder / "data", None, 61, 20)


def test_the_report_says_what_was_made_once(grid: tuple[Path, list[Campaign]]) -> None:
    folder, campaigns = grid
    regimes.finish(folder, campaigns, None, {"seconds": {"pre-training": 2.0}})
    text = (folder / "report.md").read_text()
    assert "in no hours and no interval above: pre-training 2.0 s." in text and "over seeds only" in text
    regimes.finish(folder, campaigns, None, {"seconds": {}})
    assert "Made once" not in (folder / "report.md").read_text()


@pytest.mark.parametrize("more", [0, 3])
def test_a_campaign_gives_way_to_others(
    grid: tuple[Path, list[Campaign]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: int
) -> None:
    monkeypatch.setattr(regimes, "ONE", "import os; print(os.nice(0), os.environ['OMP_NUM_THREADS'])")
    campaign = grid[1][0]
    assert regimes.start(tmp_path, campaign, 2, more).wait() == 0
    assert (tmp_path / f"logs/{campaign.name}.log").read_text().split() == [str(min(19, os.nice(0) + more)), "2"]
