"""A campaign on several hosts, one of which is cut off in the middle of a scan: the ledger of an undisturbed one."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import campaigns
import hosts
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from driving import command, state_of
from hosts import Host, until

ROWS, DIM, CLASSES = 60_000, 32, 10
BUCKET = "s3://alray-hosts"
RAYLET = "/raylet/raylet "
RUN = [sys.executable, "-m", "alray", "run"]
SOONER = {"RAY_health_check_period_ms": "1000", "RAY_health_check_timeout_ms": "3000"}
"""A lost machine is given up after 12 seconds; with the settings that are shipped, after 30."""

WAIT = """
import sys
import faults
from alray.runtime import RuntimeConfig, open_runtime
with open_runtime(RuntimeConfig(address=sys.argv[1], workers=2)) as runtime:
    assert runtime.map(faults.wait_for_go, [0, 1], sys.argv[2], stage="wait") == [0, 1]
"""
"""Waits for two tasks, one on each host. Only this needs the keepalive: of an actor's end Ray tells by itself."""


@dataclass
class Cluster:
    """A Ray head without CPUs, two workers and an S3 server, each on a host of its own; a campaign; and a clock."""

    head: Host
    steady: Host
    lost: Host
    store: Host
    folder: Path
    requests: Path = Path()  # the S3 server's log
    words: tuple[str, ...] = ()  # that run the campaign
    began: float = field(default_factory=time.monotonic)

    @property
    def where(self) -> str:
        return f"{self.head.address}:{hosts.PORT}"

    def start(self) -> None:
        """Start everything, the campaign excepted."""
        self.words = (*RUN, str(write(self.folder, self.where)))
        self.head.ray("--head", f"--port={hosts.PORT}", "--num-cpus=0", "--include-dashboard=false")
        self.requests = self.store.serve_s3()
        self.store.put(self.folder / "data", BUCKET)
        self.head.until_ray()
        for worker in (self.steady, self.lost):
            self.join(worker)
        for worker in (self.steady, self.lost):
            worker.until_ray()
        self.say(f"head on {self.head.address}, workers on {self.steady.address} and {self.lost.address}")
        self.say(f"S3 on {self.store.address}")

    def join(self, worker: Host) -> None:
        worker.ray(f"--address={self.where}", "--num-cpus=3")

    def written(self, name: str) -> bool:
        """Whether the S3 server was sent a file whose name ends so."""
        return re.search(rf"PUT \S+{re.escape(name)} ", self.requests.read_text()) is not None

    def say(self, what: str) -> None:
        print(f"[{time.monotonic() - self.began:5.1f}] {what}", flush=True)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start a cluster on four hosts, or skip where there can be none."""
    if (reason := hosts.refused()) is not None:
        pytest.skip(reason)
    print()
    with hosts.hosts(4, **SOONER) as found:
        one = Cluster(*found, tmp_path_factory.mktemp("hosts"))
        one.start()
        yield one


def write(folder: Path, address: str) -> Path:
    """Write the pool and the oracle into a folder of their own, and the settings of a campaign; return these."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, CLASSES, ROWS)
    x_ND = (rng.normal(size=(CLASSES, DIM))[label_N] + rng.normal(size=(ROWS, DIM))).astype(np.float16)
    features = pa.FixedSizeListArray.from_arrays(pa.array(x_ND.ravel()), DIM)
    ids = [f"row-{n:05d}" for n in range(ROWS)]
    (folder / "data").mkdir()
    pq.write_table(pa.table({"id": ids, "features": features}), folder / "data/pool.parquet", row_group_size=4096)
    pq.write_table(pa.table({"id": ids, "label": [f"class-{c}" for c in label_N]}), folder / "data/oracle.parquet")
    settings = {
        "run": f"{BUCKET}/run",
        "pool": {"path": f"{BUCKET}/pool.parquet", "rows_per_shard": 4096},
        "strategy": "alfa_mix",
        "selection": {"regime": "coreset"},
        "budget": {"initial": 30, "per_round": 20, "total": 50},
        "labeller": {"name": "oracle", "path": f"{BUCKET}/oracle.parquet"},
        "costs": {"label": 0.1, "cpu_hour": 1.0},
        "runtime": {"name": "ray", "address": address, "workers": 2},
    }
    (folder / "campaign.yaml").write_text(yaml.safe_dump(settings))
    return folder / "campaign.yaml"


def at_a_call(pid: int) -> str | None:
    """Return which call of a shard actor a process is at, as Ray puts it into its command line."""
    name = command(pid).strip()
    return name if name.startswith("ray::Host.") else None


def stop_at_a_call(pid: int) -> str:
    """Stop a shard actor while it is at a call, and return which."""
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        if not at_a_call(pid):
            time.sleep(0.001)
            continue
        os.kill(pid, signal.SIGSTOP)
        while state_of(pid) != "T":
            time.sleep(0.001)
        if call := at_a_call(pid):
            return call
        os.kill(pid, signal.SIGCONT)  # the call has just ended
    raise AssertionError(f"process {pid} was never at a call")


