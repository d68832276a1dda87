"""What stands between a sweep and Ray Tune, without a cluster: early stopping that remembers, and loggers."""

from __future__ import annotations

import importlib.util
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from ray import cloudpickle

from alray.errors import ConfigError
from alray.runtime import ray_tune
from alray.runtime.ray_tune import Early, Job, _Halving, check_loggers


def report(labels: int, accuracy: float) -> dict[str, Any]:
    return {"labels_used": labels, "accuracy": accuracy}


def trial(name: str) -> Any:
    return SimpleNamespace(trial_id=f"id-{name}", config={"job": {"name": name}})


class Halving:
    """Early stopping at 20, 40 and 80 labels, one in two, with what it said of whom."""

    def __init__(self, *jobs: Job, **others: list[dict[str, Any]]) -> None:
        self.stopped: list[tuple[str, int]] = []
        early = Early(
            time="labels_used",
            metric="accuracy",
            most=100,
            grace=20,
            reduction=2.0,
            stopped=lambda name, told: self.stopped.append((name, told["labels_used"])),
            others=others,
        )
        self.scheduler, self.trials = _Halving(early, jobs), {job.name: trial(job.name) for job in jobs}
        for one in self.trials.values():
            self.scheduler.on_trial_add(None, one)

    def told(self, name: str, labels: int, accuracy: float) -> str:
        return self.scheduler.on_trial_result(None, self.trials[name], report(labels, accuracy))


def jobs(*names: str, **before: list[dict[str, Any]]) -> list[Job]:
    return [Job(name, None, before=before.get(name, [])) for name in names]


def test_what_is_behind_at_a_rung_is_stopped_and_nothing_between_rungs() -> None:
    halving = Halving(*jobs("a", "b"))
    assert halving.told("a", 10, 0.1) == halving.told("b", 10, 0.9) == "CONTINUE"  # before the grace is over
    assert halving.told("a", 20, 0.8) == "CONTINUE"
    assert halving.told("b", 20, 0.5) == "STOP" and halving.stopped == [("b", 20)]
    assert halving.told("a", 30, 0.1) == "CONTINUE"


def test_the_last_rung_is_no_end_of_its_own() -> None:
    halving = Halving(*jobs("a"))
    assert [halving.told("a", labels, 0.5) for labels in (20, 40, 80, 100, 200)] == ["CONTINUE"] * 5


def test_trials_of_earlier_commands_still_count() -> None:
    fresh, again = Halving(*jobs("a")), Halving(*jobs("a"), done=[report(20, 0.9), report(40, 0.95)])
    assert fresh.told("a", 20, 0.5) == "CONTINUE"
    assert again.told("a", 20, 0.5) == "STOP" and again.stopped == [("a", 20)]


def test_a_trial_that_goes_on_is_not_judged_again_by_its_past() -> None:
    halving = Halving(*jobs("a", a=[report(20, 0.5)]), done=[report(20, 0.9), report(40, 0.4)])
    assert not halving.stopped
    assert halving.told("a", 20, 0.5) == "CONTINUE"  # it passed this rung before
    assert halving.told("a", 40, 0.6) == "CONTINUE"
    assert not halving.stopped


def test_what_is_told_again_is_counted_once() -> None:
    halving = Halving(*jobs("a", "b", a=[report(20, 0.9), report(40, 0.9)]))
    rungs = {milestone: list(seen.values()) for milestone, seen in halving.scheduler._brackets[0]._rungs}
    assert rungs == {20: [0.9], 40: [0.9], 80: []}
    halving.told("a", 60, 0.9)
    assert {m: len(seen) for m, seen in halving.scheduler._brackets[0]._rungs} == {20: 1, 40: 1, 80: 0}


@pytest.mark.parametrize(
    ("name", "install"), [("mlflow", "mlflow-skinny sqlalchemy alembic"), ("tensorboard", "tensorboardX")]
)
def test_a_logger_that_is_not_installed_is_refused_with_what_to_install(
    name: str, install: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    missing = ray_tune.PACKAGES[name][0]
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *rest: None if one == missing else find(one, *rest))
    with pytest.raises(ConfigError) as refused:
        check_loggers([name])
    assert str(refused.value) == (
        f"`sweep.log_to` names {name}, which needs the package {missing}, and it is not installed: pip install "
        f"{install}, or take {name} out."
    )


def test_loggers_that_are_installed_and_none_at_all_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda one, *rest: object())
    check_loggers(["mlflow", "tensorboard"])
    check_loggers([])


def test_what_listens_to_reports_may_hold_what_cannot_travel() -> None:
    """Tune writes its callbacks down; a sweep's holds its lease, and with it a lock."""
    lock = threading.Lock()
    listener = ray_tune._Told(lambda name, report: lock.locked())
    assert cloudpickle.loads(cloudpickle.dumps(listener))._told is None and listener._told is not None
