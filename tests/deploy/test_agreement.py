"""The manifests and the code mean the same: versions, commands, paths, ports, variables; and what no schema can say."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from deploy.conftest import DEPLOY, OVERLAYS, Rendered
from deploy.kustomization import Manifest, containers, find

from alray import config
from alray.campaign.settings import Settings
from alray.runtime import RuntimeConfig, ray_cluster

PROJECT = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]
JOBS = [name for name in OVERLAYS if name != "cluster"]
HALF_A_MINUTE_MS = 30_000
CAMPAIGN, START = "/etc/alray/campaign.yaml", "/etc/alray/start.py"


def cluster_of(manifests: list[Manifest]) -> Manifest:
    """Return the RayCluster's spec, wherever it is."""
    kinds = {one["kind"]: one for one in manifests}
    return kinds["RayCluster"]["spec"] if "RayCluster" in kinds else kinds["RayJob"]["spec"]["rayClusterSpec"]


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return every pod template by its part: head, worker, submitter, resubmit."""
    cluster, kinds = cluster_of(manifests), {one["kind"]: one for one in manifests}
    (group,) = cluster["workerGroupSpecs"]
    found = {"head": cluster["headGroupSpec"]["template"], "worker": group["template"]}
    if "RayJob" in kinds:
        found["submitter"] = kinds["RayJob"]["spec"]["submitterPodTemplate"]
        found["resubmit"] = kinds["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]
    return found


def settings_of(manifests: list[Manifest], folder: Path) -> Settings:
    (folder / "campaign.yaml").write_text(find(manifests, "ConfigMap", "alray-campaign")["data"]["campaign.yaml"])
    return config.load(str(folder / "campaign.yaml"), [], Settings)


def gibibytes(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"Mi": 2**-10, "Gi": 1.0}[unit]


# What runs


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_image_is_this_version(overlay: str, rendered: Rendered) -> None:
    images = {one["image"] for one in containers(rendered(overlay))}
    assert images == {f"alray:{PROJECT['version']}"}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_is_that_of_the_image(overlay: str, rendered: Rendered) -> None:
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", (DEPLOY / "constraints.txt").read_text(), flags=re.MULTILINE))
    assert cluster_of(rendered(overlay))["rayVersion"] == pinned["ray"] == version("ray")


@pytest.mark.parametrize("overlay", JOBS)
def test_the_entrypoint_is_one_plain_command_that_the_scripts_take(
    overlay: str, rendered: Rendered, script: Any
) -> None:
    manifests = rendered(overlay)
    entrypoint = find(manifests, "RayJob")["spec"]["entrypoint"]
    assert re.fullmatch(r"[\w./ -]+", entrypoint), "KubeRay puts it into a shell line of the submitter's"
    python, file, *words = shlex.split(entrypoint)
    asked = script("start")._parse(words)
    gpus = {"cpu": 0.0}.get(overlay, 1.0)
    assert (python, file, asked.config, asked.settings, asked.gpus) == ("python", START, CAMPAIGN, [], gpus)
    sources = mounted(pods(manifests)["head"])["/etc/alray"]["projected"]["sources"]
    files = [name for one in sources for name in find(manifests, "ConfigMap", one["configMap"]["name"])["data"]]
    assert {Path(START).name, Path(CAMPAIGN).name} <= set(files) and len(set(files)) == len(files)


def test_the_entry_command_of_every_container_is_there(rendered: Rendered) -> None:
    assert PROJECT["scripts"] == {"alray": "alray.cli.app:main"}
    (cronjob,) = pods(rendered("cpu"))["resubmit"]["spec"]["containers"]
    assert cronjob["command"] == ["python", "/etc/alray/resubmit.py"] and len(cronjob["args"]) == 2


def test_the_digits_are_written_where_the_campaign_reads_them(rendered: Rendered, tmp_path: Path) -> None:
    manifests = rendered("cpu")
    (step,) = pods(manifests)["head"]["spec"]["initContainers"]
    python, option, program = step["command"]
    assert (python, option) == ("python", "-c")
    exec(program.replace("/mnt/alray", str(tmp_path / "volume")))
    told = find(manifests, "ConfigMap", "alray-campaign")["data"]["campaign.yaml"]
    files = set(re.findall(r"/mnt/alray/(digits/\w+\.parquet)", told))
    assert len(files) == 3 and all((tmp_path / "volume" / name).exists() for name in files)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_starts_with_these_parameters(overlay: str, rendered: Rendered) -> None:
    from ray.scripts.scripts import start

    options = {option.removeprefix("--") for one in start.params for option in one.opts}
    cluster = cluster_of(rendered(overlay))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        assert group["rayStartParams"].keys() <= options
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


# Where it is


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_campaign_loads_and_every_place_in_it_is_one_that_all_pods_reach(
    overlay: str, rendered: Rendered, tmp_path: Path
) -> None:
    manifests = rendered(overlay)
    settings = settings_of(manifests, tmp_path)
    assert settings.test is not None
    places = [settings.run, settings.pool.path, settings.test.path, settings.test.labels, settings.features.path]
    places += [getattr(settings.labeller, "path", None), settings.labels]
    volumes = [mounted(pods(manifests)[part]).get("/mnt/alray") for part in ("head", "worker")]
    for place in filter(None, places):
        if overlay == "s3":
            assert place.startswith("s3://your-bucket/")
        else:
            assert place.startswith("/mnt/alray/")
    claim = {"persistentVolumeClaim": {"claimName": "alray-runs"}, "name": "runs"}
    assert volumes == ([None, None] if overlay == "s3" else [claim, claim])
    claims = [one["metadata"]["name"] for one in manifests if one["kind"] == "PersistentVolumeClaim"]
    assert claims == ([] if overlay == "s3" else ["alray-runs"])


@pytest.mark.parametrize("overlay", JOBS)
def test_the_cronjob_asks_about_this_run_and_repeats_this_job(overlay: str, rendered: Rendered, tmp_path: Path) -> None:
    manifests = rendered(overlay)
    template = pods(manifests)["resubmit"]
    (container,) = template["spec"]["containers"]
    assert container["args"] == [settings_of(manifests, tmp_path).run, find(manifests, "RayJob")["metadata"]["name"]]
    if overlay != "s3":
        (mount,) = (one for one in container["volumeMounts"] if one["mountPath"] == "/mnt/alray")
        assert mount == {"name": "runs", "mountPath": "/mnt/alray", "readOnly": True}
    assert not any("gpu" in name for name in container["resources"]["limits"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_workers_have_room_and_none_is_there_before_it_is_asked_for(
    overlay: str, rendered: Rendered, tmp_path: Path
) -> None:
    manifests = rendered(overlay)
    runtime = settings_of(manifests, tmp_path).runtime
    assert (runtime.name, runtime.address, runtime.insecure) == ("ray", "auto", False)
    (group,) = cluster_of(manifests)["workerGroupSpecs"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    room = int(limits["cpu"]) if overlay == "cpu" else int(limits["nvidia.com/gpu"])
    assert runtime.workers <= group["maxReplicas"] * room
    counts = (group["replicas"], group["minReplicas"], group["maxReplicas"])
    assert counts == ((8, 8, 8) if overlay == "kueue" else (0, 0, 8))


# Variables


RAY_SOURCES = (
    "_common/usage/usage_constants.py",
    "dashboard/modules/job/job_supervisor.py",
    "train/v2/_internal/constants.py",
)
OTHERS = ("torch/hub.py", "botocore/utils.py", "botocore/credentials.py")


def variables(manifests: list[Manifest]) -> Iterator[dict[str, Any]]:
    for container in containers(manifests):
        yield from container.get("env", [])


def source(file: str) -> Path:
    package, _, inner = file.partition("/")
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / inner


def unread(names: set[str]) -> set[str]:
    """Return the variables that no program here reads: Ray's own settings are names in its library, without `RAY_`."""
    files = [*(source(f"ray/{name}") for name in RAY_SOURCES), *map(source, OTHERS)]
    files += [DEPLOY.parent / f"alray/{name}.py" for name in ("storage/clients", "cli/app")]
    quoted = set(re.findall(r"""["']([A-Z][A-Za-z0-9_]+)["']""", "".join(file.read_text() for file in files)))
    settings = {name for name in names if name.startswith("RAY_") and name[4:].islower()}
    compiled = source("ray/_raylet.so").read_bytes()
    return {name for name in names - settings if name not in quoted} | {
        name for name in settings if not has_word(compiled, name[4:].encode())
    }


