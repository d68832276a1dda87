"""Manifests held against schemas that let no unknown field pass: KubeRay's from its CRDs, Kubernetes' own.

A CRD's schema is structural OpenAPI, which lets unknown fields through (the API server drops them): each object with
`properties` is closed here, and a field that the API server would fill in by a default need not be there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml
from deploy.kustomization import Manifest

KUBERNETES = ("1.30", "1.37")
"""The oldest and the newest version that the manifests are held against."""

MAPS, LISTS = ("properties", "patternProperties"), ("anyOf", "allOf", "oneOf")
KEPT = {
    "type", "enum", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern", "uniqueItems",
    "multipleOf",
}  # fmt: skip
METADATA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name"],
    "properties": {
        "name": {
            "type": "string",
            "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$",
            "maxLength": 45,
        },  # 47, with resubmit's "-9"
        "namespace": {"type": "string"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
    },
}


def of_crds(folder: Path) -> dict[tuple[str, str], jsonschema.Draft202012Validator]:
    """Return a validator of each (apiVersion, kind) that is used here, from its CRD in `folder`, as it is stored."""
    found = {}
    for file in sorted(folder.glob("*_ray[cj]*s.yaml")):  # a megabyte each
        crd = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        (version,) = (v for v in crd["versions"] if v["storage"])
        schema = closed(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {"metadata": METADATA, "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        schema["required"] = sorted({*schema["required"], "apiVersion", "kind", "metadata", "spec"})
        found[f"{crd['group']}/{version['name']}", crd["names"]["kind"]] = jsonschema.Draft202012Validator(schema)
    return found


def closed(schema: Any) -> Any:
    """Return a structural schema as JSON Schema that refuses unknown fields."""
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"], **({"pattern": schema["pattern"]} if "pattern" in schema else {})}
    out = {key: value for key, value in schema.items() if key in KEPT}
    out |= {key: {n: closed(s) for n, s in schema[key].items()} for key in MAPS if key in schema}
    out |= {key: [closed(s) for s in schema[key]] for key in LISTS if key in schema}
    out |= {key: closed(schema[key]) for key in ("items", "additionalProperties", "not") if key in schema}
    filled = {name for name, inner in schema.get("properties", {}).items() if "default" in inner}
    out["required"] = [name for name in schema.get("required", []) if name not in filled]
    if "properties" in out and not schema.get("x-kubernetes-preserve-unknown-fields"):
        out.setdefault("additionalProperties", False)
    return out


@functools.cache
def _schema_file(name: str, version: str) -> Any:
    return _read_schema_file(name, version)


_read_schema_file = kubernetes_validate.utils.schema_contents


def faults_of_core(manifest: Manifest, monkeypatch: Any) -> Iterator[str]:
    """Yield what is wrong with a manifest of Kubernetes' own kinds, in each version."""
    monkeypatch.setattr(kubernetes_validate.utils, "schema_contents", _schema_file)  # it reads a megabyte each time
    for version in KUBERNETES:
        try:
            assert kubernetes_validate.validate(manifest, version, strict=True) == version
        except kubernetes_validate.ValidationError as error:
            yield f"{version}: {'.'.join(map(str, error.absolute_path))}: {error.message}"


def faults_of_ray(manifest: Manifest, validators: dict[tuple[str, str], Any]) -> Iterator[str]:
    """Yield what is wrong with a manifest of KubeRay's kinds."""
    for error in validators[manifest["apiVersion"], manifest["kind"]].iter_errors(manifest):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
