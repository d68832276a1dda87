"""Every manifest is one that the API server and KubeRay would take; a misspelled field anywhere is found."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from deploy.conftest import OVERLAYS, Rendered
from deploy.kustomization import Manifest, find

from deploy import schemas

CRDS = os.environ.get("ALRAY_KUBERAY_CRDS")
with_crds = pytest.mark.skipif(
    not CRDS, reason="ALRAY_KUBERAY_CRDS names no folder with KubeRay's custom resource definitions"
)


@pytest.fixture(scope="module")
def validators() -> dict[tuple[str, str], Any]:
    found = schemas.of_crds(Path(str(CRDS)))
    assert {("ray.io/v1", "RayJob"), ("ray.io/v1", "RayCluster")} <= found.keys()
    return found


def is_ray(manifest: Manifest) -> bool:
    return bool(manifest["apiVersion"].startswith("ray.io/"))


def test_core_kinds_are_valid(all_rendered: dict[str, list[Manifest]], monkeypatch: pytest.MonkeyPatch) -> None:
    distinct = {json.dumps(m, sort_keys=True): m for every in all_rendered.values() for m in every if not is_ray(m)}
    assert len({(m["kind"], m["metadata"]["name"]) for m in distinct.values()}) >= 14
    for manifest in distinct.values():
        faults = list(schemas.faults_of_core(manifest, monkeypatch))
        assert not faults, f"{manifest['kind']} {manifest['metadata']['name']}: {faults}"


@with_crds
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_kinds_are_valid(overlay: str, rendered: Rendered, validators: dict[tuple[str, str], Any]) -> None:
    (manifest,) = filter(is_ray, rendered(overlay))
    assert manifest["kind"] == ("RayCluster" if overlay == "cluster" else "RayJob")
    assert not list(schemas.faults_of_ray(manifest, validators))


MISSPELLED = {
    "spec": ("backoffLimit", "backOffLimit"),
    "spec.rayClusterSpec": ("enableInTreeAutoscaling", "enableInTreeAutoScaling"),
    "spec.rayClusterSpec.autoscalerOptions": ("idleTimeoutSeconds", "idleTimeoutSecond"),
    "spec.rayClusterSpec.headGroupSpec.template.spec.containers.0": ("imagePullPolicy", "imagePullPolcy"),
    "spec.rayClusterSpec.workerGroupSpecs.0": ("maxReplicas", "maxReplica"),
    "spec.rayClusterSpec.workerGroupSpecs.0.template.spec.containers.0.securityContext": ("capabilities", "capability"),
    "spec.submitterPodTemplate.spec.containers.0.resources": ("limits", "limit"),
    "metadata": ("annotations", "annotation"),
}


@with_crds
@pytest.mark.parametrize("place", MISSPELLED)
def test_a_misspelled_field_of_a_rayjob_is_found(
    place: str, rendered: Rendered, validators: dict[tuple[str, str], Any]
) -> None:
    job = find(rendered("cpu"), "RayJob")
    right, wrong = MISSPELLED[place]
    misspell(job, place, right, wrong)
    (fault,) = schemas.faults_of_ray(job, validators)
    assert fault.startswith(f"{place}: ") and f"'{wrong}' was unexpected" in fault


@with_crds
@pytest.mark.parametrize(
    ("place", "key", "value", "told"),
    [
        ("spec", "backoffLimit", "three", "is not of type 'integer'"),
        ("spec.rayClusterSpec.authOptions", "mode", "tokens", "is not one of ['disabled', 'token']"),
        ("spec.rayClusterSpec.headGroupSpec.template.spec.containers.0.resources.limits", "memory", "16 GB", "match"),
    ],
)
def test_a_wrong_value_in_a_rayjob_is_found(
    place: str, key: str, value: str, told: str, rendered: Rendered, validators: dict[tuple[str, str], Any]
) -> None:
    job = find(rendered("cpu"), "RayJob")
    at(job, place)[key] = value
    (fault,) = schemas.faults_of_ray(job, validators)
    assert fault.startswith(f"{place}.{key}: ") and told in fault


@with_crds
def test_what_a_rayjob_must_have_is_missed(rendered: Rendered, validators: dict[tuple[str, str], Any]) -> None:
    job = find(rendered("cpu"), "RayJob")
    del job["spec"]["rayClusterSpec"]["headGroupSpec"]
    (fault,) = schemas.faults_of_ray(job, validators)
    assert "'headGroupSpec' is a required property" in fault


@pytest.mark.parametrize(
    ("kind", "place", "right", "wrong"),
    [
        ("CronJob", "spec", "concurrencyPolicy", "concurencyPolicy"),
        ("CronJob", "spec.jobTemplate.spec.template.spec.containers.0", "volumeMounts", "volumesMounts"),
        ("PersistentVolumeClaim", "spec", "accessModes", "accessMode"),
        ("Role", "rules.0", "apiGroups", "apiGroup"),
    ],
)
def test_a_misspelled_field_of_a_core_kind_is_found(
    kind: str, place: str, right: str, wrong: str, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = find(rendered("cpu"), kind)
    misspell(manifest, place, right, wrong)
    faults = list(schemas.faults_of_core(manifest, monkeypatch))
    assert len(faults) == len(schemas.KUBERNETES) and all(wrong in fault for fault in faults)


def at(manifest: Manifest, place: str) -> Any:
    found: Any = manifest
    for part in place.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    return found


def misspell(manifest: Manifest, place: str, right: str, wrong: str) -> None:
    section = at(manifest, place)
    section[wrong] = section.pop(right)
