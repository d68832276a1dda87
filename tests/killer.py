"""A killer of what works for a campaign: it draws moments at random, freezes a victim, looks at it, and kills it.

A frozen process cannot end by itself, so that what was alive when it was looked at died by the signal that followed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import driving
from driving import Driver

KINDS = {"actor": "ray::Host", "training": "ray::RayTrainWorker"}
"""What Ray calls the process of a shard actor, and of a worker of a training run, when it is first seen."""

DRIVER, DONE = "driver", "done"
AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")

AT_THE_END = 0.15
"""The share of drivers that are killed when their work is done, and they give back what they hold."""

LINGER_S = 2.0

MOST_AT_ONCE = 2
"""Kills of a kind between two results: faster than workers can start, a campaign would stand still."""

DIES_S = 30.0
POLL_S = 0.002


@dataclass(frozen=True)
class Kill:
    """One process that was alive, of its kind, and died by our signal."""

    kind: str
    pid: int
    time: float  # since 1970
    stage: str  # of the campaign
    doing: str  # as Ray, or the stage, calls it


class Killer:
    """Kills at most `quota` processes of each kind below one campaign's drivers, each after a random pause."""

    def __init__(self, run: Path, quota: dict[str, int], pauses: dict[str, tuple[float, float]], seed: str) -> None:
        self._run, self.quota, self._pauses = run, dict(quota), pauses
        self._random = random.Random(seed)
        self._kinds: dict[tuple[int, str], str] = {}
        self._due: dict[str, float] = {}
        self._at_once = Counter[str]()
        self._at_the_end: float | None = None  # seconds after the work is done
        self.kills: list[Kill] = []
        self.seen: dict[int, str] = {}

    def attend(self, one: Driver, seconds: float) -> None:
        """Begin with a new driver, which lives for about so many seconds if nobody kills it."""
        now = time.monotonic()
        at_the_end, linger = self._random.random() < AT_THE_END, self._random.uniform(0, LINGER_S)
        self._at_the_end = linger if at_the_end else None
        self._due = {kind: now + self._pause(kind) for kind in KINDS}
        self._due[DRIVER] = now + self._random.uniform(0, seconds)
        self._kinds, self.seen = {}, {}

    def tick(self, one: Driver) -> bool:
        """Look at the processes, kill those whose moment has come; return whether the driver is dead by it."""
        self._look(one.pid)
        for kind in KINDS:
            if self._may(kind) and time.monotonic() >= self._due[kind]:
                self._due[kind] = time.monotonic() + self._pause(kind)
                self._kill_one(kind, one)
        return bool(self.quota.get(DRIVER)) and self._driver_is_due(one) and self._kill_driver(one)

    def went_on(self) -> None:
        """Take note that the campaign has a new result."""
        self._at_once.clear()

    def _may(self, kind: str) -> bool:
        return self.quota.get(kind, 0) > 0 and self._at_once[kind] < MOST_AT_ONCE

    def _pause(self, kind: str) -> float:
        return self._random.uniform(*self._pauses[kind])

    def _look(self, pid: int) -> None:
        """Note each process; Ray renames it by what it does, so that its kind is kept from when it was first told."""
        self.seen |= driving.family(pid)
        for child, since in self.seen.items():
            title = driving.command(child) if (child, since) not in self._kinds else ""
            for kind, name in KINDS.items():
                if title.startswith(name):
                    self._kinds[child, since] = kind

    def _kill_one(self, kind: str, one: Driver) -> None:
        victims = [(p, since) for (p, since), k in self._kinds.items() if k == kind and driving.started_at(p) == since]
        if not victims:
            return
        pid, since = self._random.choice(victims)
        stage = stage_of(self._run, one.pid)
        if (doing := strike(pid, since)) is not None:
            self._note(kind, pid, stage, doing)

    def _driver_is_due(self, one: Driver) -> bool:
        if self._at_the_end is not None and stage_of(self._run, one.pid) != DONE:
            self._due[DRIVER] = time.monotonic() + self._at_the_end
        return time.monotonic() >= self._due[DRIVER]

    def _kill_driver(self, one: Driver) -> bool:
        stage = stage_of(self._run, one.pid)
        since = driving.started_at(one.pid)
        if not since or not freeze(one.pid, since):
            return False
        self.seen |= driving.family(one.pid)
        one.process.kill()
        if one.process.wait(DIES_S) != -signal.SIGKILL:
            return False
        self._note(DRIVER, one.pid, stage, stage)
        return True

    def _note(self, kind: str, pid: int, stage: str, doing: str) -> None:
        self.quota[kind] -= 1
        self._at_once[kind] += 1
        self.kills.append(Kill(kind, pid, time.time(), stage, doing))


def strike(pid: int, since: str) -> str | None:
    """Kill the process that started then; return what it was doing, or None if it was gone, or going, already."""
    if not freeze(pid, since):
        return None
    doing = driving.command(pid).strip()
    os.kill(pid, signal.SIGKILL)
    give_up = time.monotonic() + DIES_S
    while driving.started_at(pid) == since:
        assert time.monotonic() < give_up, f"{pid} ({doing}) outlived SIGKILL by {DIES_S:g} s"
        time.sleep(POLL_S)
    return doing


def freeze(pid: int, since: str) -> bool:
    """Stop the process that started then; False if it is gone, or ends before it stands still."""
    if driving.started_at(pid) != since:
        return False
    try:
        os.kill(pid, signal.SIGSTOP)
    except ProcessLookupError:
        return False
    while driving.started_at(pid) == since:
        if driving.state_of(pid) == "T":
            return True
        time.sleep(POLL_S)
    return False


def stage_of(run: Path, driver: int) -> str:
    """Return the stage that a driver is in, by its files: `start` until it has one of its own."""
    holder = _json(run / "lease.json")
    began = sorted((run / "costs").glob(f"a{holder.get('fence', 0):04d}-*.start.json"))
    if holder.get("pid") != driver:
        return "start"
    if _json(run / "state.json").get("state") == DONE:
        return DONE
    if not began:
        return "start"
    last = began[-1].name.removesuffix(".start.json")
    return "between stages" if (run / f"costs/{last}.json").exists() else last.split("-", 3)[3]


def _json(file: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = json.loads(file.read_text())
        return found
    except (OSError, ValueError):
        return {}
