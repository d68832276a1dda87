"""How many trials run at a time: never so many that one could wait for what another holds."""

from __future__ import annotations

import itertools

import pytest

from alray.errors import RuntimeFailure
from alray.runtime import Resources, RuntimeConfig
from alray.sweeps.room import at_once, need


def ray(workers: int) -> RuntimeConfig:
    return RuntimeConfig(name="ray", workers=workers)


def test_a_trial_in_one_process_takes_one_cpu() -> None:
    one = need(RuntimeConfig(name="local", workers=8), 0.0, pictures=True)
    assert one.whole == one.driver == Resources(1.0)
    assert need(RuntimeConfig(name="local"), 4.0, pictures=False).driver == Resources(1.0, 1.0)
    assert at_once(one.whole, Resources(5.0), None) == 5


def test_a_trial_on_ray_takes_its_own_cpu_and_those_of_its_workers() -> None:
    assert need(ray(2), 0.0, pictures=False).whole == Resources(3.0)
    assert need(ray(2), 0.0, pictures=True).whole == Resources(4.0)
    assert need(ray(2), 0.0, pictures=True).driver == Resources(1.0)


@pytest.mark.parametrize(("gpus", "each"), [(1.0, 1.0), (2.0, 2.0), (8.0, 2.0)])
def test_a_trial_on_ray_takes_the_gpus_that_its_workers_ask_for(gpus: float, each: float) -> None:
    one = need(ray(2), gpus, pictures=False)
    assert one.whole.gpus == each and one.driver.gpus == 0
    assert at_once(one.whole, Resources(1000.0, gpus), None) == gpus / each


def test_no_trial_waits_for_another() -> None:
    for cpus, workers, asked, gpus in itertools.product(range(3, 40), range(1, 9), (None, 1, 3, 100), (0.0, 1.0, 8.0)):
        one = need(ray(workers), gpus, pictures=bool(cpus % 2)).whole
        if one.cpus > cpus:
            continue
        width = at_once(one, Resources(float(cpus), gpus), asked)
        assert width >= 1 and width <= (asked or width)
        assert width * one.cpus <= cpus and width * one.gpus <= gpus
        more = width + 1
        assert width == asked or more * one.cpus > cpus or (one.gpus and more * one.gpus > gpus)


def test_where_not_one_fits_it_is_said() -> None:
    with pytest.raises(RuntimeFailure) as refused:
        at_once(need(ray(4), 0.0, pictures=False).whole, Resources(4.0), 1)
    assert str(refused.value) == (
        "One trial needs 5 CPUs (its own, and those of its workers: `campaign.runtime.workers`), and the cluster has "
        "4: it would wait for its own workers for ever. Give it fewer workers, run trials in one process each "
        "(`campaign.runtime.name=local`), or join a larger cluster."
    )
