"""The house stands: a module imports its own room and lower floors, and the heavy engines stay in their rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1] / "alray"

FLOORS = [
    {"errors"},
    {"storage", "config", "mistakes", "table", "seeds", "log", "gauges"},
    {"ops", "runtime"},
    {"pool", "models"},
    {"features", "strategies", "training", "labelling"},
    {"selection", "proxy"},
    {"campaign"},
    {"reports"},
    {"sweeps"},
    {"cli"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FLAT = FLOORS[1]  # modules of one floor-1 room: config stands on storage and on mistakes
ENGINES = {"ray": {"runtime"}, "torchvision": {"models", "training"}}
FRONT = {"__init__", "__main__"}  # the front door opens on every room
NO_ROOM = {"utils", "common", "core", "helpers", "misc"}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of every import, the ones inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            inner = module == "alray"  # `from alray import seeds` imports the module alray.seeds
            yield from (
                (node.lineno, f"{module}.{a.name}" if inner else module) for a in node.names[: None if inner else 1]
            )


def fault(where: str, room: str, name: str) -> str | None:
    """Return one sentence about an import that does not fit its room, or None."""
    if name.startswith("."):
        return f"{where} imports {name!r}: write absolute imports, from alray."
    package, _, rest = name.partition(".")
    if package in ENGINES and room not in ENGINES[package]:
        return f"{where} imports {package}: only {' and '.join(sorted(ENGINES[package]))} may."
    if package != "alray" or room in FRONT:
        return None
    target = rest.split(".")[0]
    if target not in FLOOR_OF:
        return f"{where} imports {name}: only rooms and their names can be imported, not the front door."
    if target == room or FLOOR_OF[target] < FLOOR_OF[room] or {target, room} <= FLAT:
        return None
    way = "up" if FLOOR_OF[target] > FLOOR_OF[room] else "sideways"
    return f"{where} imports {name}: {room} (floor {FLOOR_OF[room]}) may not look {way} to floor {FLOOR_OF[target]}."


def room_of(path: Path) -> str:
    return path.relative_to(HOUSE).parts[0].removesuffix(".py")


def faults() -> Iterator[str]:
    """Yield one sentence per fault of the house as it stands."""
    for path in sorted(HOUSE.rglob("*.py")):
        room = room_of(path)
        if room in NO_ROOM or path.stem in NO_ROOM or room not in FLOOR_OF.keys() | FRONT:
            yield f"{path.relative_to(HOUSE)} is in no room: give it a noun and a floor."
            continue
        for line, name in imports(path.read_text()):
            if said := fault(f"alray/{path.relative_to(HOUSE)}:{line}", room, name):
                yield said


def test_every_import_looks_down() -> None:
    found = list(faults())
    assert not found, "\n" + "\n".join(found)


def test_no_import_circle_on_the_first_floor() -> None:
    below: dict[str, set[str]] = {}
    for room in FLAT:
        path = HOUSE / f"{room}.py"
        names = (
            [n.split(".")[1] for _, n in imports(path.read_text()) if n.startswith("alray.")] if path.exists() else []
        )
        below[room] = set(names) & FLAT
    while free := [room for room, needs in below.items() if not needs]:
        below = {room: needs - set(free) for room, needs in below.items() if room not in free}
    assert not below, f"These modules import each other in a circle: {sorted(below)}."


@pytest.mark.parametrize(
    ("room", "source", "said"),
    [
        ("pool", "from alray.campaign import run", "pool (floor 3) may not look up to floor 6."),
        ("pool", "from alray.models.head import Head", "pool (floor 3) may not look sideways to floor 3."),
        ("cli", "def f():\n    import ray", "x.py:2 imports ray: only runtime may."),
        ("pool", "import torchvision.io", "imports torchvision: only models and training may."),
        ("pool", "from . import shard", "write absolute imports, from alray."),
        ("cli", "from alray import select", "not the front door."),
        ("errors", "from alray import table", "errors (floor 0) may not look up to floor 1."),
    ],
)
def test_a_fault_is_one_sentence(room: str, source: str, said: str) -> None:
    [(line, name)] = imports(source)
    assert (fault(f"x.py:{line}", room, name) or "").endswith(said)


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("runtime", "import ray"),
        ("training", "from torchvision.transforms import v2"),
        ("config", "from alray import storage"),
        ("campaign", "from alray.pool import Pool"),
        ("pool", "from alray.pool.shard import Shard"),
        ("__init__", "from alray.cli import app"),
    ],
)
def test_a_look_down_is_no_fault(room: str, source: str) -> None:
    assert [fault("x.py", room, name) for _, name in imports(source)] == [None]
