"""`ray job submit`: exit codes that say whether to retry, lines for machines, and what a job may not do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from alray import gauges
from alray.campaign import workplace
from alray.campaign.status import ready, status
from alray.cli import app
from alray.errors import AlrayError, RuntimeFailure
from alray.log import Format, setup
from alray.runtime import ray_cluster

Alray = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def text_again(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave the environment and the log's format as they were."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.delenv(app.FORMAT_VARIABLE, raising=False)
    yield
    setup(format=Format.TEXT)


@pytest.fixture
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process look like one that `ray job submit` started."""
    monkeypatch.setenv(ray_cluster.JOB, '{"runtime_env": {}, "metadata": {}}')


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# Lines


def test_every_command_says_how_its_log_is_written(alray: Alray) -> None:
    names = {command.name or command.callback.__name__ for command in app.app.registered_commands}  # type: ignore[union-attr]
    assert {"run", "select", "features", "status", "check", "report"} <= names
    for name in names:
        code, out, _ = alray(name, "--help")
        assert code == 0 and "--log-format" in out and app.FORMAT_VARIABLE in out, name


def test_a_campaigns_lines_say_run_round_and_stage(campaign: str, alray: Alray) -> None:
    code, out, err = alray("run", campaign, "strategy=alfa_mix", "--log-format", "json")
    assert code == 0 and out.split()[:3] == ["round", "new", "labels"]
    home = str(Path(campaign).with_name("run"))
    found = lines(err)
    assert all(line["run"] == home for line in found)
    asked = [line for line in found if line["logger"] == "alray.campaign.asking"]
    assert [(line["round"], line["stage"]) for line in asked] == [(0, "labels"), (1, "labels"), (2, "labels")]
    chosen = [line for line in found if line["logger"] == "alray.selection.offers"]
    assert {line["stage"] for line in chosen} == {"select"} and {line["round"] for line in chosen} >= {1, 2}
    assert found[-1]["message"] == f"{home}: done"


def test_the_variable_is_the_same_and_the_option_comes_first(
    campaign: str, alray: Alray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(app.FORMAT_VARIABLE, "json")
    assert lines(alray("run", campaign)[2])
    assert not alray("run", campaign, "--log-format=text")[2].startswith("{")
    monkeypatch.setenv(app.FORMAT_VARIABLE, "xml")
    code, _, err = alray("run", campaign)
    assert code == 2 and "'xml' is not one of 'text', 'json'" in err


# Exit codes


@pytest.mark.parametrize(
    ("error", "code"), [(AlrayError("odd"), 1), (RuntimeFailure("no worker lives"), 1), (KeyError("lost"), 1)]
)
def test_an_ending_is_a_line_with_its_exit_code(
    campaign: str, alray: Alray, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(workplace, "open_runtime", fail)
    ended, _, err = alray("run", campaign, "--log-format", "json")
    last = lines(err)[-1]
    assert (ended, last["exit_code"], last["level"]) == (code, code, "ERROR")
    ours = isinstance(error, KeyError)
    assert last["message"].startswith("This is a fault of alray" if ours else str(error))
    assert ("exception" in last) == ours and (not ours or last["exception"].endswith("KeyError: 'lost'"))


def test_a_mistake_is_a_line_with_exit_code_2(alray: Alray) -> None:
    code, _, err = alray("run", "no.yaml", "--log-format", "json")
    [line] = lines(err)
    assert (code, line["exit_code"]) == (2, 2) and "There is no config file at 'no.yaml'" in line["message"]


def test_what_is_refused_before_workers_is_not_submitted_again(campaign: str, alray: Alray) -> None:
    home, oracle = Path(campaign).with_name("run"), Path(campaign).with_name("pool.parquet")
    pool = oracle.read_bytes()
    table = pq.read_table(oracle)
    pq.write_table(table.take([0, *range(len(table))]), oracle)  # an id that stands twice
    for _ in range(2):
        code, _, err = alray("run", campaign)
        assert code == 2 and "pool-000" in err
        now = status(str(home))
        assert (now.state, ready(str(home))) == ("failed", False) and "pool-000" in now.message
    oracle.write_bytes(pool)
    assert alray("run", campaign)[0] == 0  # put right, it goes on: nothing has to be deleted
    assert status(str(home)).state == "done"


def test_a_failure_with_workers_stays_the_reason(campaign: str, alray: Alray, monkeypatch: pytest.MonkeyPatch) -> None:
    from alray.errors import TrainingError

    def fail(*_: object) -> None:
        raise TrainingError("the loss is NaN")

    with monkeypatch.context() as patch:
        patch.setattr("alray.campaign.stages.Stages.fit", fail)
        assert alray("run", campaign)[0] == 1
    pool = Path(campaign).with_name("pool.parquet")
    with monkeypatch.context() as patch:
        patch.setattr(workplace, "open_runtime", None)  # it would be called in vain
        hidden = pool.rename(pool.with_suffix(".gone"))
        assert alray("run", campaign)[0] == 2
        hidden.rename(pool)
        code, _, err = alray("run", campaign)
    assert code == 2 and "failed before, and would again: the loss is NaN" in err


# What a job may not do


def test_a_job_writes_nothing_into_its_working_folder(campaign: str, alray: Alray, job: None) -> None:
    assert alray("run", campaign)[0] == 0  # an absolute folder
    words = ["run=runs/x", "features.path=features"]
    code, _, err = alray("run", campaign, *words)
    assert code == 2
    assert "`run` ('runs/x'), `features.path` ('features'): relative, and this is a Ray job" in err
    assert "absolute paths" in err and "s3://" in err
    code, out, _ = alray("check", campaign, *words)
    assert code == 2 and "wrong  ray job      `run` ('runs/x')" in out
    assert "ok     ray job" in alray("check", campaign)[1]


def test_outside_of_a_job_a_relative_folder_is_fine(
    campaign: str, alray: Alray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert alray("run", campaign, "run=runs/x")[0] == 0
    assert (tmp_path / "runs/x/run.json").exists()


def test_a_cluster_without_a_token_is_refused(campaign: str, alray: Alray, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", campaign, "runtime.name=ray", "runtime.address=10.0.0.7:6379"]
    for mode in ("disabled", ""):
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        code, _, err = alray(*words)
        assert code == 2
        assert "`runtime.address` is '10.0.0.7:6379', beyond loopback, and RAY_AUTH_MODE is not `token`" in err
        assert "RAY_AUTH_TOKEN_PATH" in err and "runtime.insecure=true" in err
    assert gauges.value("alray_round") is None


def test_a_job_on_a_cluster_without_a_token_is_refused_by_the_address_that_it_was_given(
    campaign: str, alray: Alray, job: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    code, _, err = alray("run", campaign, "runtime.name=ray")
    assert code == 2 and "`runtime.address` is 'auto', which is 10.0.0.7:6379, beyond loopback" in err
