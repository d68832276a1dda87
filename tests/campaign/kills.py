"""Kill a driver at every k-th commit, run the same command again, and print what the ledger then holds, a line each.

Usage: python kills.py KIND DATA FOLDER FIRST STEP, KIND being features or pictures. A script of its own, so that each
driver is a fork of one warm process.
The last line is an uninterrupted run's; `null` for k beyond the last commit ends the list.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import pyarrow.parquet as pq
import torch
import torch.optim
from campaigns import picture_settings, settings

from alray import storage
from alray.campaign import run, status

KILLED = -1


def drive(kind: str, data: Path, folder: Path, kill_at: int | None, *, after: bool) -> int:
    """Run the campaign in a fork that dies before or after its k-th commit; return the exit code, or KILLED."""
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return KILLED if code == -signal.SIGKILL else code
    code = 1
    try:
        torch.set_num_threads(1)
        storage._sync = lambda path: None  # a killed process loses nothing that the system has
        if kill_at is not None:
            die_at(kill_at, after=after)
        run(picture_settings(data, folder) if kind == "pictures" else settings(data, folder))
        code = 0
    finally:
        os._exit(code)


def die_at(k: int, *, after: bool) -> None:
    """Make this process kill itself at its k-th commit; the heartbeat's do not count."""
    commit, count = storage._commit, 0

    def counted(temp: Path, uri: str, *, once: bool = False) -> bool:
        nonlocal count
        count += threading.current_thread() is threading.main_thread()
        if count == k and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        done = commit(temp, uri, once=once)
        if count == k and after:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    storage._commit = counted


def ledger(folder: Path) -> dict[str, object]:
    """Return what must be identical after a kill (decision 10), and every ask that was sent."""
    rounds = sorted((folder / "rounds").iterdir())
    records = [json.loads((r / "round.json").read_text()) for r in rounds]
    about = ["picks_digest", "label_dollars", "config", "accuracy", "labels", "features"]
    asks = [row for f in sorted((folder / "asks").glob("*.parquet")) for row in pq.read_table(f)["id"].to_pylist()]
    answers = [i for f in sorted((folder / "answers").glob("*.parquet")) for i in pq.read_table(f)["id"].to_pylist()]
    now = status(str(folder))
    return {
        "rounds": [{name: r[name] for name in about} for r in records],
        "heads": [r["sha256"]["head.safetensors"] for r in records],
        "picks": [pq.read_table(r / "picks.parquet").to_pylist() for r in rounds],
        "labels": [pq.read_table(r / "labels.parquet", columns=["id", "label"]).to_pylist() for r in rounds],
        "asks": asks,
        "answers": answers,
        "state": now.state,
        "label_dollars": now.label_dollars,
    }


def main() -> None:
    """Go through the commits."""
    kind, data, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    k, step = int(sys.argv[4]), int(sys.argv[5])
    settings(data, folder)  # imports every strategy, once
    while True:
        for after in (False, True):
            mine = folder / f"{k}-{after}"
            killed = drive(kind, data, mine, k, after=after)
            if killed == 0:
                print("null")
                print(json.dumps(ledger(mine)))
                return
            assert killed == KILLED, killed
            assert drive(kind, data, mine, None, after=False) == 0, (k, after)
            print(json.dumps({"k": k, "after": after, **ledger(mine)}), flush=True)
        k += step


if __name__ == "__main__":
    main()
