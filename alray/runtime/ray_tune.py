"""Jobs side by side on Ray Tune: each reports as it goes, may be stopped where it lags behind, and fails alone.

Tune keeps nothing that anybody reads again. A job knows from its own files how far it is, so a sweep that was cut
starts a fresh Tuner over what is not finished: `Tuner.restore` would begin from Tune's snapshot, which is older than
the files after a kill, is a pickle, and takes a trial for finished, or for its first step, where the files know better.
Only what early stopping has seen is told again: the reports of all jobs before.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ray
from ray import tune
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from alray import storage
from alray.errors import AlrayError, ConfigError, RuntimeFailure
from alray.runtime import ray_cluster
from alray.runtime.base import Resources, RuntimeConfig

log = logging.getLogger(__name__)

Report = dict[str, Any]
Work = Callable[[Any, Callable[[Report], bool]], None]
"""`work(payload, report)`: a module-level function; `report(numbers)` returns False once the job is to end."""

SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # a signal ends the command, and not only the tuning
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # only those that are asked for
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a job that fails reports no accuracy
    "RAY_AIR_NEW_OUTPUT": "0",  # the other one prints what it was told to keep to itself
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths mean what they mean to the sweep
}

LOST = 2
"""Times that a job whose process is lost is started again: it goes on from its own files."""

ERROR, TRACE = "error", "trace"
STEPS = "timesteps_total"
"""What Tune's loggers draw curves over."""

PACKAGES = {
    "mlflow": ("mlflow", "mlflow-skinny sqlalchemy alembic"),
    "tensorboard": ("tensorboardX", "tensorboardX"),
}
"""What each logger imports, and what to install for it: mlflow-skinny leaves pyarrow as it is, and needs a database."""


@dataclass(frozen=True)
class Job:
    """One job: what `work` is given, what loggers show of it, and its reports of earlier commands, in order."""

    name: str
    payload: Any
    about: Mapping[str, Any] = field(default_factory=dict)
    before: Sequence[Report] = ()


@dataclass(frozen=True)
class Early:
    """Asynchronous successive halving: rungs at `grace`·`reduction`ᵏ of the report's `time`, up to `most`.

    `stopped(name, report)` is called before a job is told to end; `others` are reports of jobs that run no more.
    """

    time: str
    metric: str
    most: int
    grace: int
    reduction: float
    stopped: Callable[[str, Report], None]
    others: Mapping[str, Sequence[Report]] = field(default_factory=dict)


@contextmanager
def cluster(config: RuntimeConfig, least_cpus: float) -> Iterator[Resources]:
    """Join the cluster at `config.address`, or start one with `least_cpus` logical CPUs or as many as there are cores.

    Yields what it has; one that was started here ends with the block.
    """
    os.environ.update(SETTINGS)
    owned = ray_cluster.join(config.model_copy(update={"workers": max(1, int(least_cpus) - 2)}))
    try:
        found = ray.cluster_resources()
        cpus = found.get("CPU", 0.0)
        if owned and ray_cluster.address_of(config) is None:
            # Ray was told of more CPUs than there are, so that actors that only wait take none from the others.
            cpus = min(cpus, max(float(os.cpu_count() or 1), least_cpus))
        yield Resources(cpus, found.get("GPU", 0.0))
    finally:
        if owned and ray.is_initialized():
            with ray_cluster.own_signals():
                ray.shutdown()


