"""The contract of every runtime, run on both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import faults
import pytest

from alray.errors import PoolError, RuntimeFailure
from alray.runtime import LocalRuntime, Runtime


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    yield LocalRuntime() if request.param == "local" else request.getfixturevalue("ray_runtime")


def test_call_runs_once_and_returns(runtime: Runtime) -> None:
    assert runtime.call(faults.add_to, 2, 3, stage="add") == 5


def test_map_keeps_the_order_of_items(runtime: Runtime) -> None:
    assert runtime.map(faults.add_to, list(range(50)), 100, stage="add") == list(range(100, 150))


def test_map_of_nothing_is_nothing(runtime: Runtime) -> None:
    assert runtime.map(faults.add_to, [], 1, stage="add") == []


def test_the_users_mistake_keeps_its_type_and_text(runtime: Runtime) -> None:
    with pytest.raises(PoolError, match=r"^The row 7 is wrong\.$"):
        runtime.map(faults.refuse, [7], stage="read")


def test_held_shards_answer_in_shard_order(runtime: Runtime) -> None:
    with runtime.hold(faults.Sleepy, list(range(20)), stage="hold") as held:
        assert held.map(faults.doze, 0.0) == list(range(20))
        assert held.count == 20


def test_reduce_sees_every_part_once_in_order(runtime: Runtime) -> None:
    with runtime.hold(faults.Sleepy, list(range(40)), stage="hold") as held:
        assert held.reduce(faults.numbers_of, faults.concatenate, 2) == [n**2 for n in range(40)]


def test_groups_are_reduced_apart_and_finished_where_they_are(runtime: Runtime) -> None:
    groups = [[0, 1, 2], [5, 4], [3]]
    with runtime.hold(faults.Sleepy, list(range(6)), stage="hold") as held:
        found = held.reduce_groups(faults.numbers_of, faults.concatenate, groups, 1)
        assert found == [[0, 1, 2], [5, 4], [3]]
        assert held.reduce_groups(faults.numbers_of, faults.concatenate, groups, 1, finish=faults.largest) == [2, 5, 3]


@pytest.mark.ray
def test_a_killed_workers_shards_are_replayed_elsewhere(ray_runtime: Runtime, tmp_path: Path) -> None:
    with ray_runtime.hold(faults.Sleepy, list(range(8)), stage="hold") as held:
        before = set(held.map(faults.pid_of))
        assert held.map(faults.die_at, 5, str(tmp_path / "died")) == list(range(8))
        after = set(held.map(faults.pid_of))
    assert (tmp_path / "died").exists()
    assert len(before & after) == 1  # one worker is new, the other was left alone


@pytest.mark.ray
def test_workers_that_always_die_end_in_an_error_that_names_the_shard(ray_runtime: Runtime) -> None:
    said = r"score: workers were lost 9 times, the last at shard 0: "
    with ray_runtime.hold(faults.Sleepy, [0], stage="score") as held, pytest.raises(RuntimeFailure, match=said):
        held.map(faults.always_die)


@pytest.mark.ray
def test_a_failure_that_is_not_the_users_names_stage_and_shard(ray_runtime: Runtime) -> None:
    with pytest.raises(RuntimeFailure, match=r"decode: shard 0 failed with ZeroDivisionError: at 1"):
        ray_runtime.map(faults.stumble, [1], stage="decode")


@pytest.mark.ray
def test_a_hung_worker_meets_the_deadline(ray_runtime: Runtime) -> None:
    from alray.runtime import RuntimeConfig
    from alray.runtime.ray import RayRuntime

    impatient = RayRuntime(RuntimeConfig(workers=1, deadline_s=1.0))
    said = r"no call finished within `runtime.deadline_s` = 1 s, twice; still out: \[0\]"
    with impatient.hold(faults.Sleepy, [0], stage="warm") as held, pytest.raises(RuntimeFailure, match=said):
        held.map(faults.doze, 60.0)


def test_calls_run_beside_held_shards(runtime: Runtime) -> None:
    with runtime.hold(faults.Sleepy, list(range(8)), stage="hold") as held:
        assert held.map(faults.doze, 0.0) == list(range(8))
        assert runtime.call(faults.add_to, 1, 2, stage="add") == 3
        assert runtime.map(faults.add_to, [1, 2, 3], 2, stage="add") == [3, 4, 5]


@pytest.mark.ray
def test_calls_run_beside_shards_that_have_taken_every_cpu(ray_runtime: Runtime) -> None:
    import ray

    from alray.runtime import RuntimeConfig
    from alray.runtime.ray import RayRuntime

    full = RayRuntime(RuntimeConfig(workers=int(ray.cluster_resources()["CPU"]), deadline_s=60))
    with full.hold(faults.Sleepy, list(range(8)), stage="hold") as held:
        assert held.map(faults.doze, 0.0) == list(range(8))
        assert full.call(faults.add_to, 1, 2, stage="add") == 3
