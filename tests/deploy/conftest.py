"""What the tests of `deploy/` share: its manifests, rendered once."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from deploy.kustomization import Manifest, render

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted(folder.name for folder in (KUBERNETES / "overlays").iterdir())

Rendered = Callable[[str], list[Manifest]]


@pytest.fixture(scope="session")
def all_rendered() -> dict[str, list[Manifest]]:
    """Every overlay's manifests; not to be changed."""
    return {name: render(KUBERNETES / "overlays" / name) for name in OVERLAYS}


@pytest.fixture
def rendered(all_rendered: dict[str, list[Manifest]]) -> Rendered:
    """Return an overlay's manifests, a copy of them."""
    return lambda name: copy.deepcopy(all_rendered[name])


def parsed(words: list[str]) -> dict[str, Any]:
    """Return what the command line of alray makes of these words; an error if it takes them not."""
    import typer

    from alray.cli import app

    commands = typer.main.get_command(app.app).commands  # type: ignore[attr-defined]
    params: dict[str, Any] = commands[words[0]].make_context(words[0], words[1:]).params
    return params


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Load a script of the base by its name, as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"deployed_{name}", KUBERNETES / "base" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load
