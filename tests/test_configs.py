"""Every settings file that alray ships loads, and says the same when it is written back."""

from __future__ import annotations

from pathlib import Path

import pytest

from alray import config
from alray.campaign.settings import Settings

CONFIGS = Path(__file__).parents[1] / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def test_there_is_a_quickstart() -> None:
    assert CONFIGS / "quickstart.yaml" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_settings_load_and_survive_being_written(file: Path, tmp_path: Path) -> None:
    settings = config.load(str(file), [], Settings)
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
