"""Extraction on Ray Data: chunks are decoded on CPU workers, embedded and committed by a pool of actors.

What goes through the pipeline is one row a chunk: its spec, then its decoded arrays, then only a sign that it is done.
An exception travels as a value, because Ray Data turns what a function raises into its own errors and loses the type
that decides alray's exit code; a lost actor's chunks are replayed by Ray Data, and commits are idempotent.
"""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError

from alray import storage
from alray.errors import AlrayError, RuntimeFailure
from alray.log import progress
from alray.runtime.base import Extraction
from alray.runtime.ray_log import Told
from alray.runtime.threads import one_thread

if TYPE_CHECKING:
    from alray.runtime.ray import RayRuntime

log = logging.getLogger(__name__)

CHUNKS_PER_TASK = 32
"""Neighbouring chunks decoded by one task: they share the row groups that were read for them."""

_ROW = pa.schema([("spec", pa.binary()), ("arrays", pa.large_binary()), ("error", pa.binary())])


def extract(job: Extraction, runtime: RayRuntime, *, stage: str) -> None:
    """Run an extraction to its end; raises what `decode`, `embedder` or `write` raised, or RuntimeFailure."""
    if not job.chunks:
        return
    with _quiet(runtime.config.deadline_s, runtime.config.max_restarts):
        rows = _pipeline(job, runtime).iter_rows()
        try:
            for row in progress(rows, len(job.chunks), stage):
                if row["error"] is not None:
                    raise pickle.loads(row["error"])
        except ExecutionTimeoutError as error:
            raise RuntimeFailure(
                f"{stage}: no chunk went forward within `runtime.deadline_s` = {runtime.config.deadline_s:g} s. A "
                "worker hangs, or the cluster has no room for the embedding actors and the decoding tasks that feed "
                "them. Finished chunks are kept: run the same command again."
            ) from error
        except RayError as error:
            raise RuntimeFailure(
                f"{stage}: Ray Data gave up ({type(error).__name__}): {error}. Finished chunks are kept: run the same "
                "command again."
            ) from error


def _pipeline(job: Extraction, runtime: RayRuntime) -> ray.data.Dataset:
    """Build chunk specs → decode (tasks) → embed and commit (actors). Nothing runs yet."""
    actors, actor_cpus, actor_gpus, task_cpus = layout(ray.cluster_resources(), runtime.workers)
    environment = storage.environment()
    placed: dict[str, Any] = {"runtime_env": {"env_vars": environment}} if environment else {}
    specs = [{"spec": pickle.dumps(chunk)} for chunk in job.chunks]
    blocks = max(len(specs) // CHUNKS_PER_TASK, min(len(specs), 4 * actors))
    decoded = ray.data.from_items(specs, override_num_blocks=blocks).map_batches(
        decode_row,
        fn_args=(Told(job.decode),),
        batch_size=1,
        batch_format="pyarrow",
        num_cpus=task_cpus,
        **placed,
    )
    return decoded.map_batches(
        EmbedActor,
        fn_constructor_args=(Told(job.embedder), Told(job.write)),
        batch_size=1,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=actors),
        num_cpus=actor_cpus,
        num_gpus=actor_gpus,
        **placed,
    )


def layout(resources: dict[str, float], workers: int) -> tuple[int, float, float, float]:
    """Return (embedding actors, CPUs of each, GPUs of each, CPUs of a decoding task).

    With GPUs, decoding is spread over the CPUs, and the actors together take at most half of these: when they take
    all, nothing is left for the tasks that feed them and the pipeline waits for ever, without a word. Without, both
    steps ask for the same, so that Ray Data runs them in the same actor and no picture is copied: embedding is then
    ten times the work of decoding, and a second crowd of processes would only be in its way.
    """
    cpus, gpus = resources.get("CPU", 1.0), resources.get("GPU", 0.0)
    actors = max(1, min(workers, int(gpus))) if gpus else workers
    actor_cpus = _floor(min(1.0, 0.5 * cpus / actors))
    return actors, actor_cpus, min(1.0, gpus), _floor(min(1.0, 0.5 * cpus)) if gpus else actor_cpus


def _floor(cpus: float) -> float:
    """Round down to what Ray counts in: hundredths are enough, and it refuses more than four decimals."""
    return int(cpus * 100) / 100


def decode_row(row: pa.Table, decode: Callable[[Any], Any]) -> pa.Table:
    """Decode one chunk: (spec) → (spec, arrays)."""
    spec = row.column("spec")[0].as_py()
    try:
        with one_thread():
            return _row(spec, arrays=pickle.dumps(decode(pickle.loads(spec)), protocol=5))
    except Exception as error:  # told to the driver, which raises it
        return _row(spec, error=error)


class EmbedActor:
    """Embeds and commits one chunk at a time: (spec, arrays) → (spec).

    The embedder is built by the first call, not by the constructor, so that what goes wrong in it can be told.
    """

    def __init__(self, embedder: Callable[[], Any], write: Callable[[Any, Any], None]) -> None:
        self._embedder, self._write = embedder, write
        self._embed: Callable[[Any], Any] | None = None

    def __call__(self, row: pa.Table) -> pa.Table:
        if row.column("error")[0].is_valid:
            return row
        spec = row.column("spec")[0].as_py()
        try:
            with one_thread():
                self._embed = self._embed or self._embedder()
                arrays = pickle.loads(row.column("arrays")[0].as_buffer())
                self._write(pickle.loads(spec), self._embed(arrays))
            return _row(spec)
        except Exception as error:  # told to the driver, which raises it
            return _row(spec, error=error)


def _row(spec: bytes, *, arrays: bytes | None = None, error: Exception | None = None) -> pa.Table:
    told = None if error is None else _packed(error)
    return pa.Table.from_pydict({"spec": [spec], "arrays": [arrays], "error": [told]}, schema=_ROW)


def _packed(error: Exception) -> bytes:
    """Return an error for the driver to raise: our own as it is, any other as a RuntimeFailure with its traceback."""
    if not isinstance(error, AlrayError):
        trace = "".join(traceback.format_exception(error))
        error = RuntimeFailure(f"A worker failed with {type(error).__name__}: {error}\n{trace}")
    return pickle.dumps(error)


@contextmanager
def _quiet(deadline_s: float, max_restarts: int) -> Iterator[None]:
    """Set what Ray Data says and how long it waits, for one pipeline."""
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False  # alray draws its own
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = deadline_s
    context.max_consecutive_actor_init_deaths = max_restarts
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with DataContext.current(context):
            yield
    finally:
        logger.setLevel(level)
