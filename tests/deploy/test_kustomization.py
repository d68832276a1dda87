"""The renderer of these tests says what kustomize says, and refuses what it does not know."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from deploy.conftest import KUBERNETES, OVERLAYS
from deploy.kustomization import Manifest, find, render

BUILDS = (["kustomize", "build"], ["kubectl", "kustomize"])
COMMAND = next((words for words in BUILDS if shutil.which(words[0])), [])

MINE = """
resources: [{base}]
components: [{s3}]
namespace: labels
images:
  - {{name: alray, newName: registry.example/alray, digest: sha256:{digest}}}
configMapGenerator:
  - {{name: alray-campaign, behavior: replace, files: [campaign.yaml]}}
"""
"""An overlay of a user's own."""


def by_name(manifests: list[Manifest]) -> dict[tuple[str, str], Manifest]:
    found = {(one["kind"], one["metadata"]["name"]): one for one in manifests}
    assert len(found) == len(manifests)
    return found


def of_kustomize(folder: Path) -> dict[tuple[str, str], Manifest]:
    done = subprocess.run([*COMMAND, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:2000]
    return by_name([one for one in yaml.safe_load_all(done.stdout) if one])


@pytest.mark.skipif(not COMMAND, reason="neither kustomize nor kubectl is installed")
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_it_renders_as_kustomize_does(overlay: str) -> None:
    folder = KUBERNETES / "overlays" / overlay
    assert by_name(render(folder)) == of_kustomize(folder)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    there = os.path.relpath(KUBERNETES, tmp_path)  # kustomize takes no absolute paths
    told = MINE.format(base=f"{there}/overlays/gpu", s3=f"{there}/components/s3", digest="0" * 64)
    (tmp_path / "kustomization.yaml").write_text(told)
    (tmp_path / "campaign.yaml").write_text("run: s3://mine/run\n")
    return tmp_path


def test_an_overlay_of_ones_own_changes_image_campaign_and_namespace(mine: Path) -> None:
    found = render(mine)
    assert find(found, "ConfigMap", "alray-campaign")["data"] == {"campaign.yaml": "run: s3://mine/run\n"}
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in found} == {"labels"}
    head = find(found, "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert head["image"] == f"registry.example/alray@sha256:{'0' * 64}"


@pytest.mark.skipif(not COMMAND, reason="neither kustomize nor kubectl is installed")
def test_an_overlay_of_ones_own_is_rendered_as_kustomize_does(mine: Path) -> None:
    theirs, ours = of_kustomize(mine), by_name(render(mine))
    theirs["ConfigMap", "alray-campaign"]["metadata"].pop("annotations", None)
    assert ours == theirs


def test_what_it_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("namePrefix: my-\n")
    with pytest.raises(NotImplementedError, match="namePrefix"):
        render(tmp_path)


def test_a_step_that_meets_nothing_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("kind: Thing\nmetadata: {name: a}\nspec: {b: 1}\n")
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [one.yaml]\npatches: [{target: {kind: Thing}, patch: '[{op: replace, path: /spec/c, value: 2}]'}]\n"
    )
    with pytest.raises(KeyError, match="/spec/c"):
        render(tmp_path)
