"""The job's script: it checks, asks for the campaign's workers, waits for them, and runs the campaign."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import campaigns
import pytest
import yaml
from deploy.conftest import parsed

import alray
from alray import config
from alray.campaign import states
from alray.campaign.ledger import Ledger
from alray.runtime import RuntimeConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    campaigns.write_pool(folder)
    return folder


@pytest.fixture
def start(script: Any, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: ModuleType = script("start")
    monkeypatch.setattr(module, "POLL_S", 0.0)
    return module


@pytest.fixture
def settings(data: Path, tmp_path: Path) -> alray.Settings:
    return campaigns.settings(data, tmp_path / "run", runtime={"name": "ray", "address": "auto", "workers": 3})


class Ray:
    """Stands for a cluster: what it has at each look, and what it was asked for."""

    def __init__(self, *looks: dict[str, float]) -> None:
        self.looks, self.asked, self.joined = list(looks), list[list[dict[str, float]]](), False

    def cluster_resources(self) -> dict[str, float]:
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    def request_resources(self, bundles: list[dict[str, float]]) -> None:
        assert self.joined, "Ray is not initialized yet"
        self.asked.append(bundles)

    @contextmanager
    def open(self, config: RuntimeConfig) -> Iterator[None]:
        assert config.address == "auto" and not self.joined
        self.joined = True
        yield
        self.joined = False


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let `alray.open_runtime` join the given cluster."""

    def join(ray: Ray) -> Ray:
        sdk = SimpleNamespace(request_resources=ray.request_resources)
        for name, module in (("ray", ray), ("ray.autoscaler", SimpleNamespace(sdk=sdk)), ("ray.autoscaler.sdk", sdk)):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(alray, "open_runtime", ray.open)
        return ray

    return join


# The order


