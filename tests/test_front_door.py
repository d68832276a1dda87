"""The front door: the public names are these, each opens, and opening it is light."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import alray

HOUSE = Path(alray.__file__).parent


def test_every_public_name_can_be_imported() -> None:
    for name in alray.__all__:
        assert getattr(alray, name).__name__ == name


def test_the_public_names_are_exactly_those_with_a_home_and_sorted() -> None:
    assert alray.__all__ == sorted(alray.__all__) == sorted(alray._HOME)
    assert dir(alray) == alray.__all__


def test_no_public_name_hides_a_room() -> None:
    rooms = {path.stem for path in HOUSE.iterdir()}
    assert not rooms & set(alray.__all__)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'selct'"):
        alray.selct  # noqa: B018


def loaded_by(code: str) -> set[str]:
    """Return the packages that a fresh interpreter has loaded after `code`."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ.copy()
    )
    return set(out.stdout.split())


def test_importing_every_public_name_loads_neither_ray_nor_torchvision() -> None:
    assert not loaded_by("from alray import *") & {"ray", "torchvision"}


def test_importing_alray_loads_nothing_heavy() -> None:
    assert not loaded_by("import alray") & {"ray", "torchvision", "torch", "pyarrow", "sklearn"}
