"""Ten kills at random moments in a campaign on Ray: nothing lost, paid twice or hung. And would it be seen?"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import campaigns
import driving
import killer
import pytest
from benchmarks import soak
from benchmarks.soak import Ended, Hung, Soak, Subject
from driving import Driver
from killer import Killer

from alray.campaign import run

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes are looked for in /proc")

TEN = {"actor": 7, "training": 1, "driver": 2}
FOUR_HOSTS = "for n in 1 2 3 4; do (exec -a ray::Host.run sleep 60) & done; (exec -a ray::IDLE sleep 60) & wait"


@pytest.mark.ray
@pytest.mark.timeout(900)
def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    one = Soak(tmp_path, TEN, minutes=12)
    one.subjects = [Subject("ten", embedded_once, TEN, trains=True, undisturbed=("local",))]
    one.pauses = {"actor": (0.2, 1.5), "training": (0.5, 6.0)}
    assert one.run(), one.ended
    found = soak.sums(one.ended)
    assert found["kills"] == TEN
    assert (found["lost"], found["twice"], found["hung"], found["faults"]) == (0, 0, 0, [])


def embedded_once(data: Path, folder: Path, seed: int) -> dict[str, Any]:
    """Return the settings of six rounds, and a network at the end, on features that the undisturbed campaign made."""
    raw = soak.pictures(6, "last", test=None)(data, folder, seed)
    return {**raw, "features": {**raw["features"], "path": str(data / "features")}}


# The ledger


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Run a campaign, and return what it would be held against."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    run(campaigns.settings(data, folder))
    return folder, {"ledger": soak.plain(campaigns.ledger(folder)), "runtime": "local"}


def judged(folder: Path, quiet: dict[str, Any]) -> Ended:
    one = Ended(0, "any", 0, 0.0, None)
    Soak(folder.parent, TEN, minutes=1)._judge(one, folder, quiet, trains=False)
    return one


def test_an_undisturbed_campaign_has_no_fault(whole: tuple[Path, dict[str, Any]]) -> None:
    one = judged(*whole)
    assert (one.lost, one.twice, one.faults) == (0, 0, []) and len(one.digests.split()) == 3


def test_a_label_that_was_lost_is_counted(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, quiet = whole
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "run/answers/0002-0001.parquet").unlink()
    one = judged(tmp_path / "run", quiet)
    assert (one.lost, one.twice) == (3, 0) and one.faults[0] == "3 labels lost, 0 asked for or paid twice"


def test_a_label_that_was_paid_twice_is_counted(whole: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, quiet = whole
    shutil.copytree(folder, tmp_path / "run")
    answers = tmp_path / "run/answers"
    shutil.copy(answers / "0001-0001.parquet", answers / "0001-0002.parquet")
    one = judged(tmp_path / "run", quiet)
    assert (one.lost, one.twice) == (0, 6) and "answered twice" in one.faults[1]


def test_another_ledger_is_a_fault(whole: tuple[Path, dict[str, Any]]) -> None:
    folder, quiet = whole
    ledger = {**quiet["ledger"], "picks": [], "rounds": [{**r, "accuracy": 0} for r in quiet["ledger"]["rounds"]]}
    one = judged(folder, {**quiet, "ledger": ledger})
    assert one.faults == [f"`{name}` is not what it is where nothing is killed" for name in ("picks", "rounds")]
    assert soak.differences(quiet["ledger"], ledger, untrained=True) == ["picks"]


# Processes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Driver]]:
    """Return a function that starts a script as if it were a driver."""
    started: list[Driver] = []

    def start(script: str) -> Driver:
        one = Driver.__new__(Driver)
        one.process = subprocess.Popen(["bash", "-c", script])
        one.pid, one.log, one.began, one.started = one.process.pid, tmp_path / "log", time.monotonic(), {}
        started.append(one)
        return one

    yield start
    for one in started:
        below = driving.family(one.pid)
        one.process.kill()
        one.process.wait()
        for pid, since in below.items():
            killer.strike(pid, since)


def test_only_what_is_alive_is_killed(start: Callable[[str], Driver]) -> None:
    one = start("exec sleep 60")
    since = driving.started_at(one.pid)
    assert killer.strike(one.pid, "another time") is None
    time.sleep(0.2)
    assert driving.state_of(one.pid) not in "TZX"
    until(lambda: driving.command(one.pid).startswith("sleep"))
    assert killer.strike(one.pid, since) == "sleep 60"
    assert one.process.wait() == -signal.SIGKILL
    assert killer.strike(one.pid, since) is None


def test_a_killer_kills_its_kind_and_lets_the_campaign_go_on(start: Callable[[str], Driver], tmp_path: Path) -> None:
    one = start(FOUR_HOSTS)
    until(lambda: len(driving.workers(one.pid, "Host")) == 4 and len(driving.workers(one.pid, "IDLE")) == 1)
    hunter = Killer(tmp_path, {"actor": 3}, {"actor": (0, 0), "training": (0, 0)}, "seed")
    hunter.attend(one, 60.0)
    for most in (killer.MOST_AT_ONCE, 3):
        assert not any(hunter.tick(one) for _ in range(5))
        assert len(hunter.kills) == most
        hunter.went_on()
    assert [(kill.kind, kill.doing) for kill in hunter.kills] == [("actor", "ray::Host.run 60")] * 3
    assert len(driving.workers(one.pid, "Host")) == len(driving.workers(one.pid, "IDLE")) == 1


def test_a_killer_kills_the_driver_once(start: Callable[[str], Driver], tmp_path: Path) -> None:
    hunter = Killer(tmp_path, {"driver": 1}, soak.PAUSES, "seed")
    hunter.attend(one := start("exec sleep 60"), 0.0)
    hunter._at_the_end = None
    assert hunter.tick(one) and one.process.returncode == -signal.SIGKILL
    hunter.attend(other := start("exec sleep 60"), 0.0)
    hunter._at_the_end = None
    assert not hunter.tick(other) and other.process.poll() is None
    assert [(kill.kind, kill.pid, kill.stage) for kill in hunter.kills] == [("driver", one.pid, "start")]


def test_what_commits_nothing_hangs(start: Callable[[str], Driver], tmp_path: Path) -> None:
    one = start("sleep 60")
    watcher = Soak(tmp_path, {}, minutes=1)
    watcher.patience_s = 0.5
    hunter = Killer(tmp_path / "run", {}, soak.PAUSES, "seed")
    hunter.attend(one, 60.0)
    with pytest.raises(Hung, match=r"nothing was committed in 0.5 s, in start; see .*/dump"):
        watcher._watch(one, hunter, tmp_path, set())
    assert time.monotonic() - one.began < 15
    assert f"{one.pid} S " in (tmp_path / "dump/processes.txt").read_text()
    assert one.process.returncode == -signal.SIGKILL


def test_the_stage_is_the_last_that_this_driver_began(tmp_path: Path) -> None:
    (tmp_path / "costs").mkdir()
    (tmp_path / "lease.json").write_text('{"fence": 2, "pid": 7}')
    (tmp_path / "costs/a0001-0001-0000-load.start.json").touch()
    assert killer.stage_of(tmp_path, 7) == "start"
    (tmp_path / "costs/a0002-0001-0000-load.start.json").touch()
    assert (killer.stage_of(tmp_path, 7), killer.stage_of(tmp_path, 8)) == ("load", "start")
    (tmp_path / "costs/a0002-0001-0000-load.json").touch()
    assert killer.stage_of(tmp_path, 7) == "between stages"
    (tmp_path / "state.json").write_text('{"state": "done"}')
    assert killer.stage_of(tmp_path, 7) == "done"


def test_a_soak_goes_on_after_the_last_campaign(tmp_path: Path) -> None:
    kill = {"kind": "actor", "pid": 1, "time": 5.0, "stage": "select", "doing": "ray::Host.run 1", "result_s": 2.5}
    line = soak.json.dumps(soak.asdict(Ended(0, "any", 0, 30.0, 20.0, kills=[kill, kill], digests="abc")))
    (tmp_path / "campaigns.jsonl").write_text(line + "\n")
    one = Soak(tmp_path, {"actor": 3, "driver": 1}, minutes=0)
    assert one.missing() == {"actor": 1, "training": 0, "driver": 1} and not list(one._turns())
    assert soak.sums(one.ended)["lost_s_per_kill"] == {"mean": 5.0, "max": 5.0}
    assert "| actor | 2 | select 2 | Host.run 2 | 2.5 | 2.5 |" in soak.table(one.ended)


def test_subjects_take_turns_until_enough_is_killed(tmp_path: Path) -> None:
    one, names = Soak(tmp_path, {"actor": 20, "training": 5, "driver": 4}, minutes=1), []
    for turn, subject in enumerate(one._turns()):
        kills = [{"kind": kind} for kind, most in subject.quota.items() for _ in range(most)]
        one.ended.append(Ended(turn, subject.name, 0, 0.0, None, kills=kills))
        names.append(subject.name)
    assert names == ["fine_tune", "alfa_mix"] and not any(one.missing().values())


def until(moment: Callable[[], bool]) -> None:
    """Wait for it."""
    give_up = time.monotonic() + 10
    while not moment():
        assert time.monotonic() < give_up
        time.sleep(0.01)
