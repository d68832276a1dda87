"""Break a real cluster in the middle of a selection, a row at a time, and print what came of it, a line of JSON each.

Usage: python failures.py FOLDER [ROW ...]; without rows, all of `ROWS`. A head without CPUs and three machines, each a
raylet of its own on loopback, behind a token. What is broken is named by the notes that workers leave (`faults.Paced`),
so the moment is in the middle of a scan; the digest is that of the picks, in rank order. `lost` is seconds beyond those
of the undisturbed row. A script of its own, since a process has one Ray.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import builders
import faults
import numpy as np

import alray
from alray.errors import AlrayError
from alray.features import FeatureSet, from_pool
from alray.pool import Pool
from alray.runtime import LocalRuntime, RuntimeConfig, ray_cluster

STORED_S = 3.0
MACHINES, SHARDS, ROWS_PER_SHARD, BUDGET = 3, 18, 2048, 24
PACE_S = 0.25
MIDDLE = 5
"""Calls before the one at which something breaks."""

NOTICE_S = 15
"""Seconds between the notice that a machine is about to leave, and its end."""

HEALTH = {"initial_delay_ms": "1000", "period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
"""Quicker than Ray's own, which takes 20 seconds to miss a machine."""


@dataclass
class World:
    """A cluster, a pool, and the picks that nothing disturbed."""

    folder: Path
    cluster: Any
    machines: dict[str, Any]  # by node id
    features: FeatureSet
    labels: dict[str, str]
    whole: str = ""
    seconds: float = 0.0


@dataclass
class Broken:
    """What was done, to what, and when it was."""

    notes: Path
    what: str = ""
    at: float = 0.0
    pids: list[int] = field(default_factory=list)
    whole: str = ""  # the digest to be had, where it is not of the picks
    usual: float = 0.0  # and the seconds


def main(folder: Path, rows: list[str]) -> None:
    log = Lines()
    logging.getLogger("alray").addHandler(log)
    logging.getLogger("alray").setLevel(logging.INFO)
    with cluster(folder) as world:
        undisturbed(world)
        for row in rows:
            log.texts.clear()
            say(row, world, log, ROWS[row])


def say(row: str, world: World, log: Lines, act: Callable[[World, Broken], str]) -> None:
    """Run a row and print its line."""
    notes = world.folder / row
    notes.mkdir()
    broken, began = Broken(notes), time.monotonic()
    try:
        found: dict[str, Any] = {"digest": act(world, broken)}
    except AlrayError as error:
        found = {"error": f"{type(error).__name__}: {error}"}
    took = time.monotonic() - began
    pids = [pid for pid in broken.pids if Path(f"/proc/{pid}").exists()]
    line = {
        "row": row,
        "what": broken.what,
        "whole": broken.whole or world.whole,
        **found,
        "left": pids,
        "log": log.texts,
    }
    timed = {"at": broken.at and round(broken.at - began, 1), "seconds": round(took, 1)}
    print(json.dumps(line | timed | {"lost": round(took - (broken.usual or world.seconds), 1)}), flush=True)


# The cluster


