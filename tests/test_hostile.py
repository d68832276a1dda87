"""Every hostile input gets its message, and none of them runs code."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import hostile
import pytest

import alray

SOURCES = sorted(Path(alray.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("one", hostile.CASES, ids=lambda case: case.name)
def test_a_hostile_input_gets_its_message(one: hostile.Case, tmp_path: Path) -> None:
    said = one.message(tmp_path)
    assert re.search(one.said, said, re.DOTALL), said
    assert not (tmp_path / hostile.MARKER).exists(), "its code was run"


def test_a_payload_would_be_seen(tmp_path: Path) -> None:
    import pickle

    pickle.loads(hostile.bomb(tmp_path))
    assert (tmp_path / hostile.MARKER).exists()


WITHIN_RAY = {"runtime/ray_data.py"}
"""Pickles here travel between the processes of one cluster and never come from a file."""


def calls(source: Path) -> list[str]:
    """Return every call of a source file whose name, or whose argument, lets data run code."""
    found = []
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        name, words = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
        loader = words.get("Loader", "")
        if (
            name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen")
            or re.search(r"\b(c?pickle|cloudpickle|dill|joblib|marshal|shelve)\.(loads?|Unpickler|open)$", name)
            or (name == "torch.load" and words.get("weights_only") != "True")
            or (name.endswith("np.load") and words.get("allow_pickle", "False") != "False")
            or (name in ("yaml.load", "yaml.load_all") and loader not in ("_Loader", "yaml.SafeLoader"))
            or re.search(r"yaml\.(unsafe|full)_load", name)
            or words.get("shell") == "True"
        ):
            found.append(f"{source.name}:{node.lineno}: {ast.unparse(node)[:80]}")
    return found


def test_no_module_lets_data_run_code() -> None:
    root = Path(alray.__file__).parent
    found = [call for source in SOURCES if str(source.relative_to(root)) not in WITHIN_RAY for call in calls(source)]
    assert found == []


def test_the_walk_finds_what_it_looks_for(tmp_path: Path) -> None:
    bad = ["eval('1')", "pickle.load(f)", "torch.load(p)", "torch.load(p, weights_only=False)", "os.system('id')"]
    bad += ["np.load(p, allow_pickle=True)", "yaml.load(t, Loader=yaml.Loader)", "subprocess.run(w, shell=True)"]
    (tmp_path / "bad.py").write_text("\n".join([*bad, "torch.load(p, weights_only=True)", "np.load(p)"]))
    assert len(calls(tmp_path / "bad.py")) == len(bad)


def test_no_module_lets_ray_unpickle_files() -> None:
    named = [source.name for source in SOURCES if re.search("AUTOLOAD_|_CLOUDPICKLE", source.read_text())]
    assert named == ["ray_cluster.py"]  # which refuses them
