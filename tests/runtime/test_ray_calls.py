"""Thousands of runs of calls on workers that fail in every way, on a clock of the test's own and without Ray.

What is faked is Ray alone: processes that answer one call after the other, die, hang, crawl, start late or never, are
told to leave, run out of memory, and lose results. What is tested is `Drive`: each call is answered once, with its own
value, in a time that has a bound, whatever happens to whom.
"""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import (
    ActorDiedError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    RayTaskError,
)

from alray.errors import RuntimeFailure, StorageError
from alray.runtime import ray_calls
from alray.runtime.base import RuntimeConfig
from alray.runtime.ray_calls import IN_FLIGHT, Drive, Workers
from alray.runtime.ray_flights import SLOW_S, START_S, Flights

SCHEDULES = 200
NEVER = float("inf")


@dataclass
class Ref:
    """A call that was submitted: when it ends, and as what."""

    number: int
    parts: int
    ends: float = NEVER
    value: Any = None  # or the exception that `get` raises
    dead: bool = False  # cancelled, or its process was killed by the driver

    __hash__ = object.__hash__
    __eq__ = object.__eq__


@dataclass
class Process:
    """One worker process: it answers its calls in order."""

    slot: int
    ready: float  # when it has started
    pace: float = 1.0  # 20 for one that crawls
    dies: float = NEVER
    hangs_at: int = -1  # the count of calls at which it hangs
    calls: list[Ref] = field(default_factory=list)
    asked: int = 0
    loaded: set[int] = field(default_factory=set)
    free: float = 0.0  # when it is done with all it was asked
    hung: bool = False
    leaves: float = NEVER  # when its machine is told to leave
    killed: bool = False


@dataclass
class Work:
    """What calls cost and which of them are trouble."""

    seconds: dict[int, float]
    load: float = 0.0
    needs: dict[int, int] = field(default_factory=dict)  # parts that a call needs to fit into memory
    oom_kills: Counter[int] = field(default_factory=Counter)  # times that the machine kills whoever is at a call
    lost: Counter[int] = field(default_factory=Counter)  # times that a result is lost
    cut: Counter[int] = field(default_factory=Counter)  # times that a result cannot be fetched
    refused: dict[int, int] = field(default_factory=dict)  # by call: the slot at which it raises an error


