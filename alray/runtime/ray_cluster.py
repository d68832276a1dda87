"""Start a Ray cluster on this machine, or join one, with its doors shut.

Ray 2.60 writes a world-readable token into the home folder, sends usage statistics and listens on every address unless
it is told otherwise; it is told otherwise here, before it is imported (decision 29, design §9).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import secrets
import signal
import stat
import tempfile
import textwrap
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alray.errors import ConfigError, RuntimeFailure
from alray.log import adopt
from alray.runtime.base import RuntimeConfig

log = logging.getLogger(__name__)

SAID_BY_RAY = 400
"""Characters of what Ray says of a lost machine that are worth a line; its own logs have the rest."""

JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Ray sets this variable for what `ray job submit` starts, and for nothing else."""

UNPICKLES = (
    "RAY_DATA_AUTOLOAD_PICKLE_OBJECT_SCALAR",
    "RAY_DATA_AUTOLOAD_PYEXTENSIONTYPE",
    "RAY_DATA_AUTOLOAD_CLOUDPICKLE_TENSOR_METADATA",
    "RAY_DATA_ARROW_EXTENSION_SERIALIZATION_CLOUDPICKLE",
)
"""Variables that let Ray Data unpickle parts of the files that it reads, or write such files."""


def in_job() -> bool:
    """Say whether `ray job submit` started this process."""
    return JOB in os.environ


def address_of(config: RuntimeConfig) -> str | None:
    """Return the address of the cluster to join, None to start one; a job works on the cluster it was submitted to."""
    if config.address is None and in_job():
        return "auto"
    return None if config.address == "local" else config.address


def state_folder() -> Path:
    """Return alray's own state folder (XDG), made 0700; a temporary one where the home cannot be written."""
    home = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    folder = home / "alray"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        folder = Path(tempfile.gettempdir()) / f"alray-{os.getuid()}"
        folder.mkdir(exist_ok=True, mode=0o700)
        if folder.stat().st_uid != os.getuid():
            raise RuntimeFailure(
                f"`{folder}` belongs to another user. Set XDG_STATE_HOME to a folder of yours."
            ) from None
    return folder


