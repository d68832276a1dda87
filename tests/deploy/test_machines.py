"""The cluster of plain machines: Ray's launcher takes its file, and it means what the manifests mean."""

from __future__ import annotations

import json
import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from deploy.conftest import DEPLOY

FILE = DEPLOY / "ray-cluster.yaml"


@pytest.fixture
def config() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    spec = find_spec("ray")
    assert spec is not None and spec.origin is not None
    schema = json.loads((Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text())
    assert schema["additionalProperties"] is False
    return jsonschema.Draft202012Validator(schema)


def commands(config: dict[str, Any], key: str) -> list[list[str]]:
    """Return the words of each simple command in a list of shell lines."""
    lines = [part for line in config[key] for part in re.split(r";|&&|\|\|", line)]
    return [shlex.split(line) for line in lines]


def test_ray_s_launcher_takes_it(config: dict[str, Any], validator: jsonschema.Draft202012Validator) -> None:
    assert not list(validator.iter_errors(config))


def test_a_misspelled_field_is_found(config: dict[str, Any], validator: jsonschema.Draft202012Validator) -> None:
    config["available_node_type"] = config.pop("available_node_types")
    (fault,) = validator.iter_errors(config)
    assert "'available_node_type' was unexpected" in fault.message


def test_machines_of_one_s_own_are_taken_too(validator: jsonschema.Draft202012Validator) -> None:
    from ray.autoscaler._private.local.config import prepare_local

    comment = re.search(r"# {3}(provider: .*)\n# {3}(max_workers.*)", FILE.read_text())
    assert comment is not None
    mine = yaml.safe_load(FILE.read_text())
    del mine["available_node_types"], mine["head_node_type"]
    prepared, _ = prepare_local(mine | yaml.safe_load("\n".join(comment.groups())))
    assert not list(validator.iter_errors(prepared))
    (nodes,) = prepared["available_node_types"].values()
    assert nodes["min_workers"] == nodes["max_workers"] == len(prepared["provider"]["worker_ips"]) == 2


def test_what_is_copied_is_there_and_where_the_commands_look(config: dict[str, Any]) -> None:
    mounts = dict(config["file_mounts"])
    assert mounts.pop("~/.alray/ray-token") == "~/.alray/ray-token"
    assert all((DEPLOY / source).exists() for source in mounts.values())
    used = re.findall(
        r"~/\.alray/[\w./-]+", " ".join(line for key in config if "commands" in key for line in config[key])
    )
    there = {*config["file_mounts"], "~/.alray/source", "~/.alray/venv"}
    assert used and all(any(path == one or path.startswith(f"{one}/") for one in there) for path in used)


def test_the_token_is_read_by_its_owner_alone(config: dict[str, Any]) -> None:
    assert ["chmod", "600", "~/.alray/ray-token"] in commands(config, "setup_commands")
    assert "umask 077" in FILE.read_text()
    assert not re.search(r"RAY_AUTH_TOKEN=|[0-9a-f]{32}", FILE.read_text())


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_ray_is_started_as_it_can_be_with_the_shared_settings(config: dict[str, Any], key: str) -> None:
    from ray.scripts.scripts import start

    options = {option for one in start.params for option in one.opts}
    stop, settings, limit, begin = commands(config, key)
    assert stop == ["~/.alray/venv/bin/ray", "stop"] and limit == ["ulimit", "-n", "65536"]
    assert settings == [".", "~/.alray/ray.env"] and begin[:2] == ["~/.alray/venv/bin/ray", "start"]
    assert {word.partition("=")[0] for word in begin[2:]} <= options


def test_the_head_takes_no_work_and_shows_its_dashboard_to_nobody(config: dict[str, Any]) -> None:
    begin = commands(config, "head_start_ray_commands")[-1]
    assert {"--num-cpus=0", "--num-gpus=0", "--dashboard-host=127.0.0.1", "--head"} <= set(begin)
    assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "InstanceMarketOptions" not in config["available_node_types"]["head"]["node_config"]


def test_workers_are_spot_machines_and_none_is_there_before_it_is_asked_for(config: dict[str, Any]) -> None:
    workers = config["available_node_types"]["gpu-spot"]
    assert (workers["min_workers"], workers["max_workers"], workers["resources"]["GPU"]) == (
        0,
        config["max_workers"],
        1,
    )
    assert workers["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert workers["node_config"]["MetadataOptions"]["HttpTokens"] == "required"
