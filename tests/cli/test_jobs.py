"""Exit codes that say whether to retry, lines for machines, what a job may not do; and `ray job submit` for real."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import job_head
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits

from alray import gauges
from alray.campaign import workplace
from alray.campaign.status import ready, status
from alray.cli import app
from alray.errors import AlrayError, RuntimeFailure, TrainingError
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


# A real cluster behind a token

DIGITS = """
run: {run}
pool: pool.parquet
test: {{path: test.parquet, labels: test.parquet}}
strategy: alfa_mix
budget: {{initial: 60, per_round: 40, total: 140}}
labeller: {{name: oracle, path: pool.parquet}}
costs: {{label: 0.05, cpu_hour: 3.6}}
runtime: {{name: ray, workers: 2}}
"""


@pytest.fixture(scope="module")
def head() -> Iterator[job_head.Head]:
    if importlib.util.find_spec("aiohttp_cors") is None:
        pytest.skip("Ray takes jobs and serves metrics only with more of its parts: pip install -e '.[dev]'")
    with job_head.started() as one:
        yield one


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Return a working folder to submit: a campaign on the pixels of digits, which keeps its run outside of it."""
    found = load_digits()
    pixels = pa.FixedSizeListArray.from_arrays(pa.array((found.data / 16).astype(np.float16).ravel()), 64)
    ids = [f"digit-{n:04d}" for n in range(len(found.target))]
    table = pa.table({"id": ids, "features": pixels, "label": [str(label) for label in found.target]})
    folder = tmp_path / "work"
    folder.mkdir()
    pq.write_table(table.slice(0, 1400), folder / "pool.parquet")
    pq.write_table(table.slice(1400), folder / "test.parquet")
    (folder / "digits.yaml").write_text(DIGITS.format(run=tmp_path / "run"))
    return folder


def own_lines(text: str) -> list[dict[str, Any]]:
    """Return the lines of alray's own log in what a job printed."""
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"time"')]


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_job_that_is_stopped_gives_all_back_and_the_same_one_goes_on(head: job_head.Head, work: Path) -> None:
    run = work.parent / "run"
    many = ["run", "digits.yaml", "budget.per_round=2", "budget.total=1000"]
    assert head.submit("stopped", work, *many, wait=False).code == 0
    give_up = time.monotonic() + 250
    while not (run / "rounds/0002/round.json").exists():
        assert time.monotonic() < give_up, head.job("logs", "stopped").text
        time.sleep(0.05)
    stopped = head.job("stop", "stopped")
    assert "stopped" in stopped.text.lower(), stopped.text
    last = own_lines(head.job("logs", "stopped").text)[-1]
    assert last["exit_code"] == 128 + signal.SIGTERM and last["message"].startswith("Stopped by SIGTERM.")
    assert json.loads((run / "lease.json").read_text())["released"]
    before = status(str(run))
    assert ready(str(run)) and before.state == "running"

    asked = before.labels + 80
    with head.watched() as seen:
        ended = head.submit("goes-on", work, "run", "digits.yaml", f"budget.total={asked}")
    assert ended.code == 0 and head.exit_code("goes-on") == 0, ended.text
    assert head.token not in ended.text
    now = status(str(run))  # which raises where the ledger does not balance, or an id was asked for twice
    assert (now.state, now.labels, now.outstanding) == ("done", asked, 0) and now.rounds - before.rounds in (2, 3)
    found = own_lines(ended.text)
    assert {line["run"] for line in found} == {str(run)} and now.rounds - 1 in {line["round"] for line in found}
    assert {"labels", "select"} <= {line.get("stage") for line in found}
    assert found[-1]["message"] == f"{run}: done"
    # What Prometheus would have kept is what the ledger says.
    name = str(run)
    assert seen["alray_labels_bought", name] == asked and seen["alray_round", name] == now.rounds
    assert seen["alray_cost_dollars", name, "labels"] == pytest.approx(0.05 * asked)
    assert seen["alray_cost_dollars", name, "compute"] == pytest.approx(now.compute_dollars)
    assert seen["alray_accuracy_ratio", name] == now.accuracy[-1]
    assert [seen["alray_state", name, state] for state in ("running", "done")] == [0, 1]
    assert seen["alray_stage_seconds", name, "select"] > 0 and seen["alray_quarantined_rows", name] == 0
    assert seen["alray_rows_scanned_total", name, "load"] == 1400
    assert seen["alray_rows_scanned_total", name, "select"] >= 2 * 1400


@pytest.mark.ray
def test_without_the_token_nothing_is_submitted(head: job_head.Head, work: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("0" * 64)
    for number, (other, told) in enumerate(
        [
            ({"RAY_AUTH_MODE": "disabled"}, "Missing authentication token"),
            ({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}, "Invalid authentication token"),
        ]
    ):
        refused = head.submit(f"thief-{number}", work, "run", "digits.yaml", **other)
        assert refused.code != 0 and told in refused.text, refused.text
    assert not (work.parent / "run").exists()


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_job_with_a_mistake_ends_with_exit_code_2(head: job_head.Head, work: Path) -> None:
    ended = head.submit("mistake", work, "run", "digits.yaml", "sed=1")
    assert ended.code != 0 and head.exit_code("mistake") == 2
    (line, *again) = own_lines(ended.text)  # Ray repeats a failed job's last lines
    assert line["exit_code"] == 2 and "sed: unknown key" in line["message"] and "`seed`" in line["message"]
    assert all(one == line for one in again) and not (work.parent / "run").exists()
