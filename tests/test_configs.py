"""Every settings file that alray ships loads, says the same when written back, and is well on files of its layout.

The files are stubs: a few small pictures under the names and with the columns that the head comment of the file names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import pytest

from alray import config
from alray.campaign.settings import Settings
from alray.cli import check
from alray.training import Auto, FineTune, LpFt

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(file for file in CONFIGS.rglob("*.yaml") if not file.name.startswith("sweep_"))  # see tests/sweeps
CIFAR = [CONFIGS / f"cifar10_{regime}.yaml" for regime in ("standard", "svpp", "asvp")]


def loaded(file: Path, *words: str) -> Settings:
    return config.load(str(file), words, Settings)


def test_there_is_a_quickstart() -> None:
    assert CONFIGS / "quickstart.yaml" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_settings_load_and_survive_being_written(file: Path, tmp_path: Path) -> None:
    settings = loaded(file)
    again = tmp_path / "again.yaml"
    again.write_text(config.dump(settings))
    assert config.load(str(again), [], Settings) == settings


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_readme_names_the_file(file: Path) -> None:
    assert f"`{file.name}`" in (CONFIGS / "README.md").read_text()


def test_the_readme_explains_every_setting() -> None:
    rows = [line for line in (CONFIGS / "README.md").read_text().splitlines() if line.startswith("| `")]
    explained = {word.strip(" `").split(".")[0] for row in rows for word in row.split("|")[1].split(",")}
    assert set(Settings.model_fields) - {"regime"} <= explained


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_head_comment_has_the_command(file: Path) -> None:
    comment = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert any(line.startswith(f"#   alray run configs/{file.name}") for line in comment)


# On stubs


def stub(settings: Settings, folder: Path) -> list[str]:
    """Write pictures where the settings look for theirs, below `folder`; return the words that lead there."""
    classes = settings.classes or [f"n{number:08d}" for number in range(4)]
    names, at, of_pool = builders.ids(24), 0, {}
    pool = folder / str(settings.pool.path).replace("*", "00")
    assert settings.test is not None
    for file, rows, labelled in ((pool, 16, False), (folder / str(settings.test.path), 8, True)):
        cells = [builders.picture(i, suffix="jpg")[0] for i in range(at, at + rows)]
        labels = [classes[i % len(classes)] for i in range(at, at + rows)]
        columns: dict[str, Any] = {"id": names[at : at + rows], "image": cells}
        builders.parquet(file, columns | ({"label": labels} if labelled else {}))
        of_pool |= dict(zip(names[at : at + rows], labels, strict=True)) if not labelled else {}
        at += rows
    oracle = folder / settings.labeller.path  # type: ignore[attr-defined]
    builders.labels_file(oracle, list(of_pool), list(of_pool.values()))
    return [
        f"run={folder}/{settings.run}",
        f"pool.path={folder}/{settings.pool.path}",
        f"test.path={folder}/{settings.test.path}",
        f"test.labels={folder}/{settings.test.labels}",
        f"labeller.path={oracle}",
        f"features.path={folder}/features",
        "features.weights=none",
        "runtime={name: local}",
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_is_well_on_files_of_its_layout(file: Path, tmp_path: Path) -> None:
    words = stub(loaded(file), tmp_path)
    found = {line.name: line for line in check._campaign(str(file), words)}
    wrong = [f"{line.name}: {line.text}" for line in found.values() if line.state == "wrong"]
    assert not [line for line in wrong if not line.startswith(("run:", "features:"))], "\n".join(wrong)
    assert found["pool"].text.startswith("Pool(image, 16 rows")
    assert {"test", "ids", "labeller", "backbone", "recipe", "runtime"} <= found.keys()
    assert not (tmp_path / "runs").exists()


# What they are


def test_the_cifar_files_are_one_campaign_in_three_regimes() -> None:
    standard, svpp, asvp = (loaded(file).model_dump(mode="json") for file in CIFAR)
    assert [one["regime"] for one in (standard, svpp, asvp)] == ["standard", "svpp", "asvp"]
    for other in (standard, asvp):
        assert {key for key in svpp if svpp[key] != other[key]} <= {"run", "regime", "switch", "budget", "training"}
        assert other["training"]["recipe"] == svpp["training"]["recipe"]
        assert {**other["budget"], "control": 0.0} == svpp["budget"]
    assert standard["training"]["when"] == "every" and svpp["training"]["when"] == asvp["training"]["when"] == "last"


def test_imagenet_has_the_papers_budgets_and_recipes() -> None:
    settings = loaded(CONFIGS / "imagenet.yaml")
    rounds = [settings.budget.wanted(number) for number in range(16)]
    assert rounds == [10_000] * 10 + [50_000] * 6 and sum(rounds) == settings.budget.total == 400_000
    head, recipe = settings.head, settings.training.recipe
    assert (head.kind, head.hidden, head.batch_norm, head.batch, head.epochs) == ("mlp", 2048, True, 2048, 50)
    assert (head.optimizer, head.lr, head.weight_decay, head.schedule) == ("sgd", 0.1, 0, "cosine_7_16")
    assert isinstance(recipe, Auto)
    tuned, linear = recipe.choose(True), recipe.choose(False)
    assert isinstance(tuned, FineTune) and isinstance(linear, LpFt)
    assert (tuned.lr, tuned.head_lr, tuned.weight_decay, tuned.batch, tuned.epochs) == (0.01, 0.1, 1e-4, 128, 50)
    assert (tuned.schedule, tuned.milestones, tuned.gamma, tuned.nesterov) == ("steps", [30, 40], 0.1, True)
    assert (linear.lr, linear.head_lr, linear.epochs, linear.schedule) == (1e-4, 0.1, 40, "constant")
    assert settings.costs.gpu_hour == 3.0
