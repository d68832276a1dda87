"""Two drivers on one run, and a driver that has lost its lease: one ledger, whatever they do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from campaigns import settings

from alray import storage
from alray.campaign import run, status
from alray.campaign.lease import read_lease
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import Round
from alray.errors import LedgerError, RunError
from alray.labelling import Oracle
from alray.selection import Picks

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from alray.campaign.lease import Lease
with Lease(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_live_driver_in_another_process_is_not_disturbed(data: Path, tmp_path: Path) -> None:
    lease = str(tmp_path / "run/lease.json")
    command = [sys.executable, "-c", HOLD, lease]
    other = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert other.stdin and other.stdout
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=rf"has a driver already: pid {other.pid} on .* since 20.*UTC"):
            run(settings(data, tmp_path / "run"))
        assert not (tmp_path / "run/run.json").exists()
    finally:
        other.stdin.close()
        assert other.wait(20) == 0
        other.stdout.close()
    assert run(settings(data, tmp_path / "run")).state == "done"


def test_a_driver_that_lost_its_lease_commits_nothing_more(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "run/lease.json")
    seen: list[set[Path]] = []

    def usurped(self: Oracle, asks: Any) -> None:
        mine = read_lease(uri)
        assert mine is not None
        storage.write_bytes(uri, replace(mine, fence=mine.fence + 1, host="elsewhere", pid=1).to_bytes())
        seen.append(set((tmp_path / "run").rglob("*.*")))

    with monkeypatch.context() as patch:
        patch.setattr(Oracle, "ask", usurped)
        with pytest.raises(RunError, match=r"has lost the run .*pid 1 on elsewhere"):
            run(settings(data, tmp_path / "run"))
    assert set((tmp_path / "run").rglob("*.*")) == seen[0]
    os.unlink(uri)
    assert run(settings(data, tmp_path / "run")).state == "done"


def test_drivers_that_start_together_make_one_ledger(data: Path, tmp_path: Path) -> None:
    refused: list[BaseException] = []

    def drive() -> None:
        try:
            run(settings(data, tmp_path / "run"))
        except RunError as error:
            refused.append(error)

    threads = [threading.Thread(target=drive) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    found = status(str(tmp_path / "run"))
    assert (found.state, found.labels) == ("done", 21)
    assert all("driver already" in str(e) or "many drivers" in str(e) for e in refused)


def test_picks_that_are_committed_are_never_selected_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(self: Round, piece: str, value: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Round, "commit", die)
        with pytest.raises(KeyboardInterrupt):
            run(settings(data, tmp_path / "run"))
    picks = (tmp_path / "run/rounds/0000/picks.parquet").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Round, "commit_picks", die)
        patch.setattr(Round, "commit", die)
        with pytest.raises(KeyboardInterrupt):  # at the labels, not at the picks
            run(settings(data, tmp_path / "run"))
    assert run(settings(data, tmp_path / "run")).labels == 21
    assert (tmp_path / "run/rounds/0000/picks.parquet").read_bytes() == picks


def test_picks_of_a_driver_that_woke_up_late_replace_none(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    late = Round(Ledger(str(tmp_path / "run"), guard=lambda: None), 1)
    before = (tmp_path / "run/rounds/0001/picks.parquet").read_bytes()
    picks = late.picks()
    late.commit_picks(picks)  # the same again is no harm
    with pytest.raises(LedgerError, match="exists with other content"):
        late.commit_picks(Picks(picks.ids[:1], picks.scores[:1], picks.reasons[:1]))
    assert (tmp_path / "run/rounds/0001/picks.parquet").read_bytes() == before