class Cluster(Workers):
    """Workers on a virtual clock, and what stands for `ray`."""

    def __init__(self, width: int, work: Work, made: Any = lambda slot, nth: {}, resident: bool = True) -> None:
        super().__init__(width)
        self.resident = resident  # type: ignore[misc]
        self.now, self.work, self._made = 1000.0, work, made
        self._nth = Counter[int]()
        self.processes = [self._process(slot) for slot in range(width)]
        if resident:
            self.fresh = set(range(width))
        self.where: dict[Ref, int] = {}
        self.replaced: list[tuple[float, int, bool]] = []  # when, which slot, and whether it would have answered
        self.still, self.times = 0, Counter[int]()

    # What the drive sees of its workers

    def replace(self, slot: int, calls: Sequence[Any]) -> None:
        for ref in calls:
            ref.dead = True
        if not self.resident:
            return
        old = self.processes[slot]
        healthy = not old.hung and self.now < old.dies and old.ready <= self.now and old.pace == 1.0
        self.replaced.append((self.now, slot, healthy and old.leaves > self.now))
        old.killed = True
        self.processes[slot] = self._process(slot)
        self.fresh.add(slot)

    def leaving(self) -> Sequence[int]:
        return [p.slot for p in self.processes if p.leaves <= self.now] if self.resident else ()

    def _process(self, slot: int) -> Process:
        about = {"ready": 0.0, **self._made(slot, self._nth[slot])}
        self._nth[slot] += 1
        about = {k: v + self.now if k in ("ready", "dies", "leaves") else v for k, v in about.items()}
        return Process(slot, **about)

    def submit(self, number: int, slot: int, parts: int) -> Ref:
        self.times[number] += 1
        ref, process = Ref(number, parts), self.processes[slot]
        if not self.resident:  # a process of its own for each call
            process = self._process(slot)
        self._run(ref, process)
        return ref

    def _run(self, ref: Ref, process: Process) -> None:
        begins = max(self.now, process.ready, process.free)
        if process.hung or process.asked == process.hangs_at:
            process.hung = True
            if process.dies < NEVER:
                self._end(ref, max(self.now, process.dies), ActorDiedError())
            return
        process.asked += 1
        new = ref.number not in process.loaded
        ends = begins + process.pace * (self.work.seconds[ref.number] + self.work.load * new)
        if self.work.refused.get(ref.number) == process.slot:
            ends = begins + 0.1
        if process.dies <= ends:
            self._end(ref, max(self.now, process.dies), ActorDiedError())
            return
        process.free = ends
        self._end(ref, ends, self._value(ref, process, new))
        if isinstance(ref.value, OutOfMemoryError):
            process.dies = ends
        elif not isinstance(ref.value, RayTaskError) and ref.number % self.width == process.slot:
            process.loaded.add(ref.number)

    def _end(self, ref: Ref, when: float, value: Any) -> None:
        if when < NEVER:
            ref.ends, ref.value = when, value

    def _value(self, ref: Ref, process: Process, new: bool) -> Any:
        number = ref.number
        if self.work.refused.get(number) == process.slot:
            return RayTaskError("run", "", StorageError("Its storage answers no more."))
        if self.work.oom_kills[number]:
            self.work.oom_kills[number] -= 1
            return OutOfMemoryError("killed")
        if new and ref.parts < self.work.needs.get(number, 1):
            return RayTaskError("run", "", MemoryError("too large"))
        gone = ObjectLostError("00" * 28, None, "")
        for times, error in ((self.work.lost, gone), (self.work.cut, GetTimeoutError())):
            if times[number]:
                times[number] -= 1
                return error
        return ("value", number)

    # What the drive sees of Ray

    def wait(self, refs: list[Ref], *, num_returns: int, timeout: float, fetch_local: bool) -> tuple[list[Ref], Any]:
        if fetch_local:  # what has ended is brought here
            cut = isinstance(refs[0].value, GetTimeoutError)
            self.now += timeout * cut
            return [] if cut else refs, None
        assert refs and len(refs) == len(set(refs)) and timeout > 0 and num_returns == 1 and not fetch_local
        assert not any(ref.dead for ref in refs)  # nobody would ever answer
        if self.resident:
            assert max(Counter(self.slot_of(ref) for ref in refs).values(), default=0) <= IN_FLIGHT
        before = self.now
        self.now = max(self.now, min(self.now + timeout, *(ref.ends for ref in refs)))
        self.still = self.still + 1 if self.now == before else 0
        assert self.still < 5000, "it spins"
        return [ref for ref in refs if ref.ends <= self.now][:1], None

    def slot_of(self, ref: Ref) -> int:
        return self.where[ref]

    def get(self, ref: Ref, *, timeout: float) -> Any:
        assert ref.ends <= self.now
        if isinstance(ref.value, GetTimeoutError):
            self.now += timeout
        if isinstance(ref.value, RayTaskError):
            raise ref.value.as_instanceof_cause()
        if isinstance(ref.value, BaseException):
            raise ref.value
        return ref.value

    def clock(self) -> float:
        return self.now


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs calls on a cluster: (its results, calls answered, seconds)."""

    def drive(cluster: Cluster, count: int, parts: bool = False, tick: float = 0.5, **settings: Any) -> Any:
        nothing = SimpleNamespace(
            wait=cluster.wait,
            get=cluster.get,
            cancel=lambda ref, **how: setattr(ref, "dead", True),
            cluster_resources=lambda: {"CPU": 1},
        )
        monkeypatch.setattr(ray_calls, "ray", nothing)
        monkeypatch.setattr(ray_calls, "time", SimpleNamespace(monotonic=cluster.clock))
        monkeypatch.setattr(ray_calls, "Flights", functools.partial(Flights, clock=cluster.clock))
        monkeypatch.setattr(ray_calls, "TICK_S", tick)
        monkeypatch.setattr(ray_calls, "progress", lambda items, total, about: items)
        monkeypatch.setattr(ray_calls.log, "disabled", True)  # thousands of lines
        began, told = cluster.now, list[int]()
        cluster.where = {}

        def submit(number: int, slot: int, parts: int) -> Ref:
            ref = cluster.submit(number, slot, parts)
            cluster.where[ref] = slot
            return ref

        one = Drive(RuntimeConfig(name="ray", **settings), "scan", cluster, rows=lambda number: 1, done=told.append)
        if parts:
            found = one.parts(count, lambda *asked: ((ref := submit(*asked)), ("part", ref)))
            found = [("value", part[1].number) for part in found if part[1].value == ("value", part[1].number)]
        else:
            found = one.results(count, submit)
        return found, told, cluster.now - began

    return drive


# Chance


def trouble(seed: int) -> tuple[Cluster, int, dict[str, Any], bool]:
    """Return a cluster that fails in several ways, how many calls it is asked, and with what settings."""
    chance = random.Random(seed)
    width, count = chance.randint(1, 6), chance.choice([1, 2, 3, 7, 20, 40])
    usual = chance.choice([0.001, 0.3, 5.0, 30.0])
    work = Work(
        {n: usual * chance.choice([0.5, 1, 1, 1, 1.5]) * (20 if chance.random() < 0.05 else 1) for n in range(count)},
        load=chance.choice([0.0, 0.0, 3.0, 20.0]),
    )
    some = lambda share: [n for n in range(count) if chance.random() < share]  # noqa: E731
    rate = chance.choice([0.0, 0.05, 0.2])
    work.needs = {n: chance.choice([2, 4]) for n in some(rate)}
    work.oom_kills = Counter(some(rate / 4))
    budget = 4
    work.lost = Counter(some(rate)[:budget])
    work.cut = Counter(some(rate)[:2])
    troubled = chance.sample(["dies", "hangs", "crawls", "starts", "leaves"], chance.randint(0, 3))
    deaths = [6 - len(work.lost) - len(work.cut)]
    hangs = [width - 1]  # where all hang, only the deadline tells, and it does so once in a run

    def made(slot: int, nth: int) -> dict[str, Any]:
        out: dict[str, Any] = {"ready": chance.choice([0.0, 0.5, 2.0])}
        if nth > 2 or chance.random() < 0.4:
            return out
        for one in troubled:
            if one == "dies" and deaths[0] > 0 and chance.random() < 0.5:
                deaths[0] -= 1
                out["dies"] = chance.uniform(0, 20 * usual)
            elif one == "hangs" and hangs[0] > 0 and nth == 0:
                hangs[0] -= 1
                out["hangs_at"] = chance.randint(0, 5)
            elif one == "crawls" and nth == 0:
                out["pace"] = 20.0
            elif one == "starts":
                out["ready"] = chance.choice([10.0, 55.0, 300.0])
            elif one == "leaves" and deaths[0] > 0:
                deaths[0] -= 1
                out["leaves"] = chance.uniform(0, 20 * usual)
                out["dies"] = out["leaves"] + 15
        return out

    cluster = Cluster(width, work, made, resident=chance.random() < 0.8)
    return cluster, count, {"deadline_s": 4000.0, "tick": chance.choice([2.0, 5.0])}, chance.random() < 0.3


@pytest.mark.parametrize("block", range(4))
def test_whatever_happens_each_call_is_answered_once_with_its_own_value(block: int, driven: Any) -> None:
    for seed in range(block, SCHEDULES, 4):
        cluster, count, settings, parts = trouble(seed)
        longest = 25 * max(cluster.work.seconds.values()) + cluster.work.load
        for _ in range(3):  # what one run leaves behind, the next one meets
            found, told, seconds = driven(cluster, count, parts=parts, **settings)
            assert found == [("value", n) for n in range(count)], seed
            assert sorted(told) == list(range(count)), seed
            assert seconds < 2 * settings["deadline_s"] + (count + 20) * (longest + 400), seed


# One thing at a time


def steady(count: int, **more: Any) -> Work:
    return Work({n: 0.05 for n in range(count)}, **more)


def passes(driven: Any, cluster: Cluster, count: int, times: int) -> list[tuple[float, int]]:
    """Run the same calls several times, as the passes of a selection do: (seconds, workers replaced) of each."""
    out = []
    for _ in range(times):
        before = len(cluster.replaced)
        found, _, seconds = driven(cluster, count, tick=1.0)
        assert found == [("value", n) for n in range(count)]
        out.append((seconds, len(cluster.replaced) - before))
    return out


def test_undisturbed_nobody_is_asked_twice(driven: Any) -> None:
    cluster = Cluster(4, steady(40, load=5.0))
    assert [replaced for _, replaced in passes(driven, cluster, 40, 3)] == [0, 0, 0]
    assert set(cluster.times.values()) == {3}


def test_where_all_hang_they_are_replaced_after_the_deadline_and_given_up_after_another(driven: Any) -> None:
    once = Cluster(3, steady(9), lambda slot, nth: {"hangs_at": 1} if nth == 0 else {})
    found, _, seconds = driven(once, 9, deadline_s=100.0)
    assert found == [("value", n) for n in range(9)] and 100 < seconds < 110 and len(once.replaced) == 3
    ever = Cluster(3, steady(9), lambda slot, nth: {"hangs_at": 0})
    with pytest.raises(RuntimeFailure, match=r"within `runtime.deadline_s` = 100 s, twice; still out: "):
        driven(ever, 9, deadline_s=100.0)
    assert ever.now - 1000 < 210


def test_a_hung_worker_is_outrun_and_gone_when_the_run_is_over(driven: Any) -> None:
    cluster = Cluster(3, steady(30), lambda slot, nth: {"hangs_at": 2} if (slot, nth) == (1, 0) else {})
    assert passes(driven, cluster, 30, 2)[0][0] < 3 * SLOW_S + START_S
    assert [slot for _, slot, _ in cluster.replaced] == [1]


def test_a_worker_whose_machine_leaves_is_replaced_when_it_is_done(driven: Any) -> None:
    def made(slot: int, nth: int) -> dict[str, Any]:
        return {"leaves": 6.0, "dies": 21.0} if (slot, nth) == (1, 0) else {}

    cluster = Cluster(3, Work({n: 2.0 for n in range(30)}), made)
    found = driven(cluster, 30)[0]
    assert found == [("value", n) for n in range(30)]
    assert [slot for _, slot, _ in cluster.replaced] == [1] and max(cluster.times.values()) == 1
    assert cluster.replaced[0][0] - 1000 < 21.0  # before its machine went


def test_a_shard_that_does_not_fit_is_cut_in_halves_and_quarters_and_then_named(driven: Any) -> None:
    cluster = Cluster(2, steady(8, needs={3: 4}))
    assert driven(cluster, 8)[0] == [("value", n) for n in range(8)] and cluster.times[3] == 4
    with pytest.raises(RuntimeFailure, match="shard 3 ran out of memory 4 times"):
        driven(Cluster(2, steady(8, needs={3: 8})), 8)


def test_a_copy_that_ran_out_of_memory_too_does_not_count_again(driven: Any) -> None:
    """The call is tried whole by two workers; a quarter of a chunk, which fits, must still be tried."""
    seconds = {n: 5.0 for n in range(16)} | {12: 100.0}
    cluster = Cluster(4, Work(seconds, needs={12: 4}))
    assert driven(cluster, 16)[0] == [("value", n) for n in range(16)]


def test_a_copy_that_fails_is_no_failure_while_the_first_worker_is_at_it(driven: Any) -> None:
    seconds = {n: 1.0 for n in range(16)} | {12: 40.0}
    cluster = Cluster(4, Work(seconds, refused={12: 1}))
    assert driven(cluster, 16)[0] == [("value", n) for n in range(16)]
    assert cluster.times[12] > 1  # slot 1 was asked, and refused


def test_what_fails_on_every_worker_fails_soon(driven: Any) -> None:
    with pytest.raises(StorageError, match="answers no more"):
        driven(Cluster(4, steady(16, refused={12: 0})), 16)


@pytest.mark.parametrize(("width", "count", "load"), [(4, 12, 40.0), (8, 16, 15.0), (8, 32, 15.0), (16, 64, 30.0)])
def test_a_lost_workers_shards_are_built_again_once(width: int, count: int, load: float, driven: Any) -> None:
    """To build a shard takes far longer than a pass over it: that is no reason to replace who does so."""

    def made(slot: int, nth: int) -> dict[str, Any]:
        return {"dies": count / width * load + 0.02} if (slot, nth) == (0, 0) else {}

    cluster = Cluster(width, steady(count, load=load), made)
    found = passes(driven, cluster, count, 6)
    assert sum(replaced for _, replaced in found) == 1
    assert max(seconds for seconds, _ in found[-2:]) < 2.0


def test_one_shard_may_cost_far_more_than_the_others(driven: Any) -> None:
    """A shortlist can lie in one shard alone: its worker is neither hung nor slow."""
    cluster = Cluster(4, Work({n: 0.01 for n in range(16)} | {8: 25.0}, load=2.0))
    assert sum(replaced for _, replaced in passes(driven, cluster, 16, 4)) == 0


def test_a_machine_that_does_not_come_back_is_waited_for_once(driven: Any) -> None:
    def made(slot: int, nth: int) -> dict[str, Any]:
        return {} if slot else {"dies": 5.0} if nth == 0 else {"ready": 1e9}

    found = passes(driven, Cluster(4, steady(40, load=5.0), made), 40, 5)
    assert max(seconds for seconds, _ in found[1:]) < START_S


def test_what_did_not_fit_in_one_pass_is_cut_at_once_in_the_next(driven: Any) -> None:
    cluster = Cluster(4, steady(20, load=5.0, needs={n: 2 for n in range(20)}))
    found = passes(driven, cluster, 20, 3)
    assert found[-1][1] == 0