def check_loggers(names: Sequence[str]) -> None:
    """Raise ConfigError if what a logger needs is not installed: said before any work is done."""
    for name in names:
        package, install = PACKAGES[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError(
                f"`sweep.log_to` names {name}, which needs the package {package}, and it is not installed: "
                f"pip install {install}, or take {name} out."
            )


def run(
    jobs: Sequence[Job],
    work: Work,
    *,
    at_once: int,
    each: Resources,
    early: Early | None = None,
    log_to: Sequence[str] = (),
    folder: str = "",
    steps: str = "",
    told: Callable[[str, Report], object] = lambda name, report: None,
) -> dict[str, str]:
    """Run all jobs, `at_once` at a time, each in a process that holds `each`; return what those that failed said.

    `told(name, report)` is called here for each report. Loggers write below `folder`, curves over the number that
    reports call `steps`. `cluster` must be open.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what happens to jobs is said by `_Told`
    payloads = {job.name: job.payload for job in jobs}
    entry = functools.partial(_entry, work=work, payloads=payloads, steps=steps)
    with tempfile.TemporaryDirectory(prefix="alray-tune-") as temporary:
        callbacks = [_Told(told), *(_logger(name, folder) for name in log_to)]
        tuner = tune.Tuner(
            tune.with_resources(entry, {"CPU": each.cpus, **({"GPU": each.gpus} if each.gpus else {})}),
            param_space={"job": tune.grid_search([{**job.about, "name": job.name} for job in jobs])},
            tune_config=tune.TuneConfig(
                max_concurrent_trials=at_once,
                scheduler=_Halving(early, jobs) if early else None,
                trial_name_creator=_name,
                trial_dirname_creator=_name,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=temporary,
                verbose=0,
                callbacks=callbacks,
                failure_config=tune.FailureConfig(max_failures=LOST),
            ),
        )
        try:
            return _failures(tuner.fit())
        except tune.TuneError as error:
            raise RuntimeFailure(f"Ray Tune gave up: {error} Run the same command again to go on.") from error
        finally:
            if "tensorboard" in log_to:
                _keep_events(Path(temporary), storage.join(folder, "tensorboard"))


def _name(trial: Any) -> str:
    return str(trial.config["job"]["name"])


def _failures(results: Any) -> dict[str, str]:
    """Return the errors of jobs: what they raised, or how their process was lost."""
    failed: dict[str, str] = {}
    for result in results:
        name, last = result.config["job"]["name"], result.metrics or {}
        if result.error is not None:
            failed[name] = f"Its process was lost {LOST + 1} times: {result.error}"
        elif ERROR in last:
            failed[name] = last[ERROR]
    return failed


# On the workers


def _entry(config: dict[str, Any], *, work: Work, payloads: Mapping[str, Any], steps: str) -> Report | None:
    """Do one job. What it raises is reported, since Tune would start it again, which is for lost processes alone."""
    stopped = False

    def report(numbers: Report) -> bool:
        nonlocal stopped
        try:
            tune.report({**numbers, **({STEPS: numbers[steps]} if steps else {})})
        except SystemExit:  # how Tune ends a function
            stopped = True
        return not stopped

    try:
        work(payloads[config["job"]["name"]], report)
    except Exception as error:  # of the job, and of no other
        if isinstance(error, AlrayError):
            return {ERROR: str(error)}
        return {ERROR: f"{type(error).__name__}: {error}", TRACE: traceback.format_exc()}
    if stopped:
        raise SystemExit(0)  # Tune listens no more
    return None


# On the driver


class _Told(TrialProgressCallback):  # type: ignore[misc]
    """Passes reports on, in place of what Tune would print of them."""

    def __init__(self, told: Callable[[str, Report], object]) -> None:
        super().__init__()
        self._told = told

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_told": None}  # Tune writes its callbacks down; nobody reads them, and locks do not go

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Report, **info: Any) -> None:
        if ERROR in result:
            log.error("%s failed: %s", _name(trial), result.get(TRACE, result[ERROR]))
        else:
            self._told(_name(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say nothing."""

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        log.warning("%s: its process was lost; it goes on in another one", _name(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        log.error("%s: its process was lost again and again", _name(trial))


class _Halving(AsyncHyperBandScheduler):  # type: ignore[misc]
    """Tune's own halving, which knows what was reported before, and says whom it stops before it does."""

    def __init__(self, early: Early, jobs: Sequence[Job]) -> None:
        super().__init__(
            time_attr=early.time,
            metric=early.metric,
            mode="max",
            max_t=max(early.most, early.grace),
            grace_period=early.grace,
            reduction_factor=early.reduction,
            stop_last_trials=False,
        )
        self._early, self._before = early, {job.name: job.before for job in jobs}
        for name, reports in early.others.items():
            self._recall(SimpleNamespace(trial_id=f"before-{name}"), reports)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._recall(trial, self._before.get(_name(trial), ()))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Report) -> str:
        decision: str = super().on_trial_result(tune_controller, trial, result)
        if decision == TrialScheduler.STOP:
            self._early.stopped(_name(trial), result)
        return decision

    def _recall(self, trial: Any, reports: Sequence[Report]) -> None:
        """Enter reports that were decided on before: their trial went on after each of them."""
        super().on_trial_add(None, trial)
        for report in reports:
            super().on_trial_result(None, trial, report)


def _logger(name: str, folder: str) -> Any:
    if name == "tensorboard":
        from ray.tune.logger import TBXLoggerCallback

        return TBXLoggerCallback()
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    local = storage.local_path(folder)
    beside = None if local is None else f"sqlite:///{local / 'mlflow.db'}"
    return MLflowLoggerCallback(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or beside,
        experiment_name=folder.rstrip("/").rsplit("/", 1)[-1],
    )


def _keep_events(temporary: Path, folder: str) -> None:
    """Copy TensorBoard's files to where they are looked for."""
    for file in temporary.rglob("events.out.tfevents.*"):
        storage.write_bytes(storage.join(folder, file.parent.name, file.name), file.read_bytes())
