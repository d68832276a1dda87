"""One driver a run: who is refused, who may take over, and who has to stop."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alray import storage
from alray.campaign import lease as lease_module
from alray.campaign.lease import Holder, Lease, alive, read_lease
from alray.errors import LedgerError, RunError, StorageError


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "run" / "lease.json")


def stored(uri: str) -> Holder:
    found = read_lease(uri)
    assert found is not None
    return found


def write(uri: str, holder: Holder) -> None:
    Path(uri).parent.mkdir(exist_ok=True)
    Path(uri).write_bytes(holder.to_bytes())


def test_a_second_driver_is_refused_and_told_who_drives(uri: str) -> None:
    with Lease(uri) as first:
        with pytest.raises(RunError) as error, Lease(uri):
            raise AssertionError("two drivers")
        assert f"has a driver already: pid {os.getpid()} on {first.holder.host} since 20" in str(error.value)
        first.check()


def test_a_released_lease_is_taken_with_a_higher_number(uri: str) -> None:
    with Lease(uri) as first:
        assert first.fence == 1
    assert stored(uri).released
    with Lease(uri) as second:
        assert second.fence == 2
        assert list(second.holder.beats) == ["1"]


def test_a_dead_process_here_is_replaced_at_once(uri: str) -> None:
    code = f"from alray.campaign.lease import Lease; import os; Lease({uri!r}).__enter__(); os.kill(os.getpid(), 9)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    dead = stored(uri)
    assert not dead.released
    begin = time.monotonic()
    with Lease(uri) as second:
        assert second.fence == dead.fence + 1
        assert second.holder.beats == {"1": dead.heartbeat}
    assert time.monotonic() - begin < 5


def test_a_reused_pid_is_not_taken_for_the_driver(uri: str) -> None:
    with Lease(uri) as first:
        mine = first.holder
    assert alive(replace(mine, released=False))
    assert not alive(replace(mine, released=False, started="1"))
    write(uri, replace(mine, released=False, started="1"))
    with Lease(uri) as second:
        assert second.fence == 2


def test_elsewhere_counts_the_heartbeat_and_not_the_pid(uri: str) -> None:
    now = time.time()
    with Lease(uri) as first:
        away = replace(first.holder, place="another machine", host="far", ttl=0.3)
    write(uri, replace(away, heartbeat=now, ttl=60.0))
    with pytest.raises(RunError, match="on far since"), Lease(uri):
        pass
    write(uri, replace(away, heartbeat=now - 1))
    with Lease(uri) as second:
        assert second.fence == 2


def test_a_heartbeat_far_ahead_of_our_clock_does_not_hold_a_run_for_ever(uri: str) -> None:
    with Lease(uri) as first:
        away = replace(first.holder, place="another machine", ttl=0.3, heartbeat=time.time() + 10**9)
    write(uri, away)
    with Lease(uri) as second:
        assert second.fence == 2


@pytest.mark.parametrize("offset", [-5.0, 10.0**9])
def test_elsewhere_is_watched_before_it_is_replaced(uri: str, offset: float) -> None:
    with Lease(uri) as first:
        away = replace(first.holder, place="another machine", ttl=1.0, heartbeat=time.time() + offset)
    write(uri, away)
    beat = threading.Timer(0.1, lambda: write(uri, replace(away, heartbeat=away.heartbeat + 1)))
    beat.start()
    with pytest.raises(RunError, match="has a driver already"), Lease(uri):
        pass
    beat.join()


def test_a_driver_that_was_replaced_stops_and_leaves_the_lease_alone(uri: str) -> None:
    with Lease(uri) as first:
        other = replace(first.holder, fence=7, host="other", pid=1)
        write(uri, other)
        for _ in range(2):
            with pytest.raises(RunError, match=r"has lost the run .*: pid 1 on other since .* drives it now"):
                first.check()
    assert stored(uri) == other


def test_the_heartbeat_beats(uri: str) -> None:
    with Lease(uri, ttl=0.3) as held:
        since = held.holder.heartbeat
        time.sleep(0.4)
        assert stored(uri).heartbeat > since


@pytest.mark.parametrize("error", [StorageError("busy"), LedgerError("garbled"), SystemError("a library's own")])
def test_the_heart_beats_on_after_whatever_went_wrong(
    uri: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    swap, failed = storage.replace_if, threading.Event()

    def stumbling(*args: Any, **named: Any) -> bool:
        if not failed.is_set():
            failed.set()
            raise error
        return swap(*args, **named)

    monkeypatch.setattr(storage, "replace_if", stumbling)
    with Lease(uri, ttl=0.3) as held:
        since = held.holder.heartbeat
        assert failed.wait(10)
        give_up = time.monotonic() + 10
        while stored(uri).heartbeat == since and time.monotonic() < give_up:
            time.sleep(0.01)
        assert stored(uri).heartbeat > since
    assert f"could not be written; trying again. {error}" in caplog.text


def test_of_many_threads_one_drives(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "ATTEMPTS", 200)
    won: list[Lease] = []
    gate = threading.Barrier(8)

    def race() -> None:
        mine = Lease(uri)
        gate.wait()
        try:
            mine.__enter__()
            won.append(mine)
        except RunError:
            pass

    threads = [threading.Thread(target=race) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(won) == 1
    won[0].__exit__(None, None, None)


@pytest.mark.parametrize("text", ["", "{}", '{"schema": 1, "pid": 3}', "[1]"])
def test_an_unreadable_lease_is_named_and_kept(uri: str, text: str) -> None:
    Path(uri).parent.mkdir()
    Path(uri).write_text(text)
    with pytest.raises(LedgerError, match=r"lease.json is not a lease that alray wrote"), Lease(uri):
        pass
    assert Path(uri).read_text() == text


def test_a_newer_lease_is_refused(uri: str) -> None:
    with Lease(uri):
        pass
    newer = {**json.loads(Path(uri).read_text()), "schema": 2}
    Path(uri).write_text(json.dumps(newer))
    with pytest.raises(LedgerError, match="has schema 2; this alray reads schema 1"):
        read_lease(uri)


def test_storage_that_fails_on_the_way_out_does_not_hide_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> bool:
        raise StorageError("the disk is gone")

    with pytest.raises(RunError, match=r"^first$"), Lease(str(tmp_path / "lease.json")):
        monkeypatch.setattr(storage, "replace_if", fail)
        raise RunError("first")
    assert "could not be given back: the disk is gone" in caplog.text
    monkeypatch.undo()
    with pytest.raises(StorageError, match="the disk is gone"), Lease(str(tmp_path / "another.json")):
        monkeypatch.setattr(storage, "replace_if", fail)


@pytest.mark.parametrize(
    "wrong",
    [
        {"heartbeat": "soon"},
        {"since": 1e18},
        {"since": float("nan")},
        {"fence": "3"},
        {"fence": 0},
        {"beats": None},
        {"beats": {"1": "x"}},
        {"ttl": -5},
        {"ttl": 1e9},
        {"schema": "1"},
    ],
    ids=str,
)
def test_a_lease_that_no_driver_can_have_written_is_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    uri = tmp_path / "lease.json"
    with Lease(str(uri)):
        pass
    uri.write_text(json.dumps(json.loads(uri.read_text()) | wrong))
    with pytest.raises(LedgerError, match=r"is not a lease that alray wrote|has schema 1; this"), Lease(str(uri)):
        pass
