"""Render a kustomization in Python: the part of kustomize that `deploy/kubernetes` uses, and an error for any other.

So the manifests are tested where no kustomize is. Where there is one, `test_kustomization.py` holds the two against
each other.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]

KEYS = {
    "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "generatorOptions", "patches",
    "replacements", "images",
}  # fmt: skip
CLUSTER_WIDE = {"Namespace"}


def render(folder: Path) -> list[Manifest]:
    """Return what `kubectl kustomize FOLDER` prints, in any order."""
    return _built([], folder)


def read_all(path: Path) -> list[Any]:
    """Return the documents of a YAML file, each alias a copy of what it stands for."""
    return [json.loads(json.dumps(one)) for one in yaml.safe_load_all(path.read_text()) if one is not None]


def find(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """Return the one manifest of this kind and name."""
    (one,) = (m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"]))
    return one


def _built(found: list[Manifest], folder: Path) -> list[Manifest]:
    """Return `found` and what the kustomization in `folder` adds, changed as it says."""
    (told,) = read_all(folder / "kustomization.yaml")
    if unknown := set(told) - KEYS:
        raise NotImplementedError(f"{folder}: {', '.join(sorted(unknown))}")
    for name in told.get("resources", []):
        place = folder / name
        found += _built([], place) if place.is_dir() else read_all(place)
    for name in told.get("components", []):
        found = _built(found, folder / name)
    for one in told.get("configMapGenerator", []):
        _generate(found, one, folder, told.get("generatorOptions", {}))
    for one in told.get("patches", []):
        found = _patched(found, one, folder)
    if "namespace" in told:
        for manifest in found:
            _place(manifest, told["namespace"])
    for one in told.get("images", []):
        _rename(found, one)
    for one in told.get("replacements", []):
        _replace(found, one)
    return found


def _generate(found: list[Manifest], told: dict[str, Any], folder: Path, options: dict[str, Any]) -> None:
    if options != {"disableNameSuffixHash": True} and told.get("behavior") != "replace":
        raise NotImplementedError(f"generatorOptions {options}")
    data = {Path(name).name: (folder / name).read_text() for name in told["files"]}
    if told.get("behavior") == "replace":
        find(found, "ConfigMap", told["name"])["data"] = data
        return
    found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": told["name"]}, "data": data})


def _patched(found: list[Manifest], told: dict[str, Any], folder: Path) -> list[Manifest]:
    text = told["patch"] if "patch" in told else (folder / told["path"]).read_text()
    patch = yaml.safe_load(text)
    chosen = [manifest for manifest in found if _selects(told["target"], manifest)]
    if isinstance(patch, dict):
        if patch.get("$patch") != "delete":
            raise NotImplementedError("a strategic merge")
        return [manifest for manifest in found if manifest not in chosen]
    for manifest in chosen:
        for step in patch:
            apply(manifest, step)
    return found


def _selects(target: dict[str, str], manifest: Manifest) -> bool:
    if set(target) - {"kind", "name"}:
        raise NotImplementedError(f"target {target}")
    values = {"kind": manifest["kind"], "name": manifest["metadata"]["name"]}
    return all(re.fullmatch(pattern, values[key]) for key, pattern in target.items())


def apply(manifest: Manifest, step: dict[str, Any]) -> None:
    """Apply one step of a JSON patch (RFC 6902)."""
    *parents, last = (part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:])
    at: Any = manifest
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    key: Any = (len(at) if last == "-" else int(last)) if isinstance(at, list) else last
    value, there = copy.deepcopy(step.get("value")), key < len(at) if isinstance(at, list) else key in at
    verb = step["op"]
    if verb == "add":
        at.insert(key, value) if isinstance(at, list) else at.__setitem__(key, value)
    elif not there:
        raise KeyError(f"{verb} {step['path']}: there is nothing")
    elif verb == "replace":
        at[key] = value
    elif verb == "remove":
        del at[key]
    elif verb == "test":
        if at[key] != value:
            raise ValueError(f"test {step['path']}: {at[key]!r} is not {value!r}")
    else:
        raise NotImplementedError(verb)


def _place(manifest: Manifest, namespace: str) -> None:
    if manifest["kind"] in CLUSTER_WIDE:
        manifest["metadata"]["name"] = namespace
    else:
        manifest["metadata"]["namespace"] = namespace
    for subject in manifest.get("subjects", []):
        if subject["kind"] == "ServiceAccount":
            subject["namespace"] = namespace


def _rename(found: list[Manifest], told: dict[str, str]) -> None:
    for container in containers(found):
        name, _, tag = container["image"].partition(":")
        if name == told["name"]:
            end = f"@{told['digest']}" if "digest" in told else f":{told.get('newTag', tag)}"
            container["image"] = told.get("newName", name) + end


def containers(at: Any) -> Iterator[dict[str, Any]]:
    """Yield every container anywhere below, init containers too."""
    if isinstance(at, list):
        for one in at:
            yield from containers(one)
    elif isinstance(at, dict):
        for key, value in at.items():
            if key in ("containers", "initContainers"):
                yield from value
            yield from containers(value)


def _replace(found: list[Manifest], told: dict[str, Any]) -> None:
    source = told["source"]
    value: Any = find(found, source["kind"], source["name"])
    for part in source["fieldPath"].split("."):
        value = value[part]
    for target in told["targets"]:
        into = find(found, target["select"]["kind"], target["select"]["name"])
        for path in target["fieldPaths"]:
            if "." in path:
                raise NotImplementedError(path)
            into[path] = copy.deepcopy(value)
