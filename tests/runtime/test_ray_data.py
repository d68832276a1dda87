"""Extraction on Ray Data: the same parts as in this process, after a lost actor too, and errors of the right type."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alray.errors import ModelError, RuntimeFailure
from alray.runtime import Extraction, LocalRuntime, Runtime

Arrays = dict[str, np.ndarray[Any, Any]]


@pytest.fixture(autouse=True)
def by_value() -> None:
    """Send this module's functions to workers as they are: workers cannot import a test file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


def decode(chunk: int) -> Arrays:
    # Chunks of unequal sizes, as the last one of a shard is.
    return {"x": np.arange(chunk, chunk + 5 + chunk % 3, dtype=np.float32), "why": np.array(["", "a", "bb"])}


def embedder(mark: str = "", fail: str = "") -> Any:
    import torch

    if fail == "model":
        raise ModelError("no such backbone")

    def embed(arrays: Arrays) -> Arrays:
        if fail == "bug":
            raise ZeroDivisionError("one by nought")
        if fail == "hang":
            time.sleep(600)
        if mark and arrays["x"][0] == 7:
            try:
                os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
                os.kill(os.getpid(), signal.SIGKILL)
            except FileExistsError:
                pass  # the second time round
        assert torch.get_num_threads() == 1
        return {"y": np.sqrt(arrays["x"]), "why": arrays["why"]}

    return embed


def write(chunk: int, arrays: Arrays, folder: str) -> None:
    text = f"{arrays['y'].tobytes().hex()} {arrays['why'].tolist()}"
    (Path(folder) / f"{chunk:03d}").write_text(text)


def job(folder: Path, count: int = 40, **how: str) -> Extraction:
    folder.mkdir()
    return Extraction(
        chunks=list(range(count)),
        decode=decode,
        embedder=functools.partial(embedder, **how),
        write=functools.partial(write, folder=str(folder)),
    )


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.ray
@pytest.mark.parametrize("apart", [False, True])
def test_the_parts_are_those_of_the_local_runtime_even_when_an_actor_is_killed(
    ray_runtime: Runtime, tmp_path: Path, apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if apart:  # what a GPU brings about: decoding in tasks of its own
        monkeypatch.setattr("alray.runtime.ray_data.layout", lambda resources, workers: (2, 0.5, 0.0, 0.75))
    LocalRuntime().extract(job(tmp_path / "local"), stage="features")
    ray_runtime.extract(job(tmp_path / "ray", mark=str(tmp_path / "killed")), stage="features")
    assert (tmp_path / "killed").exists()
    assert content(tmp_path / "ray") == content(tmp_path / "local")
    assert len(content(tmp_path / "ray")) == 40


@pytest.mark.ray
def test_an_error_of_alray_keeps_its_type_and_any_other_names_itself(ray_runtime: Runtime, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such backbone"):
        ray_runtime.extract(job(tmp_path / "model", fail="model"), stage="features")
    with pytest.raises(RuntimeFailure, match="ZeroDivisionError: one by nought"):
        ray_runtime.extract(job(tmp_path / "bug", fail="bug"), stage="features")
    ray_runtime.extract(job(tmp_path / "after", count=3), stage="features")  # nothing of the failures is left over
    assert len(content(tmp_path / "after")) == 3


@pytest.mark.ray
def test_nothing_to_do_starts_nothing(ray_runtime: Runtime, tmp_path: Path) -> None:
    start = time.perf_counter()
    ray_runtime.extract(job(tmp_path / "none", count=0), stage="features")
    assert time.perf_counter() - start < 0.5


@pytest.mark.ray
def test_actors_leave_room_for_the_tasks_that_feed_them(ray_runtime: Runtime) -> None:
    from alray.runtime.ray_data import layout  # imports Ray, which must find its settings made

    for cpus, gpus, workers in itertools.product([1, 2, 4, 64], [0, 1, 8], [1, 3, 16]):
        actors, actor_cpus, actor_gpus, task_cpus = layout({"CPU": cpus, "GPU": gpus}, workers)
        assert 1 <= actors <= workers
        assert actor_cpus > 0 and task_cpus > 0
        assert actors * actor_cpus + task_cpus <= cpus
        assert actors * actor_gpus <= gpus
        assert (actor_gpus > 0) == (gpus > 0)
        assert gpus or task_cpus == actor_cpus
