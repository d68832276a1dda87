"""A sweep's file: the campaign in it or beside it, words that change both, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import campaigns
import pytest
import yaml

from alray.errors import ConfigError
from alray.sweeps.settings import Sweep, SweepConfig, load

Made = Callable[..., Sweep]


def test_a_campaign_in_the_file_and_one_beside_it_are_the_same(data: Path, tmp_path: Path) -> None:
    campaign = campaigns.raw_settings(data, tmp_path / "run")
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(campaign))
    for name, told in (("whole", campaign), ("beside", str(tmp_path / "campaign.yaml"))):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"sweep": {"folder": "f"}, "campaign": told}))
    words = ["campaign.strategy.name=entropy", "campaign.budget.total=30", "sweep.seeds=[4, 2]"]
    whole, beside = (load(str(tmp_path / f"{name}.yaml"), words) for name in ("whole", "beside"))
    assert whole.campaign == beside.campaign
    assert whole.campaign["strategy"] == {"name": "entropy"} and whole.campaign["budget"]["total"] == 30
    assert whole.config.drawn == [4, 2]


def test_a_word_may_name_another_campaign(data: Path, tmp_path: Path) -> None:
    other = {**campaigns.raw_settings(data, tmp_path / "run"), "strategy": "entropy"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(other))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({"sweep": {"folder": "f"}, "campaign": "none.yaml"}))
    words = [f"campaign={tmp_path}/other.yaml", "campaign.budget.initial=9"]
    found = load(str(tmp_path / "sweep.yaml"), words).campaign
    assert found["strategy"] == "entropy" and found["budget"]["initial"] == 9
    with pytest.raises(ConfigError, match=r"There is no config file at 'none\.yaml'"):
        load(str(tmp_path / "sweep.yaml"))


def test_seeds_are_a_number_or_a_list() -> None:
    assert SweepConfig(folder="f").drawn == [0]
    assert SweepConfig(folder="f", seeds=3).drawn == [0, 1, 2]
    assert SweepConfig(folder="f", seeds=[7, 3]).drawn == [7, 3]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "sweep.seeds=0",
            "sweep.seeds: is 0 (expected a number of seeds, 1 or more, or a list of different ones from 0)",
        ),
        ("sweep.seeds=[1, 1]", "is [1, 1] (expected a number of seeds"),
        ("sweep.seeds=[-1]", "is [-1] (expected a number of seeds"),
        ("sweep.grid={seed: [1, 2]}", "varies `seed`, which the sweep sets for each trial. Give `sweep.seeds`"),
        ("sweep.grid={runtime.workers: [1]}", "varies `runtime.workers`, which the sweep sets for each trial. Take it"),
        ("sweep.grid={features.path: [a]}", "varies `features.path`, which the sweep sets for each trial."),
        (
            "sweep.grid={labels: [a.csv]}",
            "varies `labels`, which is a column of the table: vary it under another name, as in",
        ),
        ("sweep.grid={head.l2: []}", "has no values for `head.l2`: give a list of them, or take the line out"),
        (
            "sweep.asha={grace: 12}",
            "`asha` is Ray Tune's, and `runtime` is local: take it out, or set `runtime` to ray",
        ),
        ("sweep.log_to=[mlflow]", "`log_to` is Ray Tune's, and `runtime` is local"),
        ("sweep.log_to=[wandb]", "'wandb'"),
        ("sweep.concurency=2", "Did you mean `concurrency`?"),
        ("sweep.concurrency=0", "sweep.concurrency: is 0 (expected a whole number or nothing, 1 or more)"),
        (
            "sweep.best.target=1.5",
            "sweep.best.target: is 1.5 (expected a finite number or nothing, above 0, at most 1)",
        ),
        ("budget.total=9", "as in `sweep.seeds=3`. Did you mean `campaign.budget.total=9`?"),
        ("total=9", "total=9: is no setting of a sweep"),
    ],
)
def test_a_mistake_is_refused_with_what_to_do(sweep: Made, word: str, said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        sweep(word)
    assert said in str(refused.value)


def test_a_relative_folder_means_nothing_to_another_machine(sweep: Made) -> None:
    words = ["campaign.runtime.address=ray.example:6379", "campaign.runtime.insecure=true"]
    sweep(*words)
    with pytest.raises(
        ConfigError, match=r"`sweep.folder` is the relative path 'here', .* give an absolute path or s3"
    ):
        sweep(*words, "sweep.folder=here")
