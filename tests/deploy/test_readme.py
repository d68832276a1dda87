"""The README's commands and claims hold: ten commands, files that are there, numbers that the manifests have."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import yaml
from deploy.conftest import DEPLOY, OVERLAYS, Rendered, parsed
from deploy.kustomization import find
from deploy.test_agreement import cluster_of, settings_of

README = (DEPLOY / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = BLOCKS[0].strip().splitlines()


def test_there_are_ten_commands() -> None:
    assert len(COMMANDS) == 10
    assert [shlex.split(line)[0] for line in COMMANDS] == ["export", *["docker"] * 2, *["helm"] * 2, *["kubectl"] * 5]


def test_nothing_is_left_to_be_filled_in() -> None:
    assert not re.findall(r"\{[A-Z_]+\}", README)


def test_what_they_name_is_there() -> None:
    paths = re.findall(r"\bdeploy/[\w./-]+", " ".join(BLOCKS))
    assert len(paths) >= 3 and all((DEPLOY.parent / path).exists() for path in paths)
    files = {
        name for line in README.splitlines() if line.startswith("| `") for name in re.findall(r"`([\w.-]+/?)`", line)
    }
    for name in files & {one.name for one in DEPLOY.iterdir()}:
        assert (DEPLOY / name).exists()
    assert {"Dockerfile", "constraints.txt", "ray-cluster.yaml", "ray.env"} <= files


def test_the_build_takes_these_arguments() -> None:
    arguments = set(re.findall(r"^ARG (\w+)", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"--build-arg (\w+)=", README)) <= arguments


def test_the_image_that_is_replaced_is_the_one_that_is_there(rendered: Rendered) -> None:
    (line,) = (line for line in COMMANDS if "sed" in line)
    before = re.search(r"s\|(.*?)\|", line)
    assert before is not None and before[1] in yaml.safe_dump(rendered("cpu"))


def test_the_names_are_those_of_the_manifests(rendered: Rendered, tmp_path: Any) -> None:
    manifests = rendered("cpu")
    job = find(manifests, "RayJob")
    assert (
        f"wait rayjob/{job['metadata']['name']} " in README and f"logs --follow job/{job['metadata']['name']}" in README
    )
    assert f"--namespace {find(manifests, 'Namespace')['metadata']['name']} " in README
    assert (
        f"--container {cluster_of(manifests)['headGroupSpec']['template']['spec']['containers'][0]['name']} " in README
    )
    words = shlex.split(COMMANDS[-1].split(" -- ")[1])
    assert words[0] == "alray" and parsed(words[1:])["run"] == settings_of(manifests, tmp_path).run
    assert f"--from=cronjob/{find(manifests, 'CronJob')['metadata']['name']}" in README
    operator = re.search(r"helm install kuberay-operator .* --namespace ([\w-]+)", README)
    assert operator is not None and operator[1] in yaml.safe_dump(find(manifests, "NetworkPolicy", "alray-cluster"))


def test_the_secret_has_the_keys_that_are_read(rendered: Rendered) -> None:
    (line,) = (line for block in BLOCKS for line in block.splitlines() if "create secret" in line)
    told = set(re.findall(r"--from-literal=([\w-]+)=", line))
    assert told == set(re.findall(r"key: ([\w-]+)\n *name: alray-s3\n", yaml.safe_dump(find(rendered("s3"), "RayJob"))))


def test_it_explains_every_overlay() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", README, flags=re.MULTILINE)
    assert sorted(rows) == OVERLAYS


def test_the_numbers_are_those_of_the_manifests(rendered: Rendered) -> None:
    spec = find(rendered("gpu"), "RayJob")["spec"]
    assert spec["ttlSecondsAfterFinished"] == 10 * 60 and "ten minutes after the job has ended" in README
    assert spec["backoffLimit"] == 3 and "up to three new clusters" in README
    assert spec["activeDeadlineSeconds"] == 2 * 24 * 3600 and "ends it after two days" in README
    cronjob = find(rendered("gpu"), "CronJob")["spec"]
    assert cronjob["schedule"] == "*/10 * * * *" and "asks every\nten minutes" in README
    (container,) = cronjob["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["cpu"] == "250m" and "on a quarter of a CPU" in README


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_table_of_overlays_has_their_sizes(overlay: str, rendered: Rendered) -> None:
    (group,) = cluster_of(rendered(overlay))["workerGroupSpecs"]
    (row,) = (line for line in README.splitlines() if line.startswith(f"| `{overlay}` |"))
    each = (
        f"of {group['template']['spec']['containers'][0]['resources']['limits']['cpu']} CPUs"
        if overlay == "cpu"
        else "of a GPU"
    )
    assert f"up to {group['maxReplicas']} pods {each}" in row


def test_an_overlay_of_one_s_own_is_as_the_text_shows_it() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    told = yaml.safe_load(block)
    assert set(told) == {"resources", "namespace", "images", "configMapGenerator", "generatorOptions"}
    assert all((DEPLOY.parents[0] / path.removeprefix("alray/")).exists() for path in told["resources"])
