"""The doors of a cluster: tokens, loopback, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from pydantic import ValidationError

from alray.errors import ConfigError, RuntimeFailure
from alray.runtime import RuntimeConfig, ray_cluster


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in list(os.environ):
        if name.startswith("RAY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "environ", os.environ.copy())
    return tmp_path


def test_a_local_cluster_has_a_token_that_only_its_owner_reads(clean: Path) -> None:
    ray_cluster.prepare_environment(RuntimeConfig())
    path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
    assert path == clean / "alray" / "ray-token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_text()) == 64
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] == "1"


def test_the_token_is_written_once(clean: Path) -> None:
    first = ray_cluster.token_file().read_text()
    assert ray_cluster.token_file().read_text() == first
    assert [p.name for p in (clean / "alray").iterdir()] == ["ray-token"]


def test_what_the_user_has_set_stays(clean: Path) -> None:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    ray_cluster.prepare_environment(RuntimeConfig())
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
    assert "RAY_AUTH_TOKEN_PATH" not in os.environ


def test_a_cluster_beyond_loopback_needs_a_token(clean: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"`runtime.address` is '10.0.0.7:6379', beyond loopback.*RAY_AUTH_MODE=token"
    ):
        ray_cluster.prepare_environment(RuntimeConfig(address="10.0.0.7:6379"))
    ray_cluster.prepare_environment(RuntimeConfig(address="10.0.0.7:6379", insecure=True))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef"}
    ray_cluster.prepare_environment(RuntimeConfig(address="10.0.0.7:6379"))


def test_what_ray_says_of_a_lost_machine_is_a_line_of_the_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private import worker

    monkeypatch.setattr(worker, "print_to_stdstream", worker.print_to_stdstream)  # put back in the end
    ray_cluster._hear_raylets()
    lines = ["The node 10.0.0.7 is dead.\n\tThis can happen when\n" + "x " * 500]
    worker.print_to_stdstream({"lines": lines, "pid": "raylet", "is_err": False}, ignore_prefix=False)
    (said,) = caplog.messages
    assert said.startswith("Ray says: The node 10.0.0.7 is dead. This can happen when x x") and said.endswith(" …")
    assert len(said) <= 10 + ray_cluster.SAID_BY_RAY and capsys.readouterr() == ("", "")


WRONG = [
    "",
    "nonsense",
    "http://head:8265",
    "head:",
    "a b:1",
    "ray://head",
    "auto:1 ",
    "h:99999",
    "h:0",
    "...:1",
    "h:١٢",
]


@pytest.mark.parametrize("address", WRONG)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"\(expected auto, local, host:port or ray://host:port\)"):
        RuntimeConfig(address=address)
    for right in ("auto", "local", "10.0.0.7:6379", "my-head.ns.svc:10001", "ray://[fe80::1]:10001", None):
        assert RuntimeConfig(address=right).address == right


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:6379", True),
        ("localhost:1", True),
        ("ray://127.0.0.1:10001", True),
        ("[::1]:6379", True),
        ("::1", True),
        ("2001:db8::1", False),
        ("10.0.0.7:6379", False),
        ("ray://head.example:10001", False),
        ("auto", False),
    ],
)
def test_loopback_is_told_from_the_rest(address: str, local: bool) -> None:
    assert ray_cluster.is_loopback(address) is local


def test_a_cluster_of_another_is_not_joined_unasked(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    told: list[dict[str, object]] = []
    monkeypatch.setattr(ray_cluster, "_refresh", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **settings: told.append(settings))
    assert ray_cluster.join(RuntimeConfig()) and ray_cluster.join(RuntimeConfig(address="127.0.0.1:6379"))
    assert told[0]["address"] == "local"  # with none, Ray joins RAY_ADDRESS, or the machine's newest cluster
    assert told[1]["address"] == "127.0.0.1:6379" and "num_cpus" not in told[1]


def test_a_job_works_on_the_cluster_that_it_was_submitted_to(clean: Path) -> None:
    assert ray_cluster.address_of(RuntimeConfig()) is None
    os.environ[ray_cluster.JOB] = "{}"
    assert ray_cluster.address_of(RuntimeConfig()) == "auto"
    assert ray_cluster.address_of(RuntimeConfig(address="10.0.0.7:6379")) == "10.0.0.7:6379"
    assert ray_cluster.address_of(RuntimeConfig(address="local")) is None


def test_auto_is_as_near_as_the_address_that_ray_finds(clean: Path) -> None:
    os.environ["RAY_ADDRESS"] = "127.0.0.1:6379"
    ray_cluster.prepare_environment(RuntimeConfig(address="auto"))
    os.environ["RAY_ADDRESS"] = "10.0.0.7:6379"
    with pytest.raises(ConfigError, match=r"`runtime.address` is 'auto', which is 10\.0\.0\.7:6379, beyond loopback"):
        ray_cluster.prepare_environment(RuntimeConfig(address="auto"))
    del os.environ["RAY_ADDRESS"]
    with pytest.raises(ConfigError, match=r"`runtime.address` is 'auto', beyond loopback"):
        ray_cluster.prepare_environment(RuntimeConfig(address="auto"))


def test_only_a_cluster_of_ones_own_is_pinged(clean: Path) -> None:
    ray_cluster.prepare_environment(RuntimeConfig(address="127.0.0.1:6379"))
    name = "RAY_grpc_client_keepalive_time_ms"
    assert name not in os.environ
    ray_cluster.prepare_environment(RuntimeConfig())
    assert os.environ[name] == "5000"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, r"^Could not start a local Ray cluster: it timed out$"),
        (
            "127.0.0.1:1",
            r"^Could not reach the Ray cluster at `runtime\.address` '127\.0\.0\.1:1': it timed.*token",
        ),
    ],
)
def test_a_cluster_that_cannot_be_had_is_no_fault_of_ours(
    clean: Path, monkeypatch: pytest.MonkeyPatch, address: str | None, said: str
) -> None:
    import ray

    def fail(**_: object) -> None:
        raise Exception("it timed out")  # the very class that Ray raises

    monkeypatch.setattr(ray_cluster, "_refresh", lambda: None)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(RuntimeFailure, match=said):
        ray_cluster.join(RuntimeConfig(address=address))
