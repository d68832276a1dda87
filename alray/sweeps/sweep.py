"""A sweep from end to end: many campaigns side by side, the same command after any interruption, and what came of it.

What a trial has done is in its ledger and nowhere else. So a sweep that was cut asks the ledgers, runs what is not
finished, and has nothing of its own to restore.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alray import storage
from alray.campaign.lease import Lease
from alray.errors import AlrayError, ConfigError
from alray.sweeps import best, folder, plots, room, table, trial
from alray.sweeps.best import Best
from alray.sweeps.grid import Trial, expand
from alray.sweeps.outcome import Outcome, collect
from alray.sweeps.prepare import Shared, pictures
from alray.sweeps.settings import Sweep

if TYPE_CHECKING:
    from alray.runtime import ray_tune

log = logging.getLogger(__name__)

MANY = 10**9
"""Labels that no trial buys: the last rung of early stopping where a budget is in dollars alone."""

SHARED = "shared.json"
"""How long the first command took for what all trials share."""


@dataclass(frozen=True)
class Finished:
    """A sweep at the end of a command: how its trials stand, the best of them, and the files that say so."""

    outcome: Outcome
    best: Best | None
    files: list[str]


def run(sweep: Sweep) -> Finished:
    """Run what is not finished of a sweep, and write its results; trials that fail are in them, and stop no other.

    Raises ConfigError for settings that make no sweep, RunError where the folder has another sweep or another driver,
    RuntimeFailure where the cluster has no room for one trial.
    """
    trials = expand(sweep)
    settings = trials[0].settings
    storage.configure(settings.storage.endpoint, settings.storage.region)
    _refuse_run(sweep)
    with Lease(storage.join(sweep.home, folder.LEASE)) as lease:
        folder.keep(sweep)
        failed = _run(sweep, trials, lease.check)
        lease.check()
        outcome = collect(sweep.home, trials, folder.stopped(sweep.home), failed, _shared(sweep))
        return write(sweep, outcome)


def _refuse_run(sweep: Sweep) -> None:
    if storage.exists(storage.join(sweep.home, "run.json")):
        raise ConfigError(f"`sweep.folder` {sweep.config.folder!r} is a run's own folder. Give the sweep another.")


def write(sweep: Sweep, outcome: Outcome) -> Finished:
    """Write the tables, the pictures and the best configuration into the sweep's folder."""
    chosen = best.best(outcome, sweep.config.best) if sweep.config.best else None
    files = {
        "table.csv": table.to_csv(outcome),
        "table.md": table.markdown(outcome, chosen),
        **plots.plots(outcome),
    }
    if chosen is not None:
        files["best.yaml"] = best.as_yaml(chosen, sweep.config.folder, _seed(sweep))
    for name, text in files.items():
        storage.write_bytes(storage.join(sweep.home, name), text.encode())
    storage.write_json(storage.join(sweep.home, "table.json"), table.to_json(outcome, chosen))
    return Finished(outcome, chosen, [storage.join(sweep.config.folder, name) for name in [*files, "table.json"]])


# Running


def _run(sweep: Sweep, trials: Sequence[Trial], check: Callable[[], None]) -> dict[str, str]:
    """Run the trials that are neither done nor stopped early; return the errors of those that failed.

    `check` raises where another sweep has taken the folder over.
    """
    begun = {one.name: trial.existing(one.settings.run) for one in trials}
    over = {name for name, status in begun.items() if status and status.state == "done"} | folder.stopped(sweep.home)
    todo = [one for one in trials if one.name not in over]
    log.info("%d trials, %d of them finished before", len(trials), len(trials) - len(todo))
    if not todo:
        return {}
    before = {name: trial.reports(status) for name, status in begun.items() if status}
    one_by_one = sweep.config.runtime == "local"
    return _in_process(sweep, todo, check) if one_by_one else _on_tune(sweep, todo, before, check)