def token_file() -> Path:
    """Return the file of the token that local clusters share, written 0600 on first use."""
    path = state_folder() / "ray-token"
    if os.path.lexists(path):
        _refuse_shared(path)
    else:
        temporary = path.with_name(f".{path.name}-{os.getpid()}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as out:
            out.write(secrets.token_hex(32))
        try:
            os.link(temporary, path)  # the first of two drivers wins, the other reads its token
        except FileExistsError:
            log.debug("another driver wrote %s first", path)
        finally:
            temporary.unlink()
    return path


def _refuse_shared(path: Path) -> None:
    """Raise ConfigError where the token is not this user's alone: who knows it runs code in every cluster it opens."""
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        wrong = f"is a link to {os.readlink(path)!r}"
    elif not stat.S_ISREG(found.st_mode):
        wrong = "is no file"
    elif found.st_uid != os.getuid():
        wrong = f"belongs to user {found.st_uid} and not to {os.getuid()}"
    elif found.st_mode & 0o077:
        wrong = f"can be read by other users (mode {stat.S_IMODE(found.st_mode):04o})"
    elif not found.st_size:
        wrong = "is empty"
    else:
        return
    raise ConfigError(f"The token of local clusters, {path}, {wrong}. Delete it; the next command writes another.")


def is_loopback(address: str) -> bool:
    """Say whether an address (`host`, `host:port`, `ray://host:port`) is this machine's own loopback."""
    whole = address.removeprefix("ray://")
    for host in (whole, whole.rsplit(":", 1)[0].strip("[]")):  # `::1` alone has no port
        if host == "localhost":
            return True
        with suppress(ValueError):
            return ipaddress.ip_address(host).is_loopback
    return False


def _has_token(environment: Mapping[str, str]) -> bool:
    """Say whether Ray would find a token where it looks for one."""
    if environment.get("RAY_AUTH_TOKEN", "").strip():
        return True
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    try:
        return bool(path.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return False


def _refuse_tokenless() -> None:
    if os.environ.get("RAY_AUTH_MODE") == "token" and not _has_token(os.environ):
        named = os.environ.get("RAY_AUTH_TOKEN_PATH")
        where = f"RAY_AUTH_TOKEN_PATH names {named!r}, which has none" if named else "RAY_AUTH_TOKEN_PATH is not set"
        raise ConfigError(
            f"RAY_AUTH_MODE is `token` and there is no token: {where}. Set RAY_AUTH_TOKEN_PATH to a file that has the "
            "cluster's, which only you can read (mode 0600)."
        )


def _refuse_pickles() -> None:
    """Raise ConfigError where Ray is told to unpickle what stands in data files: whoever wrote them could run code."""
    for name in UNPICKLES:
        if os.environ.get(name, "0").strip().lower() not in ("", "0", "false"):
            raise ConfigError(f"{name} is set: Ray would run code that stands in data files. Unset it.")


def prepare_environment(config: RuntimeConfig) -> None:
    """Set what Ray reads from the environment; must run before `import ray`. What the user has set stays.

    Raises ConfigError where a cluster's doors would stand open, or there is no token to open it with.
    """
    _refuse_pickles()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of calls whose other copy has answered: no news
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.1")  # a report, one an epoch, waits for this poll
    address = address_of(config)
    if address is None:
        # A silent network cut otherwise hangs a wait for minutes. Not where a cluster is joined: one that was not told
        # the same takes such pings for a flood, and ends every call that lasts half a minute.
        os.environ.setdefault("RAY_grpc_client_keepalive_time_ms", "5000")
        os.environ.setdefault("RAY_grpc_client_keepalive_timeout_ms", "15000")
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # every socket on loopback
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token" and not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file())
        _refuse_tokenless()
        return
    where = os.environ.get("RAY_ADDRESS", address) if address == "auto" else address
    if os.environ.get("RAY_AUTH_MODE") != "token" and not is_loopback(where) and not config.insecure:
        raise ConfigError(
            f"`runtime.address` is {_said(address, where)}, beyond loopback, and RAY_AUTH_MODE is not `token`: anyone "
            "who reaches that cluster could run code on it. Start it with token authentication and set RAY_AUTH_MODE="
            "token and RAY_AUTH_TOKEN_PATH, or set `runtime.insecure=true` if its network is closed."
        )
    _refuse_tokenless()


def _said(address: str, where: str) -> str:
    return repr(address) if address == where else f"{address!r}, which is {where}"


@contextmanager
def own_signals() -> Iterator[None]:
    """Keep this process's handlers of SIGINT and SIGTERM: Ray puts one of its own in their place, which aborts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refresh() -> None:
    """Make Ray read its environment again: it caches it when it is imported, which may have been before alray was."""
    from ray._private import ray_constants
    from ray._raylet import Config  # type: ignore[attr-defined]

    Config.initialize("")
    ray_constants.ENABLE_RAY_CLUSTER = os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") != "0"


def _hear_raylets() -> None:
    """Let what Ray says of its machines and workers be lines of the log: it prints them among the results."""
    from ray._private import worker

    def tell(data: Mapping[str, Any], *_: Any, **__: Any) -> None:
        for said in data["lines"]:
            log.warning("Ray says: %s", textwrap.shorten(said, SAID_BY_RAY, placeholder=" …"))

    worker.print_to_stdstream = tell


def join(config: RuntimeConfig) -> bool:
    """Connect this process to a cluster and return whether alray started it (and must stop it).

    `prepare_environment` must have run before.
    """
    import ray

    if ray.is_initialized():
        return False
    _refresh()
    _hear_raylets()
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "namespace": "alray"}
    address = address_of(config)
    if address is None:
        if running := os.environ.get("RAY_ADDRESS"):
            log.warning(
                "Starting a cluster of this run's own; set `runtime.address=auto` to work on %s instead", running
            )
        # Logical CPUs: two more than the workers, or a pool of actors leaves none to the tasks that feed it.
        settings |= {
            "address": "local",  # else RAY_ADDRESS, or whatever cluster was started last on this machine, is joined
            "num_cpus": max(os.cpu_count() or 1, config.workers + 2),
            "object_store_memory": config.object_store_bytes,
            "include_dashboard": False,
        }
    else:
        settings["address"] = address
    try:
        with own_signals():
            ray.init(**settings)
    except Exception as error:  # Ray raises this very class where a node does not come up in time
        if address is None:
            raise RuntimeFailure(f"Could not start a local Ray cluster: {error}") from error
        raise RuntimeFailure(
            f"Could not reach the Ray cluster at `runtime.address` {address!r}: {error} If it asks for a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file that has the same one."
        ) from error
    adopt("ray")
    return True