@pytest.fixture
def steps(start: ModuleType, settings: alray.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Let the script do nothing, and note in which order; the settings are in `campaign.yaml`."""
    done: list[Any] = []
    (tmp_path / "campaign.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))

    def check(command: list[str]) -> subprocess.CompletedProcess[str]:
        done.append(command[1:])
        return subprocess.CompletedProcess(command, 0)

    def run(words: list[str]) -> None:
        done.append(words)
        raise SystemExit(7)

    monkeypatch.setattr(subprocess, "run", check)
    monkeypatch.setattr(start.app, "main", run)
    return done


def test_it_checks_here_then_asks_then_runs_and_ends_as_the_run_ends(
    start: ModuleType, steps: list[Any], joined: Any, tmp_path: Path
) -> None:
    ray = joined(Ray({"CPU": 24.0, "GPU": 3.0}))
    campaign = [str(tmp_path / "campaign.yaml"), "seed=3"]
    with pytest.raises(SystemExit) as ending:
        start.main([*campaign, "--gpus", "1"])
    assert ending.value.code == 7
    assert steps == [["-m", "alray", "check", *campaign, "runtime.name=local"], ["run", *campaign]]
    assert ray.asked == [[{"CPU": 1.0, "GPU": 1.0}] * 3, []]


def test_its_commands_are_ones_that_alray_takes(
    steps: list[Any], start: ModuleType, joined: Any, tmp_path: Path
) -> None:
    joined(Ray({"CPU": 24.0}))
    with pytest.raises(SystemExit):
        start.main([str(tmp_path / "campaign.yaml")])
    for words in (steps[0][2:], steps[1]):
        assert parsed(words)["config"] == str(tmp_path / "campaign.yaml")


@pytest.mark.parametrize("words", [["--gpus", "-1"], ["--gpus", "inf"], ["--patience", "nan"], ["--patience", "-5"]])
def test_numbers_that_no_cluster_can_have_are_refused(start: ModuleType, words: list[str], capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        start.main(["campaign.yaml", *words])
    assert ended.value.code == 2
    assert f"{words[0]} is {float(words[1])}; it must be 0 or more, and finite" in capsys.readouterr().err


def test_a_mistake_ends_it_before_anything_is_asked_for(
    start: ModuleType, steps: list[Any], joined: Any, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    ray = joined(Ray({}))
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 2))
    assert start.main([str(tmp_path / "campaign.yaml")]) == 2
    assert "no worker was asked for: mend what `alray check` says" in capsys.readouterr().out
    assert not ray.asked and not steps


def test_the_workers_are_let_go_when_the_run_is_stopped(
    start: ModuleType, steps: list[Any], joined: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    ray = joined(Ray({"CPU": 3.0}))

    def stopped(words: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(start.app, "main", stopped)
    with pytest.raises(KeyboardInterrupt):
        start.main([str(tmp_path / "campaign.yaml")])
    assert ray.asked[-1] == []


def test_a_cluster_that_is_gone_does_not_change_how_it_ends(
    start: ModuleType, steps: list[Any], joined: Any, tmp_path: Path, capsys: Any
) -> None:
    class Gone(Ray):
        def request_resources(self, bundles: list[dict[str, float]]) -> None:
            super().request_resources(bundles)
            if not bundles:
                raise RuntimeError("the head does not answer")

    joined(Gone({"CPU": 3.0}))
    with pytest.raises(SystemExit) as ending:
        start.main([str(tmp_path / "campaign.yaml")])
    assert ending.value.code == 7
    assert "the workers could not be let go: the head does not answer" in capsys.readouterr().out


def test_an_error_of_alray_ends_it_with_its_code(
    start: ModuleType, steps: list[Any], tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "campaign.yaml").write_text("run: [1\n")
    assert start.main([str(tmp_path / "campaign.yaml")]) == 2
    assert "is not YAML" in capsys.readouterr().out


@pytest.mark.parametrize("runtime", [{"name": "local"}, {"name": "ray", "workers": 2}])
def test_a_runtime_of_its_own_is_not_waited_for(
    runtime: dict[str, Any], start: ModuleType, joined: Any, data: Path, tmp_path: Path
) -> None:
    ray = joined(Ray({}))
    with start.workers(campaigns.settings(data, tmp_path / "run", runtime=runtime), 1.0, 0.0):
        assert not ray.asked


# Waiting for workers


def wait_for(start: ModuleType, ray: Ray, wanted: int = 3, patience: float = 1e9, gpus: float = 1.0) -> int:
    naps: list[float] = []
    each = {"CPU": 1.0, "GPU": gpus}
    start.await_workers(ray.cluster_resources, each, wanted, patience, naps.append)
    return len(naps)


def test_it_waits_until_all_workers_are_here(start: ModuleType, capsys: Any) -> None:
    ray = Ray(
        {}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 9.0}, {"CPU": 24.0, "GPU": 5.0}
    )
    assert wait_for(start, ray) == 4
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "start: 0 of 3 workers are here (1 CPU, 1 GPU each).",
        "start: 1 of 3 workers are here (1 CPU, 1 GPU each).",
        "start: 2 of 3 workers are here (1 CPU, 1 GPU each).",
        "start: going on with 3 of 3 workers.",
    ]


def test_workers_may_share_a_gpu(start: ModuleType) -> None:
    assert start.count({"CPU": 8.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 0.5}) == 4
    assert start.count({"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}) == 0


def test_after_its_patience_it_goes_on_with_those_that_came(start: ModuleType, capsys: Any) -> None:
    assert wait_for(start, Ray({"CPU": 8.0, "GPU": 1.0}), patience=-1.0) == 0
    assert "going on with 1 of 3 workers" in capsys.readouterr().out


def test_without_any_worker_it_ends_and_says_what_to_do(start: ModuleType) -> None:
    with pytest.raises(
        start.Refusal, match="no worker came within -1 s: the cluster needs room for 1 CPU, 1 GPU"
    ) as refused:
        wait_for(start, Ray({}), patience=-1.0)
    assert refused.value.code == 1


# Who needs none


@pytest.fixture(scope="module")
def finished(data: Path) -> alray.Settings:
    settings = campaigns.settings(data, data / "run", runtime={"name": "local"})
    assert alray.run(settings).state == "done"
    return settings


@pytest.fixture
def done(finished: alray.Settings) -> alray.Settings:
    """A run that is done, and the settings it was done with."""
    _state(finished, "done")
    (Path(finished.run) / "config.yaml").write_text(config.dump(finished))
    return finished


def test_a_run_that_has_not_begun_needs_workers(start: ModuleType, settings: alray.Settings) -> None:
    assert start.gets_further(settings)


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_run_that_has_ended_needs_none(
    state: states.State, start: ModuleType, done: alray.Settings, joined: Any, capsys: Any
) -> None:
    _state(done, state)
    assert not start.gets_further(done)
    ray = joined(Ray({}))
    here = done.model_copy(update={"runtime": RuntimeConfig(address="auto")})
    (Path(done.run) / "config.yaml").write_text(config.dump(here))  # as if it had been run on this cluster
    with start.workers(here, 1.0, 0.0):
        assert not ray.asked
    assert capsys.readouterr().out == f"start: {done.run} would get no further: no worker is asked for.\n"


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_run_that_has_ended_needs_workers_when_it_is_told_something_else(
    state: states.State, start: ModuleType, done: alray.Settings
) -> None:
    _state(done, state)
    assert start.gets_further(done.model_copy(update={"budget": done.budget.model_copy(update={"total": 30})}))


def test_a_run_whose_driver_died_needs_workers(start: ModuleType, done: alray.Settings) -> None:
    _state(done, "running")
    assert start.gets_further(done)


def _state(settings: alray.Settings, state: states.State) -> None:
    ledger = Ledger(settings.run, guard=lambda: None)
    opened = SimpleNamespace(digest="", file="config.yaml")
    states.write(ledger, state, opened)  # type: ignore[arg-type]


# A driver that went with its pod


def test_it_waits_for_a_lost_driver_and_no_longer(start: ModuleType, monkeypatch: Any, capsys: Any) -> None:
    drivers = ["pid 7 on pod-a since noon"] * 2 + [None]
    monkeypatch.setattr(alray, "status", lambda run: SimpleNamespace(driver=drivers.pop(0)))
    naps: list[float] = []
    start.await_driver("s3://bucket/run", naps.append)
    assert len(naps) == 2 and not drivers
    assert "s3://bucket/run is held by pid 7 on pod-a since noon: waiting" in capsys.readouterr().out


def test_it_does_not_wait_for_ever_for_a_driver_that_lives(start: ModuleType, monkeypatch: Any) -> None:
    monkeypatch.setattr(alray, "status", lambda run: SimpleNamespace(driver="pid 7"))
    monkeypatch.setattr(start, "LEASE_S", 0.02)
    start.await_driver("run")


def test_it_waits_longer_than_a_lost_driver_holds_the_run(start: ModuleType) -> None:
    from alray.campaign import lease

    assert start.LEASE_S >= lease.TTL_S + 2 * lease.TTL_S / lease.BEATS_PER_TTL
