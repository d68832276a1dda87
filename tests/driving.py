"""Drivers as processes of their own: watched by the files they write, frozen at a moment, killed, and searched for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

POLL_S = 0.001
GIVE_UP_S = 600.0
WORKERS_END_S = 30.0
AGENTS_END_S = 120.0
"""Ray's two agents, which do no work, try for a minute to tell a dead cluster of its death."""

STOPS_IN_COMMIT = """
import os, signal, sys
from alray import storage
from alray.cli.app import main

commit, ends = storage._commit, sys.argv.pop(1)

def halfway(temp, uri, *, once=False):
    if uri.endswith(ends):
        os.truncate(temp, temp.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGSTOP)
    return commit(temp, uri, once=once)

storage._commit = halfway
main(sys.argv[1:])
"""
"""`alray`, but it freezes when half of the file whose name ends with its first word is written."""


class Driver:
    """`alray run CONFIG` in a process of its own, whose log goes to a file."""

    def __init__(self, config: Path, log: Path, *, stops_in: str | None = None) -> None:
        program = ["-m", "alray"] if stops_in is None else ["-c", STOPS_IN_COMMIT, stops_in]
        self.log, self.began = log, time.monotonic()
        with log.open("w") as out:
            words = [sys.executable, *program, "run", str(config)]
            self.process = subprocess.Popen(words, stdout=out, stderr=out, env=os.environ.copy())
        self.pid = self.process.pid
        self.started: dict[int, str] = {}

    def until(self, moment: Callable[[], bool]) -> None:
        """Return as soon as `moment()` holds, or when the driver stops by itself."""
        give_up = time.monotonic() + GIVE_UP_S
        while not moment() and state_of(self.pid) != "T":
            assert self.process.poll() is None, f"it ended before: {self.log.read_text()}"
            assert time.monotonic() < give_up, f"it never came: {self.log.read_text()}"
            time.sleep(POLL_S)

    def freeze(self, moment: Callable[[], bool]) -> None:
        """Stop the driver at that moment, so that what it has written stays as it is."""
        self.until(moment)
        os.kill(self.pid, signal.SIGSTOP)

    def kill(self) -> float:
        """SIGKILL the driver, wait until nothing that works for it is left; return the seconds it lived."""
        self.started = family(self.pid)
        self.process.kill()
        self.process.wait()
        seconds = time.monotonic() - self.began
        self.outlive(WORKERS_END_S, but=("ray::DashboardAgent", "ray::RuntimeEnvAgent"))
        return seconds

    def outlive(self, seconds: float = AGENTS_END_S, but: tuple[str, ...] = ("nothing",)) -> None:
        """Wait until what the killed driver had started has ended, all by itself."""
        give_up = time.monotonic() + seconds
        while left := [command(pid) for pid, since in self.started.items() if started_at(pid) == since]:
            left = [one.strip() for one in left if not one.startswith(but)]
            assert time.monotonic() < give_up, f"{seconds} s after the driver's end there still are: {left}"
            if not left:
                return
            time.sleep(0.05)

    def finish(self) -> float:
        """Wait for the end of the run, which must be a good one; return its seconds."""
        code = self.process.wait(GIVE_UP_S)
        assert code == 0, self.log.read_text()
        return time.monotonic() - self.began


@contextmanager
def driver(config: Path, log: Path, *, stops_in: str | None = None) -> Iterator[Driver]:
    """Start a driver; whatever happens, nothing of it outlives the block."""
    one = Driver(config, log, stops_in=stops_in)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.kill()


def family(pid: int) -> dict[int, str]:
    """Return every process below `pid`, and when each started, so that a reused pid is not taken for it."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (found := _stat(int(folder.name))):
            children.setdefault(int(found[1]), []).append(int(folder.name))
    below, todo = {}, [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            todo.append(child)
            if since := started_at(child):
                below[child] = since
    return below


def workers(pid: int, kind: str) -> list[int]:
    """Return the Ray workers below a driver whose actor class is `kind`."""
    return [child for child in family(pid) if command(child).startswith(f"ray::{kind}")]


def _stat(pid: int) -> list[str]:
    """Return state, parent, … of a process, as in /proc/PID/stat; empty when there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def state_of(pid: int) -> str:
    return (_stat(pid) or ["X"])[0]


def started_at(pid: int) -> str:
    found = _stat(pid)
    return "" if not found or found[0] in "ZX" else found[19]


def command(pid: int) -> str:
    """Return the command line of a process; Ray puts there what a worker does."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
