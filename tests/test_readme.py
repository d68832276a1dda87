"""The README's Python runs as it stands, and its links lead somewhere."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import alray
from alray.strategies import STRATEGIES

HOME = Path(__file__).parents[1]
README = (HOME / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_sample_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    sample = blocks("python")[0]
    exec(compile(sample, "README.md", "exec"), {})
    count, candidates, digest = capsys.readouterr().out.split()
    assert count == "50" and int(candidates) > 0 and len(digest) == 64
    assert len((tmp_path / "picks.csv").read_text().splitlines()) == 51


def test_the_strategy_in_one_file_selects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "easiest.py").write_text(blocks("python")[1])
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    easiest = importlib.import_module("easiest").Easiest()
    exec(compile(blocks("python")[0].split("selection =")[0], "README.md", "exec"), made := {})
    picks = alray.select(easiest, "pool.parquet", budget=10, labels=made["labels"]).picks
    assert len(picks) == 10 and picks.scores[0] == max(picks.scores) > 0.5


def test_it_names_every_strategy() -> None:
    assert all(f"`{name}`" in README for name in STRATEGIES())


def test_it_names_every_command() -> None:
    from alray.cli import app

    commands = [command.callback.__name__ for command in app.app.registered_commands if command.callback]
    assert commands and all(f"alray {name} " in README for name in commands)


def test_its_links_lead_somewhere() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert links and all((HOME / link).exists() for link in links)


def test_the_whole_front_door_is_open() -> None:
    for name in re.findall(r"alray\.([a-z]+)\(", README):
        assert name in alray.__all__
