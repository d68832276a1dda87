"""The strategies' README: a row and a picture each, and what the row says is what `alray strategies` says."""

from __future__ import annotations

from pathlib import Path

import pytest

import alray.strategies as room
from alray.strategies import STRATEGIES, Entry, listing

FOLDER = Path(room.__file__).parent
README = (FOLDER / "README.md").read_text(encoding="utf-8")


def row(entry: Entry) -> str:
    """Return the row of a strategy."""
    picture = f'<img src="gallery/{entry.name}.png" width="150" alt="what {entry.name} picks">'
    paper = f" *{entry.paper}*" if entry.paper else ""
    kind = "exact" if entry.exact else "approximate"
    return (
        f"| {picture} | `{entry.name}`: {entry.line}{paper} | {', '.join(entry.needs) or '–'} | {kind} | {entry.cost} |"
    )


@pytest.mark.parametrize("name", sorted(STRATEGIES()))
def test_every_strategy_has_its_row(name: str) -> None:
    expected = row(next(entry for entry in listing() if entry.name == name))
    assert expected in README.splitlines(), f"alray/strategies/README.md needs the row:\n{expected}"


@pytest.mark.parametrize("name", sorted(STRATEGIES()))
def test_every_strategy_has_its_picture(name: str) -> None:
    png = FOLDER / "gallery" / f"{name}.png"
    assert png.exists(), f"draw it: python tests/benchmarks/gallery.py --only {name}"
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_pictures_are_few_bytes_and_none_is_left_over() -> None:
    pictures = list((FOLDER / "gallery").iterdir())
    assert {picture.stem for picture in pictures} == set(STRATEGIES())
    assert sum(picture.stat().st_size for picture in pictures) < 10**6
