"""How many trials run at a time: as many as can hold all that they ever ask for at once, so that none waits for ever.

A trial on Ray holds a CPU and asks for its workers later. With one trial too many, each could hold a part of its
workers and wait for the rest of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from alray.errors import RuntimeFailure
from alray.runtime import Resources, RuntimeConfig

DRIVER = 1.0
"""CPUs of the process that drives a trial: a campaign in one process needs no more."""

FEEDING = 1.0
"""CPUs of a task that decodes pictures for the workers that embed them: without it they would wait for it for ever."""


@dataclass(frozen=True)
class Need:
    """What one trial holds at most, and what of it its own process holds all the time."""

    whole: Resources
    driver: Resources


def need(runtime: RuntimeConfig, cluster_gpus: float, *, pictures: bool) -> Need:
    """Return what a trial needs: its process, its shard actors or training workers, and what feeds these pictures.

    Where there are GPUs, a trial takes as many as it has workers, which are all if they are fewer.
    """
    if runtime.name == "local":
        alone = Resources(DRIVER, min(1.0, cluster_gpus))
        return Need(alone, alone)
    cpus = DRIVER + runtime.workers + (FEEDING if pictures else 0.0)
    return Need(Resources(cpus, min(float(runtime.workers), cluster_gpus)), Resources(DRIVER))


def at_once(one: Resources, cluster: Resources, asked: int | None) -> int:
    """Return how many trials of this need run at a time: what is asked for, or fewer where there is no room.

    Raises RuntimeFailure if there is not room for one.
    """
    fit = math.floor(cluster.cpus / one.cpus + 1e-9)
    if one.gpus:
        fit = min(fit, math.floor(cluster.gpus / one.gpus + 1e-9))
    if fit < 1:
        raise RuntimeFailure(
            f"One trial needs {one.cpus:g} CPUs (its own, and those of its workers: `campaign.runtime.workers`), and "
            f"the cluster has {cluster.cpus:g}: it would wait for its own workers for ever. Give it fewer workers, run "
            "trials in one process each (`campaign.runtime.name=local`), or join a larger cluster."
        )
    return fit if asked is None else min(fit, asked)
