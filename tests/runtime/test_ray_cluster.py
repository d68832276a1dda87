"""The doors of a cluster: tokens, loopback, and what is refused."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from alray.errors import ConfigError
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
    os.environ["RAY_AUTH_MODE"] = "token"
    ray_cluster.prepare_environment(RuntimeConfig(address="10.0.0.7:6379"))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("127.0.0.1:6379", True),
        ("localhost:1", True),
        ("ray://127.0.0.1:10001", True),
        ("[::1]:6379", True),
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
