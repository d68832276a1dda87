"""The Dockerfile, read as Docker reads it: what is copied is there, who it runs as, what is installed and left."""

from __future__ import annotations

import fnmatch
import re
import shlex
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from deploy.conftest import DEPLOY
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HOME = DEPLOY.parent
PROJECT = tomllib.loads((HOME / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (DEPLOY / "constraints.txt").read_text(), flags=re.MULTILINE))


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, its words) in order: comments dropped, continued lines joined."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(verb, rest) for verb, _, rest in (line.partition(" ") for line in joined if line)]


def stages() -> list[list[tuple[str, str]]]:
    """Return the instructions of each stage, its FROM first; ARGs before the first FROM are no stage."""
    found: list[list[tuple[str, str]]] = []
    for verb, rest in instructions():
        if verb == "FROM":
            found.append([])
        if found:
            found[-1].append((verb, rest))
    return found


def words(stage: list[tuple[str, str]], verb: str) -> list[str]:
    return [rest for one, rest in stage if one == verb]


def is_sent(path: str) -> bool:
    """Say whether .dockerignore lets a path of the checkout into the build: the last rule that fits decides."""
    sent = True
    for rule in (HOME / ".dockerignore").read_text().splitlines():
        rule, keeps = rule.removeprefix("!"), rule.startswith("!")
        parts = rule.split("/")
        if rule.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, rule[3:]) for part in path.split("/"))
        else:
            fits = all(fnmatch.fnmatch(a, b) for a, b in zip(path.split("/"), parts, strict=False))
            fits = fits and len(parts) <= len(path.split("/"))
        if rule and not rule.startswith("#") and fits:
            sent = keeps
    return sent


def test_there_are_only_instructions_that_docker_has() -> None:
    assert {verb for verb, _ in instructions()} <= {
        "ARG", "FROM", "ENV", "RUN", "WORKDIR", "COPY", "USER", "ENTRYPOINT", "CMD",
    }  # fmt: skip


def test_what_is_copied_is_there_and_is_sent_to_the_build() -> None:
    build, final = stages()
    sources = [source for line in words(build, "COPY") for source in shlex.split(line)[:-1]]
    assert sources == ["deploy/constraints.txt", "pyproject.toml", "README.md", "LICENSE", "alray"]
    for source in sources:
        assert (HOME / source).exists() and is_sent(source), source
    assert is_sent("alray/cli/app.py") and is_sent("alray/py.typed")
    assert not [
        path for path in (".git", "tests", "runs", "deploy/README.md", "alray/__pycache__/x.pyc") if is_sent(path)
    ]
    assert words(final, "COPY") == ["--from=build /opt/alray /opt/alray"]


def test_what_the_project_is_built_from_is_copied() -> None:
    named = {PROJECT["readme"], *PROJECT["license-files"], "pyproject.toml", PROJECT["name"]}
    build, _ = stages()
    assert named <= {source for line in words(build, "COPY") for source in shlex.split(line)[:-1]}


def test_it_runs_as_nobody_in_particular() -> None:
    _, final = stages()
    assert words(final, "USER") == ["1000:1000"]
    after = [verb for verb, _ in final[[verb for verb, _ in final].index("USER") :]]
    assert "RUN" not in after and "COPY" not in after
    assert any("useradd --uid 1000" in line for line in words(final, "RUN"))


def test_its_command_is_the_project_s() -> None:
    _, final = stages()
    assert words(final, "ENTRYPOINT") == ['["alray"]'] and "alray" in PROJECT["scripts"]
    assert "PATH=/opt/alray/bin:$PATH" in words(final, "ENV")[0]


def test_the_base_is_pinned_and_may_be_pinned_by_its_content() -> None:
    arguments = dict(rest.partition("=")[::2] for verb, rest in instructions() if verb == "ARG")
    assert re.fullmatch(r"3\.11\.\d+-slim-\w+", arguments["PYTHON"]) and arguments["PYTHON_DIGEST"] == ""
    bases = {line.removesuffix(" AS build") for stage in stages() for line in words(stage, "FROM")}
    assert bases == {"docker.io/library/python:${PYTHON}${PYTHON_DIGEST:+@${PYTHON_DIGEST}}"}


def test_torch_comes_from_the_index_that_is_asked_for_and_the_rest_is_pinned() -> None:
    build, _ = stages()
    torch, project = words(build, "RUN")[1:]
    assert '--no-deps --index-url "$TORCH_INDEX"' in torch and "^(torch|torchvision)==" in torch
    assert "install --requirement constraints.txt" in torch
    assert "install --no-deps ." in project and "check" in project
    assert words(build, "ARG") == ["TORCH_INDEX=https://pypi.org/simple"]


def test_no_tool_is_left() -> None:
    build, final = stages()
    assert "venv --without-pip /opt/alray" in words(build, "RUN")[0]
    (line,) = words(final, "RUN")
    assert "pip uninstall --yes pip" in line and "rm -rf /var/lib/apt/lists/*" in line
    assert re.findall(r"install --yes --no-install-recommends ([\w -]+?) +&&", line) == ["wget"]


# What is pinned


def test_every_dependency_is_pinned_within_its_range() -> None:
    for text in PROJECT["dependencies"]:
        wanted = Requirement(text)
        pinned = PINS[canonicalize_name(wanted.name)]
        assert wanted.specifier.contains(pinned), f"{text}: {pinned}"


def test_what_the_dependencies_depend_on_is_pinned_too() -> None:
    needed = {
        canonicalize_name(one.name) for text in PROJECT["dependencies"] for one in closure(Requirement(text), set())
    }
    assert len(needed) > 40 and needed <= PINS.keys(), needed - PINS.keys()


def test_the_cluster_s_own_parts_of_ray_are_pinned() -> None:
    """`ray[default]` has the job API, the dashboard and what the autoscaler calls the API server with."""
    wanted = [Requirement(text) for text in distribution("ray").requires or []]
    of_cluster = [one for one in wanted if one.marker and one.marker.evaluate({"extra": "default"})]
    assert len(of_cluster) > 8
    for one in of_cluster:
        assert one.specifier.contains(PINS[canonicalize_name(one.name)]), one


def test_nothing_is_pinned_that_no_dependency_leads_to() -> None:
    needed = {one.name for text in PROJECT["dependencies"] for one in closure(Requirement(text), set())}
    of_cluster = {Requirement(text).name for text in distribution("ray").requires or [] if "default" in text}
    tools = {Requirement(text).name for text in PROJECT["optional-dependencies"]["dev"]} - needed - of_cluster
    assert len(tools) > 5 and not {canonicalize_name(name) for name in tools} & PINS.keys()


def closure(wanted: Requirement, seen: set[tuple[str, str]]) -> set[Requirement]:
    """Return a requirement and all that it leads to here."""
    if (key := (wanted.name, str(sorted(wanted.extras)))) in seen:
        return set()
    seen.add(key)
    try:
        inner = [Requirement(text) for text in distribution(wanted.name).requires or []]
    except PackageNotFoundError:
        pytest.fail(f"{wanted} is not installed")
    extras = [{"extra": extra} for extra in wanted.extras or {""}]
    found = {wanted}
    for one in inner:
        if one.marker is None or any(one.marker.evaluate(extra) for extra in extras):
            found |= closure(one, seen)
    return found
