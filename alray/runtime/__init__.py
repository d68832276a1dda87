"""How work is run: the only room where Ray is imported, and only when a runtime that needs it is opened."""

from alray.runtime import ray_cluster
from alray.runtime.base import Extraction, Held, Resources, Runtime, RuntimeConfig, TrainResult, Worker
from alray.runtime.local import LocalRuntime
from alray.runtime.ray_cluster import in_job
from alray.runtime.threads import one_thread

__all__ = [
    "Extraction",
    "Held",
    "LocalRuntime",
    "Resources",
    "Runtime",
    "RuntimeConfig",
    "TrainResult",
    "Worker",
    "in_job",
    "one_thread",
    "open_runtime",
    "prepare",
]


def prepare(config: RuntimeConfig) -> None:
    """Set the environment that a runtime reads, before anything is paid for.

    Raises ConfigError where its doors would stand open, or there is no token to open them with.
    """
    if config.name == "ray":
        ray_cluster.prepare_environment(config)  # Ray reads its environment when it is imported


def open_runtime(config: RuntimeConfig) -> Runtime:
    """Open the runtime that the setting `runtime:` names. Close it when done; it is a context manager."""
    if config.name == "local":
        return LocalRuntime()
    prepare(config)
    from alray.runtime.ray import RayRuntime

    return RayRuntime(config)
