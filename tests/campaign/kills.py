"""Kill a driver at its commits, run the same command again, and print what the ledger then holds, a line each.

Usage: python kills.py KIND DATA FOLDER WHICH. KIND is one of `CAMPAIGNS`; WHICH is all: every commit, kinds: one
commit of each kind, in the middle of the run, or decisions: those that settle what round 0 selects by. A script of its
own, so that each driver is a fork of one warm process. The first line is an uninterrupted run's.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from campaigns import ledger, picture_settings, regime_settings, settings

from alray import storage
from alray.campaign import Settings, run

KILLED = -1

CAMPAIGNS: Mapping[str, Callable[[Path, Path], Settings]] = {
    "features": settings,
    "pictures": picture_settings,
    "standard": lambda data, folder: regime_settings(data, folder, regime="standard"),
    "asvp": lambda data, folder: regime_settings(data, folder, regime="asvp", switch={"at": 15}),
    "unguarded": lambda data, folder: regime_settings(
        data, folder, regime="asvp", switch={"at": 15, "guard": "none"}, pretrain=None
    ),
}
"""What is killed: `asvp` tries its new features on half of the labels, `unguarded` takes them unseen."""


def fork(work: Callable[[], None]) -> int:
    """Do `work` in a fork; return its exit code, or KILLED."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return KILLED if code == -signal.SIGKILL else code
    code = 1
    try:
        torch.set_num_threads(1)
        storage._sync = lambda path: None  # a killed process loses nothing that the system has
        work()
        code = 0
    finally:
        os._exit(code)


def drive(kind: str, data: Path, folder: Path) -> None:
    """Run the campaign."""
    run(CAMPAIGNS[kind](data, folder))


def watch(before: Callable[[str], None], after: Callable[[str], None]) -> None:
    """Call these with the URI around each commit of this process, the heartbeat's apart."""
    commit = storage._commit

    def watched(temp: Path, uri: str, *, once: bool = False) -> bool:
        mine = threading.current_thread() is threading.main_thread()
        if mine:
            before(uri)
        done = commit(temp, uri, once=once)
        if mine:
            after(uri)
        return done

    storage._commit = watched


def survey(kind: str, data: Path, folder: Path) -> list[str]:
    """Run the campaign undisturbed; import what it imported, and return what it committed, in order."""
    notes = folder.with_suffix(".json")

    def work() -> None:
        commits: list[str] = []
        watch(commits.append, lambda uri: None)
        drive(kind, data, folder)
        notes.write_text(json.dumps([commits, list(sys.modules)]))

    assert fork(work) == 0
    commits, modules = json.loads(notes.read_text())
    for name in modules:  # so that no later fork does
        with suppress(ImportError):  # some are made up by other modules
            importlib.import_module(name)
    return [uri.removeprefix(str(folder)) for uri in commits]


def kill(kind: str, data: Path, folder: Path, k: int, *, after: bool) -> None:
    """Let a driver die before or after its k-th commit, from 0, and another one finish."""
    count = -1

    def die(uri: str) -> None:
        if count == k:
            os.kill(os.getpid(), signal.SIGKILL)

    def step(uri: str) -> None:
        nonlocal count
        count += 1
        if not after:
            die(uri)

    def work() -> None:
        watch(step, die)
        drive(kind, data, folder)

    assert fork(work) == KILLED, (k, after)
    assert fork(lambda: drive(kind, data, folder)) == 0, (k, after)


def middles(commits: list[str]) -> list[int]:
    """Return the number of one commit of each kind: the middle one of those that differ in numbers only."""
    kinds: dict[str, list[int]] = {}
    for k, uri in enumerate(commits):
        shape = re.sub(r"/a\d+-.*?(\.start)?\.json", r"/cost\1", uri)
        kinds.setdefault(re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", shape), []).append(k)
    return sorted(numbers[len(numbers) // 2] for numbers in kinds.values())


def decisions(commits: list[str]) -> list[int]:
    """Return the numbers of the commits that settle what is selected by: a backbone, a trial, a decision."""
    settling = re.compile(r"/0000/.*(switch|trial|aligned|forecast|latest)\.json$|pretrained\.json$|-0000-align\.json$")
    return [k for k, uri in enumerate(commits) if settling.search(uri)]


CHOICES: Mapping[str, Callable[[list[str]], list[int]]] = {
    "all": lambda commits: list(range(len(commits))),
    "kinds": middles,
    "decisions": decisions,
}


def main() -> None:
    """Go through the commits."""
    kind, data, folder, which = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
    commits = survey(kind, data, folder / "whole")
    print(json.dumps(ledger(folder / "whole")), flush=True)
    for k in CHOICES[which](commits):
        for after in (False, True):
            mine = folder / f"{k}-{after}"
            kill(kind, data, mine, k, after=after)
            print(json.dumps({"at": [commits[k], after], **ledger(mine)}), flush=True)


if __name__ == "__main__":
    main()
