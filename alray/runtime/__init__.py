"""How work is run: the only room where Ray is imported, and only when a runtime that needs it is opened."""

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
]


def open_runtime(config: RuntimeConfig) -> Runtime:
    """Open the runtime that the setting `runtime:` names. Close it when done; it is a context manager."""
    if config.name == "local":
        return LocalRuntime()
    from alray.runtime import ray_cluster

    ray_cluster.prepare_environment(config)  # Ray reads its environment when it is imported
    from alray.runtime.ray import RayRuntime

    return RayRuntime(config)