def cut_in_mid_scan(cluster: Cluster, driver: subprocess.Popen[bytes], log: Path) -> float:
    """Cut the link of a host whose shard actor is at a call of round 1; return when."""
    lost = cluster.lost
    until(lambda: cluster.written("-0001-select.start.json"), log.read_text, driver)
    actors = lost.processes("ray::Host")
    assert len(actors) == 1, f"shard actors of {lost.address}: {actors}; each worker should have one"
    call = stop_at_a_call(actors[0])
    lost.cut()
    os.kill(actors[0], signal.SIGCONT)  # it works on, and nobody hears of it
    assert not cluster.written("rounds/0001/picks.parquet"), "the scan was over already"
    cluster.say(f"link of {lost.address} cut, its worker {actors[0]} is at {call}")
    return time.monotonic()


def bring_back(cluster: Cluster) -> None:
    """Mend the link, and start the worker again, whose Ray has ended: it was given up."""
    lost, mended = cluster.lost, time.monotonic()
    lost.mend()
    until(lambda: not lost.processes(RAYLET), lambda: "the raylet behind the cut link lives on")
    cluster.say(f"link back; the raylet of {lost.address} ended by itself after {time.monotonic() - mended:.1f} s")
    lost.end()
    cluster.join(lost)
    lost.until_ray(2)
    cluster.say(f"worker on {lost.address} again")


def wait_on_the_host_to_lose(cluster: Cluster) -> subprocess.Popen[bytes]:
    """Start another driver, and return it when the host that will be cut off has one of its two tasks."""
    folder, log = cluster.folder, cluster.folder / "waiting.log"
    driver = cluster.head.start([sys.executable, "-c", WAIT, cluster.where, str(folder)], log)
    here = cluster.lost.processes
    until(lambda: any((folder / f"at-{pid}").exists() for pid in here("ray::call")), log.read_text, driver)
    cluster.say(f"a task of another driver is on {cluster.lost.address}")
    return driver


def ledger(host: Host, uri: str, folder: Path) -> dict[str, Any]:
    host.get(uri, folder)
    return campaigns.ledger(folder)


def picks(found: dict[str, Any]) -> str:
    return " ".join(one["picks_digest"] for one in found["rounds"])


def scan_seconds(run: Path, number: int) -> float:
    """Return how long the selection of a round took."""
    [file] = run.glob(f"costs/*-{number:04d}-select.json")
    return float(json.loads(file.read_text())["seconds"])


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_without_a_token_a_cluster_on_another_host_is_refused(cluster: Cluster) -> None:
    log = cluster.folder / "refused.log"
    stranger = cluster.steady.start(cluster.words, log, RAY_AUTH_MODE=None)
    assert stranger.wait(60) == 2, log.read_text()
    cluster.say(f"refused: {log.read_text().strip()}")
    said = f"`runtime.address` is '{cluster.where}', beyond loopback, and RAY_AUTH_MODE is not `token`"
    assert said in log.read_text() and "RAY_AUTH_TOKEN_PATH" in log.read_text()


@pytest.mark.ray
@pytest.mark.timeout(500)
def test_a_host_that_is_cut_off_in_the_middle_of_a_scan_changes_nothing(cluster: Cluster) -> None:
    folder, more = cluster.folder, "budget.total=70"
    first, second, local = (folder / f"{name}.log" for name in ("first", "second", "local"))
    waiting = wait_on_the_host_to_lose(cluster)
    driver = cluster.head.start([*cluster.words], first)
    cut = cut_in_mid_scan(cluster, driver, first)
    (folder / "go").touch()
    alone = shlex.join([*cluster.words, "runtime.name=local", f"run={BUCKET}/local"])
    undisturbed = cluster.store.start(["sh", "-c", f"{alone} && {alone} {more}"], local)  # while the others wait
    assert driver.wait(200) == 0, first.read_text()
    cluster.say(f"campaign done {time.monotonic() - cut:.1f} s after the cut, the link still down")
    assert waiting.wait(90) == 0, (folder / "waiting.log").read_text()
    cluster.say(f"the other driver done {time.monotonic() - cut:.1f} s after the cut")
    bring_back(cluster)
    driver = cluster.head.start([*cluster.words, more], second)
    until(lambda: any(map(at_a_call, cluster.lost.processes("ray::Host"))), second.read_text, driver)
    cluster.say(f"the second command has a shard call on {cluster.lost.address}")
    assert driver.wait(200) == 0, second.read_text()
    cluster.say("second command done")
    assert undisturbed.wait(200) == 0, local.read_text()
    found = ledger(cluster.store, f"{BUCKET}/run", folder / "run")
    whole = ledger(cluster.store, f"{BUCKET}/local", folder / "local")
    cluster.say(f"picks, cut off:                {picks(found)}")
    cluster.say(f"picks, local and undisturbed:  {picks(whole)}")
    one, other = (scan_seconds(folder / "run", number) for number in (1, 2))
    cluster.say(f"the scan of round 1 took {one:.1f} s, that of round 2 {other:.1f} s: lost {one - other:.1f} s")
    for log in (first, folder / "waiting.log", second):
        print(f"--- {log.stem}\n{log.read_text()}")
    assert found == whole
    assert found["state"] == "done" and len(set(found["asks"])) == len(found["asks"]) == 70
