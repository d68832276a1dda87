"""Submit a campaign's job again once its run would get further: what a CronJob does while people label.

    python resubmit.py RUN JOB

Exit codes: 0 a job was submitted, or none is due; 1 something stands in the way, and the message says what. The API
server is asked with the standard library alone, as the service account that is mounted: it may list and create RayJobs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
ENDED = ("Complete", "Failed", "ValidationFailed")
NOT_READY = 3
"""What `alray status --ready` exits with when running the campaign again would get no further."""

FAILURES = 3
"""Jobs in a row that may fail before a person is asked to look: each may have paid for workers."""

QUEUE = "kueue.x-k8s.io/queue-name"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
NAME_LENGTH = 47
"""KubeRay refuses longer names."""

TIMEOUT_S = 30.0


class Refusal(Exception):
    """Something stands in the way; the message says what, and what to do."""


class RayJobs:
    """The RayJobs of one namespace, by the API server at `server`, as the service account in the folder `account`."""

    def __init__(self, server: str, account: Path) -> None:
        namespace = (account / "namespace").read_text().strip()
        self.url = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self._token = (account / "token").read_text().strip()
        context = ssl.create_default_context(cafile=str(account / "ca.crt"))
        # No proxy of the environment's: the token is for the API server.
        self._open = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        ).open

    def list(self) -> list[dict[str, Any]]:
        """Return all of them."""
        items: list[dict[str, Any]] = self._ask(None)["items"]
        return items

    def create(self, job: dict[str, Any]) -> bool:
        """Create one; False where its name is taken."""
        try:
            self._ask(json.dumps(job).encode())
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            return False
        return True

    def _ask(self, body: bytes | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        request = urllib.request.Request(self.url, data=body, headers=headers)
        with self._open(request, timeout=TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
        return found


def submissions(jobs: list[dict[str, Any]], name: str) -> dict[int, dict[str, Any]]:
    """Return the job `name` as 1, and `name-2`, `name-3`, … by their numbers, in order."""
    found = {}
    for job in jobs:
        if match := re.fullmatch(rf"{re.escape(name)}(?:-([1-9][0-9]*))?", job["metadata"]["name"]):
            found[int(match[1] or 1)] = job
    return dict(sorted(found.items()))


def state(job: dict[str, Any]) -> str:
    """Return how far KubeRay is with a job; "" before it has seen it."""
    return str(job.get("status", {}).get("jobDeploymentStatus", ""))


def again(job: dict[str, Any], name: str, number: int) -> dict[str, Any]:
    """Return the job to create, as `job` was asked for."""
    meta = job["metadata"]
    notes = {key: value for key, value in meta.get("annotations", {}).items() if key != LAST_APPLIED}
    labels = meta.get("labels", {})
    spec = {key: value for key, value in job["spec"].items() if key not in ("jobId", "suspend")}
    if QUEUE in labels:
        spec["suspend"] = True  # Kueue lifts it when there is room
    metadata = {"name": f"{name}-{number}", "labels": labels, "annotations": notes}
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}


def resubmit(api: RayJobs, run: str, name: str) -> str:
    """Submit the job again if none is under way and the run would get further; return what was done, in words."""
    found = submissions(api.list(), name)
    if 1 not in found:
        raise Refusal(f"there is no RayJob {name} to repeat. Apply it again, or suspend this CronJob.")
    if under_way := [job["metadata"]["name"] for job in found.values() if state(job) not in ENDED]:
        return f"{', '.join(under_way)} is under way."
    code = subprocess.run([sys.executable, "-m", "alray", "status", run, "--ready"]).returncode
    if code == NOT_READY:
        return f"{run} would get no further."
    if code:
        raise Refusal(f"`alray status {run} --ready` ended with {code}; what it said stands above.")
    last = list(found.values())[-FAILURES:]
    if len(last) == FAILURES and all(state(job) != "Complete" for job in last):
        names = " ".join(job["metadata"]["name"] for job in last)
        raise Refusal(
            f"the last {FAILURES} jobs failed ({names}), and each may have paid for workers. See what "
            "`kubectl describe rayjob` says of them; delete the last one when that is put right."
        )
    number = max(found) + 1
    job = again(found[1], name, number)
    if len(job["metadata"]["name"]) > NAME_LENGTH:
        raise Refusal(
            f"{job['metadata']['name']} is longer than {NAME_LENGTH} characters: give the RayJob a shorter name."
        )
    created = api.create(job)
    return f"{name}-{number} was submitted." if created else f"{name}-{number} was submitted by another."


def server() -> str:
    """Return the API server's address, as every pod is told it."""
    names = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")
    if missing := [name for name in names if not os.environ.get(name)]:
        raise Refusal(f"{' and '.join(missing)} must be set, as in every pod: this runs in a cluster's CronJob.")
    host, port = (os.environ[name] for name in names)
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def main(words: list[str] | None = None) -> int:
    """Do it; return the exit code."""
    parser = argparse.ArgumentParser(description="Submit a campaign's job again once its run would get further.")
    parser.add_argument("run", metavar="RUN", help="folder or URI of the run")
    parser.add_argument("job", metavar="JOB", help="name of the RayJob to repeat")
    asked = parser.parse_args(words)
    try:
        print(f"resubmit: {resubmit(RayJobs(server(), Path(ACCOUNT)), asked.run, asked.job)}", flush=True)
    except Refusal as refusal:
        print(f"resubmit: {refusal}", file=sys.stderr, flush=True)
        return 1
    except urllib.error.HTTPError as error:
        said = error.read(2000).decode(errors="replace")
        print(f"resubmit: the API server answered {error.code} to {error.url}: {said}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        print(f"resubmit: the API server cannot be reached: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