def has_word(data: bytes, word: bytes) -> bool:
    at, part = data.find(word), b"abcdefghijklmnopqrstuvwxyz_"
    while at >= 0:
        if data[at - 1 : at] not in part and data[at + len(word) : at + len(word) + 1] not in part:
            return True
        at = data.find(word, at + 1)
    return False


def test_every_variable_is_read_by_alray_or_ray_or_what_they_stand_on(rendered: Rendered) -> None:
    names = {one["name"] for overlay in OVERLAYS for one in variables(rendered(overlay))}
    names |= environment_file().keys() - {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH"}  # Ray's compiled code reads these
    assert len(names) >= 14 and not unread(names)


def test_a_variable_that_nothing_reads_is_found() -> None:
    wrong = {"RAY_grpc_client_keepalive_time", "RAY_health_check_period", "RAY_TRAIN_WORKER_START_TIMEOUT_S", "AWS_KEY"}
    assert unread(wrong | {"RAY_health_check_period_ms", "AWS_REGION"}) == wrong


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_head_and_workers_have_the_settings_that_alray_ships(
    overlay: str, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.environ", shipped := {"RAY_AUTH_MODE": "token"})
    ray_cluster.prepare_environment(RuntimeConfig())
    cut = {name: value for name, value in shipped.items() if "keepalive" in name or "USAGE" in name}
    assert len(cut) == 3
    templates = pods(rendered(overlay))
    of_part = {part: {one["name"]: one.get("value") for one in env(templates[part])} for part in ("head", "worker")}
    told = of_part["head"]
    assert told == of_part["worker"] and cut.items() <= told.items()
    assert sum(int(value) for name, value in cut.items() if "keepalive" in name) <= HALF_A_MINUTE_MS
    period, wait, times = (
        int(told[f"RAY_health_check_{name}"]) for name in ("period_ms", "timeout_ms", "failure_threshold")
    )
    assert times * (period + wait) <= HALF_A_MINUTE_MS


def test_plain_machines_have_the_settings_of_the_pods(rendered: Rendered) -> None:
    told = {one["name"]: one["value"] for one in env(pods(rendered("cpu"))["head"]) if one["name"].startswith("RAY_")}
    of_file = environment_file()
    assert of_file.pop("RAY_AUTH_MODE") == "token" and of_file.pop("RAY_AUTH_TOKEN_PATH") == '"$HOME/.alray/ray-token"'
    assert of_file == told


def env(template: Manifest) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = template["spec"]["containers"][0]["env"]
    return found


def environment_file() -> dict[str, str]:
    return dict(re.findall(r"^export (\w+)=(\S+)", (DEPLOY / "ray.env").read_text(), flags=re.MULTILINE))


# What no schema says


@pytest.mark.parametrize("overlay", JOBS)
def test_kuberay_would_not_refuse_the_job(overlay: str, rendered: Rendered) -> None:
    job = find(rendered(overlay), "RayJob")
    spec, cluster = job["spec"], job["spec"]["rayClusterSpec"]
    assert len(job["metadata"]["name"]) + len("-999") <= 47
    assert spec["shutdownAfterJobFinishes"] and spec["ttlSecondsAfterFinished"] > 0 and spec["backoffLimit"] > 0
    assert "entrypointNumCpus" not in spec, "the driver belongs on the head"
    assert spec["activeDeadlineSeconds"] > spec["preRunningDeadlineSeconds"]
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52, 0) and cluster["authOptions"] == {
        "mode": "token"
    }
    assert bool(spec.get("suspend")) == (overlay == "kueue")
    for part in ("head", "worker", "submitter"):
        assert pods(rendered(overlay))[part]["spec"]["restartPolicy"] == "Never"
    if overlay != "kueue":
        assert cluster["enableInTreeAutoscaling"] and cluster["autoscalerOptions"]["version"] == "v2"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_mount_has_its_volume_and_every_volume_its_source(overlay: str, rendered: Rendered) -> None:
    manifests = rendered(overlay)
    maps = {one["metadata"]["name"] for one in manifests if one["kind"] == "ConfigMap"} | {"kube-root-ca.crt"}
    extra = cluster_of(manifests).get("autoscalerOptions", {}).get("volumeMounts", [])
    for part, template in pods(manifests).items():
        names = {one["name"] for one in template["spec"]["volumes"]}
        mounts = [one for container in containers([template]) for one in container["volumeMounts"]]
        used = {one["name"] for one in mounts + (extra if part == "head" else [])}
        assert used <= names and names - used <= ({"token"} if overlay == "kueue" else set())
        for volume in template["spec"]["volumes"]:
            for one in volume.get("projected", {}).get("sources", []):
                assert one.get("configMap", {"name": "kube-root-ca.crt"})["name"] in maps


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_object_store_has_its_memory(overlay: str, rendered: Rendered) -> None:
    cluster = cluster_of(rendered(overlay))
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        store = int(group["rayStartParams"]["object-store-memory"]) / 2**30
        shared = mounted(group["template"])["/dev/shm"]["emptyDir"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert shared["medium"] == "Memory" and store < gibibytes(shared["sizeLimit"]) < gibibytes(limits["memory"]) / 2
        assert "/tmp/ray" in mounted(group["template"]), "what spills needs a disk"


def mounted(template: Manifest) -> dict[str, Manifest]:
    """Return the volume at each path of a pod's first container."""
    volumes = {one["name"]: one for one in template["spec"]["volumes"]}
    return {one["mountPath"]: volumes[one["name"]] for one in template["spec"]["containers"][0]["volumeMounts"]}


def test_gpu_workers_are_on_spot_machines_and_the_head_is_not(rendered: Rendered) -> None:
    templates = pods(rendered("gpu"))
    wanted = {part: terms(templates[part]) for part in ("head", "worker")}
    (none_of,) = wanted["head"]
    assert {one["operator"] for one in none_of} == {"NotIn"} and len(none_of) == len(wanted["worker"])
    of_head = {(one["key"], *one["values"]) for one in none_of}
    assert of_head == {(one["key"], *one["values"]) for (one,) in wanted["worker"] if one["operator"] == "In"}
    resources = templates["worker"]["spec"]["containers"][0]["resources"]
    assert resources["requests"] == resources["limits"] and resources["limits"]["nvidia.com/gpu"] == "1"
    assert cluster_of(rendered("gpu"))["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster_of(rendered("gpu"))["workerGroupSpecs"][0]["rayStartParams"]["num-gpus"] == "1"
    assert "ephemeral" in mounted(templates["worker"])["/tmp/ray"]


def terms(template: Manifest) -> list[list[dict[str, Any]]]:
    affinity = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return [term["matchExpressions"] for term in affinity["nodeSelectorTerms"]]


def test_kueue_admits_a_cluster_of_a_fixed_size(rendered: Rendered) -> None:
    job = find(rendered("kueue"), "RayJob")
    assert job["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "alray"} and job["spec"]["suspend"]
    assert job["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is False
    assert "autoscalerOptions" not in job["spec"]["rayClusterSpec"]


def test_the_cluster_that_stays_is_that_of_the_job(rendered: Rendered) -> None:
    manifests = rendered("cluster")
    assert find(manifests, "RayCluster")["spec"] == find(rendered("gpu"), "RayJob")["spec"]["rayClusterSpec"]
    assert not {"RayJob", "CronJob", "Role", "RoleBinding"} & {one["kind"] for one in manifests}


# Security


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_container_is_restricted_and_limited(overlay: str, rendered: Rendered) -> None:
    manifests = rendered(overlay)
    assert find(manifests, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for template in pods(manifests).values():
        context = template["spec"]["securityContext"]
        assert context["runAsNonRoot"] and context["runAsUser"] == context["fsGroup"] == 1000
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(manifests):
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]} and context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert {"cpu", "memory"} <= container["resources"]["requests"].keys() & container["resources"]["limits"].keys()
    if overlay != "kueue":
        sidecar = cluster_of(manifests)["autoscalerOptions"]
        assert sidecar["securityContext"]["capabilities"] == {"drop": ["ALL"]} and sidecar["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_only_referred_to(overlay: str, rendered: Rendered) -> None:
    manifests = rendered(overlay)
    assert not any(one["kind"] == "Secret" for one in manifests)
    secret = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
    told = list(variables(manifests))
    assert not [one["name"] for one in told if secret.search(one["name"]) and "value" in one]
    references = {one["name"]: one["valueFrom"]["secretKeyRef"]["name"] for one in told if "valueFrom" in one}
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL_S3")
    assert references == (dict.fromkeys(names, "alray-s3") if overlay == "s3" else {})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_only_autoscaler_and_cronjob_hold_a_token_of_the_api_server(overlay: str, rendered: Rendered) -> None:
    manifests = rendered(overlay)
    accounts = {one["metadata"]["name"]: one for one in manifests if one["kind"] == "ServiceAccount"}
    assert all(one["automountServiceAccountToken"] is False for one in accounts.values())
    for part, template in pods(manifests).items():
        assert template["spec"]["serviceAccountName"] in accounts
        assert template["spec"]["automountServiceAccountToken"] is (part == "resubmit")
        assert all(one["name"] != "token" for box in containers([template]) for one in box["volumeMounts"])


def test_the_cronjob_may_list_and_create_rayjobs_and_nothing_else(rendered: Rendered) -> None:
    manifests = rendered("cpu")
    assert find(manifests, "Role")["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["list", "create"]}
    ]
    binding = find(manifests, "RoleBinding")
    assert binding["roleRef"]["name"] == find(manifests, "Role")["metadata"]["name"]
    (subject,) = binding["subjects"]
    assert subject["name"] == pods(manifests)["resubmit"]["spec"]["serviceAccountName"]
    assert subject["namespace"] == find(manifests, "CronJob")["metadata"]["namespace"]
