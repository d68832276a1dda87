"""Every sweep that alray ships loads, makes campaigns, and is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from alray.sweeps import SweepConfig, load
from alray.sweeps.grid import expand

CONFIGS = Path(__file__).parents[2] / "configs"
FILES = sorted(CONFIGS.glob("sweep_*.yaml"))
README = (CONFIGS / "README.md").read_text()


def test_there_is_one() -> None:
    assert CONFIGS / "sweep_digits.yaml" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_makes_the_campaigns_that_its_comment_says(file: Path) -> None:
    assert len(expand(load(str(file)))) == 12
    comment = [line for line in file.read_text().splitlines() if line.startswith("#")]
    assert "twelve" in comment[0] and f"#   alray sweep configs/{file.name}" in comment
    assert f"`{file.name}`" in README


def test_every_setting_of_a_sweep_is_explained() -> None:
    assert all(f"| `sweep.{name}` |" in README for name in SweepConfig.model_fields)