@contextmanager
def cluster(folder: Path) -> Iterator[World]:
    """Start the machines and join them; nothing outlives the block."""
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the workers need the tests' modules too
    os.environ |= {f"RAY_health_check_{name}": value for name, value in HEALTH.items()}
    ray_cluster.prepare_environment(RuntimeConfig())  # as on a cluster of alray's own: loopback, pings
    import ray
    from ray.cluster_utils import Cluster

    size = {"object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **size})
    world = World(folder, machines, {}, *pool(folder))
    try:
        for _ in range(MACHINES):
            add_machine(world)
        ray_cluster.join(RuntimeConfig(address=machines.address))
        yield world
    finally:
        ray.shutdown()
        machines.shutdown()


def add_machine(world: World) -> None:
    size = {"object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}
    node = world.cluster.add_node(num_cpus=2, **size)
    world.machines[node.node_id] = node


def pool(folder: Path) -> tuple[FeatureSet, dict[str, str]]:
    """Write a class-sorted pool in 18 shards, and return it with 40 labels."""
    matrix, labels = builders.features(SHARDS * ROWS_PER_SHARD, 16, seed=3)
    order = np.argsort(labels, kind="stable")
    names = builders.ids(len(order))
    builders.parquet(folder / "pool.parquet", {"id": names, "features": builders.vectors(matrix[order])}, 1024)
    some = np.random.default_rng(1).choice(len(order), 40, replace=False)
    opened = Pool.open(str(folder / "pool.parquet"), rows_per_shard=ROWS_PER_SHARD)
    return from_pool(opened), {names[i]: labels[order[i]] for i in some}


def undisturbed(world: World) -> None:
    """Pick in this process, and by the cluster: the same, and so many seconds."""
    for name in ("here", "warm", "there"):
        (world.folder / name).mkdir()
    world.whole = picked(world, world.folder / "here", runtime=LocalRuntime(), seconds=0.0)
    picked(world, world.folder / "warm")
    began = time.monotonic()
    digest = picked(world, world.folder / "there")
    world.seconds = time.monotonic() - began
    line = {"row": "undisturbed", "digest": digest, "whole": world.whole, "seconds": round(world.seconds, 1)}
    print(json.dumps(line), flush=True)


def picked(world: World, notes: Path, *, runtime: Any = None, seconds: float = PACE_S, **more: Any) -> str:
    """Select, and return the digest of the picks."""
    strategy = faults.Paced(notes=str(notes), seconds=seconds, **more)
    found = alray.select(
        strategy,
        world.features,
        budget=BUDGET,
        labels=world.labels,
        seed=11,
        regime="coreset",
        runtime=runtime or on_ray(),
    )
    return found.picks.digest()


def on_ray(**more: Any) -> Any:
    from alray.runtime.ray import RayRuntime

    return RayRuntime(RuntimeConfig(workers=MACHINES, **more))


# What is broken


def at_note(broken: Broken, count: int, deed: Callable[[int, str], str]) -> threading.Thread:
    """Do the deed to whoever leaves a note after `count` others have."""

    def wait() -> None:
        while len(found := sorted(broken.notes.glob("*.json"))) <= count:
            time.sleep(0.01)
        note = json.loads(found[count].read_text())
        broken.at = time.monotonic()
        broken.pids.append(note["pid"])
        broken.what = deed(note["pid"], note["node"])

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def signalled(number: signal.Signals) -> Callable[[World, Broken], str]:
    def act(world: World, broken: Broken) -> str:
        def deed(pid: int, node: str) -> str:
            os.kill(pid, number)
            return f"{number.name} to the shard actor at its call {MIDDLE}"

        at_note(broken, MIDDLE, deed)
        digest = picked(world, broken.notes)
        wait_for_end(broken.pids)
        return digest

    return act


def node_removed(world: World, broken: Broken) -> str:
    def deed(pid: int, node: str) -> str:
        world.cluster.remove_node(world.machines.pop(node), allow_graceful=False)
        return "SIGKILL to the raylet of the machine that was at work"

    at_note(broken, MIDDLE, deed)
    digest = picked(world, broken.notes)
    add_machine(world)
    return digest


def node_drained(world: World, broken: Broken) -> str:
    def deed(pid: int, node: str) -> str:
        drain(world, node)
        return f"a notice of {NOTICE_S} s to the machine that was at work"

    at_note(broken, MIDDLE, deed)
    digest = picked(world, broken.notes)
    gone = [node for node in world.machines if node not in alive()]
    late = [note for note in notes(broken) if note["node"] in gone and note["at"] > broken.at + NOTICE_S]
    assert not late, late
    wait_for_end(broken.pids, NOTICE_S + 30)
    for node in [node for node in world.machines if node not in alive()]:
        world.cluster.remove_node(world.machines.pop(node))
        add_machine(world)
    return digest


def drain(world: World, node: str) -> None:
    """Give notice, as a cloud does before it takes a spot machine."""
    words = ["--address", world.cluster.address, "--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    words += ["--reason-message", "spot", "--deadline-remaining-seconds", str(NOTICE_S)]
    subprocess.run([sys.executable, "-m", "ray.scripts.scripts", "drain-node", *words], check=True, capture_output=True)


def alive() -> set[str]:
    import ray

    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def notes(broken: Broken) -> list[dict[str, Any]]:
    found = [(int(file.name.partition("-")[0]) / 1e9, file) for file in broken.notes.glob("*.json")]
    return [{"at": at, **json.loads(file.read_text())} for at, file in found]


def straggler(world: World, broken: Broken) -> str:
    broken.what = "one worker sleeps 40 s at every chunk"
    return picked(world, broken.notes, delay=40.0)


def out_of_memory(world: World, broken: Broken) -> str:
    broken.what = "MemoryError in one shard wherever a chunk has more than 600 rows"
    return picked(world, broken.notes, heavy=world.features.shards[4].read().ids[:1], fits=600)


def never_fits(world: World, broken: Broken) -> str:
    broken.what = "MemoryError in one shard, always"
    return picked(world, broken.notes, heavy=world.features.shards[4].read().ids, fits=0)


def part_lost(world: World, broken: Broken) -> str:
    """Lose the machine that stores a part of a reduce, before the parts are merged."""

    def deed(pid: int, node: str) -> str:
        time.sleep(STORED_S / 2)  # its part is stored, the last shard's is not
        world.cluster.remove_node(world.machines.pop(node), allow_graceful=False)
        return "SIGKILL to the raylet of a machine that stores parts of a reduce"

    broken.whole = hashlib.sha256((np.arange(200_000) * sum(range(faults.LAST + 1))).tobytes()).hexdigest()
    with on_ray() as runtime, runtime.hold(faults.Sleepy, range(faults.LAST + 1), stage="reduce") as held:
        began = time.monotonic()
        held.reduce(faults.many, faults.add_all, str(world.folder / "here"), STORED_S)
        broken.usual = 2 * (time.monotonic() - began)
        at_note(broken, 0, deed)
        total = held.reduce(faults.many, faults.add_all, str(broken.notes), STORED_S)
    add_machine(world)
    return hashlib.sha256(total.tobytes()).hexdigest()


def all_hang(world: World, broken: Broken) -> str:
    """Stop every worker: nobody is left to outrun them."""

    def deed(pid: int, node: str) -> str:
        broken.pids[:] = sorted({note["pid"] for note in notes(broken)})
        for one in broken.pids:
            os.kill(one, signal.SIGSTOP)
        return "SIGSTOP to every shard actor"

    at_note(broken, MIDDLE, deed)
    digest = picked(world, broken.notes, runtime=on_ray(deadline_s=25.0))
    wait_for_end(broken.pids)
    return digest


def wait_for_end(pids: list[int], seconds: float = 30.0) -> None:
    give_up = time.monotonic() + seconds
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < give_up:
        time.sleep(0.1)


class Lines(logging.Handler):
    """What alray said."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


ROWS: dict[str, Callable[[World, Broken], str]] = {
    "actor killed": signalled(signal.SIGKILL),
    "actor stopped": signalled(signal.SIGSTOP),
    "all stopped": all_hang,
    "straggler": straggler,
    "out of memory": out_of_memory,
    "never fits": never_fits,
    "part lost": part_lost,
    "node removed": node_removed,
    "node drained": node_drained,
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(ROWS))
