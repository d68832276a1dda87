"""The job's pods, made of namespaces on this machine: users, mounts, variables and commands as in the manifests.

Ray and alray are real. KubeRay's part is played here: it starts pods, and those of a new cluster when one is lost.
"""

from __future__ import annotations

import json
import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from deploy.conftest import Rendered
from deploy.kustomization import Manifest, find

from deploy import pods

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NEEDS = pods.missing() or (None if find_spec("aiohttp") else "the job API needs ray[default]")
GIVE_UP_S = 600.0


class Operator:
    """What KubeRay does for a RayJob, as far as the pods see it."""

    def __init__(
        self, job: Manifest, manifests: list[Manifest], claim: Path, network: pods.Network, logs: Path
    ) -> None:
        self._cluster, self._job, self._manifests = job["spec"]["rayClusterSpec"], job["spec"], manifests
        self._claims, self._network, self.logs = {"alray-runs": claim}, network, logs
        self._token, self._count = secrets.token_hex(16), 0
        self.running: list[pods.Pod] = []
        self.head: pods.Pod

    def pod(self, template: Manifest, **more: str) -> pods.Pod:
        self._count += 1
        scratch = self.logs / f"pod-{self._count}"
        environment = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self._token} | more
        made = pods.Pod(template["spec"], self._manifests, self._claims, self._network, scratch, environment)
        self.running.append(made)
        return made

    def start_head(self) -> None:
        group = self._cluster["headGroupSpec"]
        (step,), (container,) = (group["template"]["spec"][key] for key in ("initContainers", "containers"))
        self.head = self.pod(group["template"], RAY_ADDRESS="127.0.0.1:6379")
        assert self.head.run(step, shlex.join(step["command"]), self.logs / "init.log", GIVE_UP_S) == 0
        self._start(self.head, container, ["--head", "--no-monitor", *flags(group)], "head.log")
        asks = f"import urllib.request as u; u.urlopen('http://{self.head.address}:8265/api/gcs_healthz', timeout=5)"
        health = f'until python -c "{asks}" 2>/dev/null; do sleep 1; done'
        assert self.head.run(container, health, self.logs / "health.log", GIVE_UP_S) == 0

    def start_worker(self) -> None:
        (group,) = self._cluster["workerGroupSpecs"]
        (container,) = group["template"]["spec"]["containers"]
        cpus = container["resources"]["limits"]["cpu"]
        worker = self.pod(group["template"])
        words = [f"--address={self.head.address}:6379", f"--num-cpus={cpus}", *flags(group)]
        self._start(worker, container, words, "worker.log")

    def _start(self, pod: pods.Pod, container: Manifest, words: list[str], log: str) -> None:
        fixed = [
            f"--node-ip-address={pod.address}",
            "--metrics-export-port=8080",
            "--dashboard-agent-listen-port=52365",
        ]
        command = shlex.join(["ray", "start", "--block", *fixed, *words])
        pod.start(container, f"ulimit -n 65536; {command}", self.logs / log)

    def submit(self, name: str) -> Callable[[], str]:
        """Submit the job as the submitter's container does; return what reads its log."""
        log = self.logs / f"{name}.log"
        address, job = f"--address http://{self.head.address}:8265", f"--submission-id {name}"
        line = f"ray job submit {address} --no-wait {job} -- {self._job['entrypoint']} ; "
        line += f"ray job logs {address} --follow {name}"
        container, pod = self.submitter()
        pod.start(container, line, log)
        return lambda: log.read_text(errors="replace") if log.exists() else ""

    def submitter(self, **more: str) -> tuple[Manifest, pods.Pod]:
        template = self._job["submitterPodTemplate"]
        (container,) = template["spec"]["containers"]
        return container, self.pod(template, **more)

    def status_of(self, name: str) -> str:
        container, pod = self.submitter()
        log = self.logs / f"{name}.status"
        pod.run(container, f"ray job status --address http://{self.head.address}:8265 {name}", log)
        return log.read_text()

    def lose_everything(self) -> None:
        for pod in self.running:
            pod.kill()
        self.running.clear()


def flags(group: Manifest) -> list[str]:
    """Return `ray start`'s options of a group, as KubeRay writes them."""
    told = group["rayStartParams"].items()
    return [f"--{key}" if value == "true" else f"--{key}={value}" for key, value in told]


def until(read: Callable[[], str], pattern: str) -> str:
    give_up = time.monotonic() + GIVE_UP_S
    while not (found := re.search(pattern, read())):
        assert time.monotonic() < give_up, f"{pattern!r} never came:\n{read()[-5000:]}"
        time.sleep(0.5)
    return found[0]


@pytest.fixture
def manifests(rendered: Rendered) -> list[Manifest]:
    """The example, with a smaller campaign."""
    found = rendered("cpu")
    data = find(found, "ConfigMap", "alray-campaign")["data"]
    for before, after in (("epochs: 30", "epochs: 2"), ("total: 180", "total: 140")):
        assert before in data["campaign.yaml"]
        data["campaign.yaml"] = data["campaign.yaml"].replace(before, after)
    return found


@pytest.fixture
def operator(manifests: list[Manifest], tmp_path: Path) -> Iterator[Operator]:
    import os

    (claim := tmp_path / "claim").mkdir()
    os.chown(claim, 1000, 1000)
    with pods.Network() as network:
        made = Operator(find(manifests, "RayJob"), manifests, claim, network, tmp_path)
        yield made
        made.lose_everything()


@pytest.mark.skipif(NEEDS is not None, reason=str(NEEDS))
def test_the_example_runs_in_its_pods_and_goes_on_in_a_new_cluster(
    operator: Operator, manifests: list[Manifest], tmp_path: Path
) -> None:
    operator.start_head()
    container, stranger = operator.submitter(RAY_AUTH_TOKEN="not the token")
    address = f"--address http://{operator.head.address}:8265"
    assert stranger.run(container, f"ray job submit {address} -- true", tmp_path / "stranger.log") != 0
    assert re.search("token|Unauth", (tmp_path / "stranger.log").read_text())

    log = operator.submit("alray-first")
    until(log, "All is well")
    until(log, "start: 0 of 4 workers are here")
    operator.start_worker()
    until(log, "going on with 4 of 4 workers")
    run = tmp_path / "claim/runs/digits"
    until(lambda: str((run / "rounds/0001/picks.parquet").exists()), "True")
    before = sorted(path.name for path in (run / "answers").iterdir())
    operator.lose_everything()

    operator.start_head()
    operator.start_worker()
    log = operator.submit("alray-second")
    until(log, "is held by pid .*: waiting")
    until(log, "done: the budget is spent")
    until(lambda: operator.status_of("alray-second"), "'alray-second' succeeded")
    after = sorted(path.name for path in (run / "answers").iterdir())
    assert set(before) <= set(after)
    status = of_cronjob(operator, manifests, tmp_path)
    assert (status["state"], status["labels"], status["outstanding"]) == ("done", 140, 0)
    assert (run / "lease.json").stat().st_uid == 1000


def of_cronjob(operator: Operator, manifests: list[Manifest], folder: Path) -> dict[str, Any]:
    """Return what `alray status --json` says in the CronJob's pod."""
    template = find(manifests, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    pod = operator.pod(template)
    assert (
        pod.run(container, f"alray status {container['args'][0]} --json > /tmp/s && cat /tmp/s", folder / "json") == 0
    )
    found: dict[str, Any] = json.loads((folder / "json").read_text())
    assert pod.run(container, f"alray status {container['args'][0]} --ready", folder / "ready") == 3
    assert pod.run(container, "touch /mnt/alray/anything", folder / "touch") != 0
    return found
