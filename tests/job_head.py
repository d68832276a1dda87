"""A Ray head of its own, on loopback and behind a token, to submit jobs to; and what its metrics port says."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from conftest import free_port
from driving import family, started_at

STARTS_S = 300.0
ENDS_S = 30.0
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
NOT_YET = "No available agent"  # the node is up, and its agent, which starts jobs, is not

Series = dict[tuple[str, ...], float]
"""The value of each series: its metric, and the values of its tags in their order."""


@dataclass(frozen=True)
class Ended:
    """How `ray job …` ended, and what it printed."""

    code: int
    text: str


class Head:
    """A running head. `environment` is what a command has to have to be let in."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.jobs, self.metrics = folder, free_port(), free_port()
        self.token = secrets.token_hex(32)
        (folder / "token").write_text(self.token)
        (folder / "token").chmod(0o600)
        self.environment = {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback alone
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{self.jobs}",
            "RAY_JOB_STOP_WAIT_TIME_S": "60",
            "RAY_metrics_report_interval_ms": "1000",
        }
        for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN"):
            self.environment.pop(name, None)
        ports = {name: free_port() for name in ("port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port")}
        ports |= {"runtime-env-agent-port": free_port(), "metrics-export-port": self.metrics}
        words = [f"--{name}={port}" for name, port in (ports | {"dashboard-port": self.jobs}).items()]
        where = ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}"]
        size = ["--num-cpus=4", "--object-store-memory=100000000", "--include-dashboard=true", "--disable-usage-stats"]
        self.log = folder / "head.log"
        with self.log.open("w") as out:
            start = [*RAY, "start", "--head", "--block", *words, *where, *size]
            self.process = subprocess.Popen(start, env=self.environment, stdout=out, stderr=out)

    def job(self, verb: str, *words: str, **environment: str) -> Ended:
        """Run `ray job VERB …`, with changes to the environment."""
        own = {**self.environment, **environment}
        ended = subprocess.run([*RAY, "job", verb, *words], env=own, capture_output=True, text=True, timeout=250)
        return Ended(ended.returncode, ended.stdout + ended.stderr)

    def submit(self, name: str, folder: Path, *words: str, wait: bool = True, **environment: str) -> Ended:
        """Submit `python -m alray WORDS` from this folder, its log as JSON."""
        logs = json.dumps({"env_vars": {"ALRAY_LOG_FORMAT": "json"}})
        options = ["--submission-id", name, "--working-dir", str(folder), "--runtime-env-json", logs]
        entry = [sys.executable, "-m", "alray", *words]
        return self.job("submit", *options, *([] if wait else ["--no-wait"]), "--", *entry, **environment)

    def exit_code(self, name: str) -> int:
        """Return what the job's own process ended with, which `ray job submit` does not pass on."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.jobs}/api/jobs/{name}", headers={"Authorization": f"Bearer {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(json.load(answer)["driver_exit_code"])

    def until_ready(self) -> None:
        """Return once a job can be submitted."""
        give_up = time.monotonic() + STARTS_S
        number = 0
        while True:
            assert self.process.poll() is None, self.log.read_text()
            number += 1
            options = ["--submission-id", f"ready-{number}", "--no-wait"]
            if "Ray runtime started" in self.log.read_text() and not self.job("submit", *options, "--", "true").code:
                return
            assert time.monotonic() < give_up, self.log.read_text()
            time.sleep(0.5)

    def numbers(self) -> Series:
        """Return what the metrics port says of campaigns now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=30) as answer:
            return dict(_series(answer.read().decode()))

    @contextmanager
    def watched(self) -> Iterator[Series]:
        """Yield the last value of every series, kept up as Prometheus would."""
        last: Series = {}
        ended = threading.Event()

        def look() -> None:
            while not ended.wait(0.2):
                last.update(self.numbers())

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        yield last
        time.sleep(1.0)  # what Ray reports when a driver ends is there for two seconds
        ended.set()
        thread.join()

    def end(self) -> None:
        """End the head, and whatever it started."""
        below = family(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(ENDS_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for pid, since in below.items():
            if started_at(pid) == since:
                os.kill(pid, signal.SIGKILL)


def _series(text: str) -> Iterator[tuple[tuple[str, ...], float]]:
    for line in text.splitlines():
        if found := re.fullmatch(r"ray_(alray_\w+)\{(.*)\} (\S+)", line):
            tags = dict(re.findall(r'(\w+)="([^"]*)"', found[2]))
            keys = ("run", "kind", "stage", "state")
            yield (found[1], *(tags[key] for key in keys if key in tags)), float(found[3])


@contextmanager
def started() -> Iterator[Head]:
    """Start a head; nothing of it outlives the block."""
    folder = Path(tempfile.mkdtemp(prefix="alray-"))  # not pytest's own, which is too long for the names of sockets
    head = Head(folder)
    try:
        head.until_ready()
        yield head
    finally:
        head.end()
        shutil.rmtree(folder, ignore_errors=True)