def _in_process(sweep: Sweep, todo: Sequence[Trial], check: Callable[[], None]) -> dict[str, str]:
    failed: dict[str, str] = {}
    for one in _prepared(sweep, todo):
        check()
        try:
            trial.drive(trial.payload(one.settings), functools.partial(_told, one.name))
        except AlrayError as error:
            failed[one.name] = str(error)
        except Exception as error:  # of this trial, and of no other
            log.exception("%s failed", one.name)
            failed[one.name] = f"{type(error).__name__}: {error}"
    return failed


def _on_tune(
    sweep: Sweep, todo: Sequence[Trial], before: Mapping[str, list[trial.Report]], check: Callable[[], None]
) -> dict[str, str]:
    def told(name: str, report: trial.Report) -> bool:
        check()
        return _told(name, report)

    from alray.runtime import ray_cluster

    runtime = todo[0].settings.runtime
    ray_cluster.prepare_environment(runtime)  # Ray reads its environment when it is imported
    from alray.runtime import ray_tune

    ray_tune.check_loggers(sweep.config.log_to)
    embedded = any(pictures(one.settings) for one in todo)
    least = room.need(runtime, 0.0, pictures=embedded).whole.cpus
    with ray_tune.cluster(runtime, least) as found:
        need = room.need(runtime, found.gpus, pictures=embedded)
        width = room.at_once(need.whole, found, sweep.config.concurrency)
        log.info("%d trials, %d at a time on %g CPUs", len(todo), width, found.cpus)
        return ray_tune.run(
            [_job(one, before.get(one.name, [])) for one in _prepared(sweep, todo)],
            trial.drive,
            at_once=width,
            each=need.driver,
            early=_early(sweep, todo, before),
            log_to=sweep.config.log_to,
            folder=sweep.home,
            steps=trial.LABELS,
            told=told,
        )


def _job(one: Trial, before: Sequence[trial.Report]) -> ray_tune.Job:
    from alray.runtime import ray_tune

    return ray_tune.Job(one.name, trial.payload(one.settings), {**one.varied, "seed": one.seed}, before)


def _early(sweep: Sweep, todo: Sequence[Trial], before: Mapping[str, list[trial.Report]]) -> ray_tune.Early | None:
    from alray.runtime import ray_tune

    asha, mine = sweep.config.asha, {one.name for one in todo}
    if asha is None:
        return None
    return ray_tune.Early(
        time=trial.LABELS,
        metric=trial.ACCURACY,
        most=max(one.settings.budget.total or MANY for one in todo),
        grace=asha.grace,
        reduction=asha.reduction,
        stopped=lambda name, report: folder.stop(sweep.home, name, report),
        others={name: reports for name, reports in before.items() if name not in mine},
    )


def _told(name: str, report: trial.Report) -> bool:
    log.info("%s: %d labels, accuracy %.4f", name, report[trial.LABELS], report[trial.ACCURACY])
    return True


# What all trials share


def _prepared(sweep: Sweep, todo: Sequence[Trial]) -> list[Trial]:
    """Make what the trials share, and note how long it took the first time."""
    shared = Shared(_seed(sweep), todo[0].settings.runtime)
    found = shared.trials(todo)
    storage.put_once(_shared_uri(sweep), json.dumps({"schema": 1, **shared.seconds}).encode())
    return found


def _shared(sweep: Sweep) -> dict[str, float]:
    if not storage.exists(_shared_uri(sweep)):
        return {}
    found = storage.read_json(_shared_uri(sweep))
    return {name: float(seconds) for name, seconds in found.items() if name != "schema"}


def _shared_uri(sweep: Sweep) -> str:
    return storage.join(sweep.home, SHARED)


def _seed(sweep: Sweep) -> int:
    """Return the seed of what all trials share, and of the best campaign: the campaign's own."""
    seed = sweep.campaign.get("seed", 0)
    return seed if isinstance(seed, int) else 0
