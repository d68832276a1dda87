"""Features of a whole pool: computed once, resumed after any kill, shared by pools and drivers, the same on Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from alray import storage
from alray.errors import ConfigError, ModelError, StorageError
from alray.features import FeaturesConfig, FeatureSet, build, extract, store
from alray.pool import Pool
from alray.runtime import LocalRuntime, Runtime

BUILD = sys.modules["alray.features.build"]  # the function of this name hides it


class Tiny(nn.Module):
    """Pictures of 8 × 8 to 16 features."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 16, 8)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.layer(pictures).flatten(1)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FeaturesConfig:
    """Return settings with a backbone that costs nothing, and chunks of four pictures."""
    module = types.ModuleType("tiny_backbone")
    module.make = lambda seed: Tiny()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiny_backbone", module)
    monkeypatch.setattr(extract, "CHUNK_ROWS", 4)
    return FeaturesConfig(backbone="tiny_backbone:make", image_size=8, batch=2, path=str(tmp_path / "features"))


@pytest.fixture
def pool(tmp_path: Path) -> Pool:
    """Return a pool of 11 + 6 pictures in five shards; the second and the last picture of the first file are bad."""
    return damaged(tmp_path / "pool", rows_per_shard=5)


def damaged(folder: Path, rows_per_shard: int, files: Sequence[int] = (11, 6)) -> Pool:
    at = 0
    for number, rows in enumerate(files):
        cells = [builders.picture(i)[0] for i in range(at, at + rows)]
        if number == 0:
            cells[1], cells[-1] = b"not a picture", cells[-1][:60]
        columns = {"id": builders.ids(rows, at), "image": cells}
        builders.parquet(folder / f"pool-{number}.parquet", columns, row_group=4)
        at += rows
    return Pool.open(str(folder / "*.parquet"), rows_per_shard=rows_per_shard)


def matrix(features: FeatureSet) -> np.ndarray[Any, Any]:
    return np.concatenate([shard.read().features_ND for shard in features.shards])


def files_of(folder: str | None) -> dict[str, tuple[int, bytes]]:
    """Return name → (mtime, content) of all that a features folder holds, whatever its depth."""
    paths = [path for path in Path(str(folder)).rglob("*") if path.is_file()]
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def contents(folder: str | None) -> dict[str, bytes]:
    return {name: data for name, (_, data) in files_of(folder).items()}


class Counting(LocalRuntime):
    """The local runtime; notes how many chunks were computed and how many files were looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.chunks, self.files = 0, 0

    def extract(self, job: Any, *, stage: str) -> None:
        self.chunks += len(job.chunks)
        super().extract(job, stage=stage)

    def map(self, fn: Callable[..., Any], items: Sequence[Any], *args: Any, stage: str) -> list[Any]:
        self.files += len(items)
        return super().map(fn, items, *args, stage=stage)


def test_every_row_has_its_features_or_its_reason(pool: Pool, config: FeaturesConfig) -> None:
    features = build(pool, config, LocalRuntime(), seed=3)
    assert (features.rows, features.dim, len(features.shards)) == (17, 16, 5)
    rows = [shard.read() for shard in features.shards]
    assert [i for r in rows for i in r.ids] == builders.ids(17)
    assert np.flatnonzero(~np.concatenate([r.ok_N for r in rows])).tolist() == [1, 10]
    values_ND = matrix(features)
    assert not values_ND[[1, 10]].any()
    assert (np.abs(np.delete(values_ND, [1, 10], axis=0)).sum(1) > 0).all()
    assert [(row.id, row.shard, row.row) for row in features.quarantine] == [("row-00001", 0, 1), ("row-00010", 2, 0)]
    assert all(row.reason for row in features.quarantine)


def test_features_are_what_the_backbone_says(pool: Pool, config: FeaturesConfig) -> None:
    from alray.models import backbone as backbones
    from alray.pool import images

    values_ND = matrix(build(pool, config, LocalRuntime(), seed=3))
    backbone = backbones.load(config, 3)
    with torch.inference_mode():
        one = backbone(backbone.transform(images.decode(builders.picture(12)[0]))[None]).numpy()
    np.testing.assert_allclose(values_ND[12], one[0], rtol=2e-3, atol=1e-4)


def test_chunks_batches_and_shards_do_not_show_in_the_bits(
    pool: Pool, config: FeaturesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected_ND = matrix(build(pool, config, LocalRuntime(), seed=3))
    monkeypatch.setattr(extract, "CHUNK_ROWS", 256)
    other = config.model_copy(update={"path": str(tmp_path / "other")})
    whole = damaged(tmp_path / "pool", rows_per_shard=1000)
    np.testing.assert_array_equal(matrix(build(whole, other, LocalRuntime(), seed=3)), expected_ND)


def test_the_same_call_computes_nothing_again(pool: Pool, config: FeaturesConfig) -> None:
    build(pool, config, LocalRuntime(), seed=3)
    before, runtime = files_of(config.path), Counting()
    again = build(pool, config, runtime, seed=3)
    assert (runtime.chunks, runtime.files) == (0, 0)
    assert files_of(config.path) == before
    assert len(again.quarantine) == 2


def test_the_folder_holds_one_file_a_shard_and_a_manifest_that_says_what_they_are(
    pool: Pool, config: FeaturesConfig
) -> None:
    features = build(pool, config, LocalRuntime(), seed=3)
    folder = Path(str(config.path)) / features.version
    assert len(list(folder.glob("shard-*.arrow"))) == 5 and not list(folder.rglob("chunk-*"))
    [path] = folder.glob("manifest-*.json")
    manifest = json.loads(path.read_text())
    assert (manifest["schema"], manifest["dim"], manifest["rows"]) == (1, 16, 17)
    assert manifest["backbone"] == "tiny_backbone:make" and manifest["precision"] == "fp32"
    for shard, entry in zip(features.shards, manifest["shards"], strict=True):
        assert storage.join(str(folder), entry["file"]) == shard.uri
        assert entry["sha256"] == storage.sha256(shard.uri) and entry["rows"] == shard.rows
    with pa.memory_map(features.shards[0].uri) as source:
        schema = pa.ipc.open_file(source).schema
    assert schema.names == ["id", "features", "reason"]
    assert schema.field("features").type == pa.list_(pa.float16(), 16)


def test_a_pool_that_grew_costs_its_new_shards_only(pool: Pool, config: FeaturesConfig, tmp_path: Path) -> None:
    build(pool, config, LocalRuntime(), seed=3)
    before = files_of(config.path)
    builders.parquet(
        tmp_path / "pool" / "more.parquet",
        {"id": ["new-1", "new-2", "new-3"], "image": [builders.picture(i)[0] for i in range(3)]},
    )
    grown = Pool.open(str(tmp_path / "pool" / "*.parquet"), rows_per_shard=5, known=pool.manifest())
    runtime = Counting()
    features = build(grown, config, runtime, seed=3)
    assert (runtime.chunks, runtime.files, features.rows) == (1, 1, 20)
    after = files_of(config.path)
    assert before.items() <= after.items() and len(after) == len(before) + 2
    assert len(features.quarantine) == 2


def test_a_changed_file_costs_its_own_shards_only(pool: Pool, config: FeaturesConfig, tmp_path: Path) -> None:
    first = build(pool, config, LocalRuntime(), seed=3)
    cells = [builders.picture(100 + i)[0] for i in range(6)]
    builders.parquet(tmp_path / "pool" / "pool-1.parquet", {"id": builders.ids(6, 11), "image": cells})
    runtime = Counting()
    second = build(Pool.open(str(tmp_path / "pool" / "*.parquet"), rows_per_shard=5), config, runtime, seed=3)
    assert runtime.chunks == 3  # a shard of five rows and one of one
    same = [a.uri == b.uri for a, b in zip(first.shards, second.shards, strict=True)]
    assert same == [True, True, True, False, False]
    np.testing.assert_array_equal(matrix(first)[:11], matrix(second)[:11])
    assert (matrix(first)[11:] != matrix(second)[11:]).any(axis=1).all()  # the old ones are still there, too


def test_other_weights_or_another_batch_are_another_version(pool: Pool, config: FeaturesConfig) -> None:
    versions = {
        build(pool, config, LocalRuntime(), seed=3).version,
        build(pool, config, LocalRuntime(), seed=4).version,
        build(pool, config.model_copy(update={"batch": 4}), LocalRuntime(), seed=3).version,
        build(pool, config.model_copy(update={"precision": "bf16"}), LocalRuntime(), seed=3).version,
    }
    assert len(versions) == 4


def test_precision_auto_takes_what_is_complete(pool: Pool, config: FeaturesConfig) -> None:
    half = build(pool, config.model_copy(update={"precision": "bf16"}), LocalRuntime(), seed=3)
    runtime = Counting()
    assert build(pool, config, runtime, seed=3).version == half.version and runtime.chunks == 0
    assert build(pool, config.model_copy(update={"precision": "fp32"}), runtime, seed=3).version != half.version


def test_a_pool_with_features_passes_through(tmp_path: Path) -> None:
    path, matrix_ND, *_ = builders.features_pool(tmp_path)
    features = build(Pool.open(path), FeaturesConfig(), LocalRuntime(), seed=0)
    np.testing.assert_array_equal(matrix(features), matrix_ND)
    assert {shard.source for shard in features.shards} == {"pool"}


def test_pictures_need_a_place_for_their_features(pool: Pool) -> None:
    said = r"`features.path` is not set, and this pool has pictures \(image\).*/pool/features`"
    with pytest.raises(ConfigError, match=said):
        build(pool, FeaturesConfig(), LocalRuntime(), seed=0)


def test_a_backbone_that_is_not_there_is_the_users_mistake(pool: Pool, config: FeaturesConfig) -> None:
    with pytest.raises(ModelError, match="resnet81"):
        build(pool, config.model_copy(update={"backbone": "resnet81"}), LocalRuntime(), seed=0)


def test_a_pool_of_none_but_bad_pictures_is_all_quarantine(tmp_path: Path, config: FeaturesConfig) -> None:
    path = builders.parquet(tmp_path / "p.parquet", {"id": ["a", "b"], "image": [b"", b"x"]})
    features = build(Pool.open(path), config, LocalRuntime(), seed=0)
    assert len(features.quarantine) == features.rows == 2
    assert not features.shards[0].read().ok_N.any()


def test_a_folder_of_pictures(tmp_path: Path, config: FeaturesConfig) -> None:
    path, names, _ = builders.picture_folder(tmp_path / "photos")
    features = build(Pool.open(path, rows_per_shard=4), config, LocalRuntime(), seed=0)
    assert [i for shard in features.shards for i in shard.read().ids] == names
    assert len(features.quarantine) == 0


# -- kills and rivals --------------------------------------------------------------------------------------------


def killed_at(commit: int, work: Callable[[], Any]) -> bool:
    """Run `work` in a child that kills itself just before its nth commit; return whether it got that far."""
    child = os.fork()
    if child == 0:  # no assertion or cleanup may run twice: leave by a kill or by _exit
        try:
            signal.alarm(60)
            count, rename = [0], storage._commit

            def deadly(*args: Any, **how: Any) -> bool:
                count[0] += 1
                if count[0] == commit:
                    os.kill(os.getpid(), signal.SIGKILL)
                return rename(*args, **how)

            storage._commit = deadly
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


def test_a_kill_before_any_commit_changes_nothing_in_the_end(
    pool: Pool, config: FeaturesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BUILD, "WAVE_CHUNKS", 3)  # whole shards appear along the way
    build(pool, config, LocalRuntime(), seed=3)
    expected = contents(config.path)
    for commit in range(1, 100):
        other = config.model_copy(update={"path": str(tmp_path / f"killed-{commit}")})
        if not killed_at(commit, lambda other=other: build(pool, other, LocalRuntime(), seed=3)):
            break
        left = {n: f for n, f in files_of(other.path).items() if n.startswith("shard-")}
        parts = [p for p in Path(str(other.path)).rglob("chunk-*") if store.shard_name(p.parent.name) not in left]
        missing = [shard for shard in pool.shards if store.shard_name(store.shard_key(shard)) not in left]
        to_do = sum(-(-shard.rows // 4) for shard in missing) - len(parts)
        runtime = Counting()
        build(pool, other, runtime, seed=3)
        after = files_of(other.path)
        assert left.items() <= after.items()  # finished shards were not written again
        kept = {name: data for name, (_, data) in after.items() if not name.startswith(storage.TEMPORARY)}
        assert kept == expected
        assert runtime.chunks == to_do  # finished parts were not either
    assert commit == 15  # 8 chunks, 5 shards and the manifest were each the place of a kill


def test_two_drivers_at_once_end_with_the_same_files(
    pool: Pool, config: FeaturesConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(pool, config, LocalRuntime(), seed=3)
    monkeypatch.setattr(BUILD, "WAVE_CHUNKS", 1)
    both = config.model_copy(update={"path": str(tmp_path / "both")})
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                signal.alarm(60)
                build(pool, both, LocalRuntime(), seed=3)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    build(pool, both, LocalRuntime(), seed=3)
    kept = {name: data for name, data in contents(both.path).items() if not name.startswith("chunk-")}
    assert kept == contents(config.path)


def test_a_faster_driver_is_believed(pool: Pool, config: FeaturesConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from alray.features import commit

    monkeypatch.setattr(BUILD, "WAVE_CHUNKS", 1)
    joined, rivals = commit._joined, []

    def overtaken(job: Any, version: str) -> Any:
        if not rivals:  # just before this driver reads the parts, another one commits the shard and clears them
            rivals.append(job)
            monkeypatch.setattr(commit, "_joined", joined)
            build(pool, config, LocalRuntime(), seed=3)
        return joined(job, version)

    monkeypatch.setattr(commit, "_joined", overtaken)
    assert build(pool, config, LocalRuntime(), seed=3).rows == 17 and rivals


def test_a_part_that_is_gone_without_its_shard_is_an_error(
    pool: Pool, config: FeaturesConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "write_part", lambda chunk, arrays, version: None)
    with pytest.raises(StorageError, match=r"chunk-00000.arrow` is gone. Run `alray features` again"):
        build(pool, config, LocalRuntime(), seed=3)


# -- elsewhere ---------------------------------------------------------------------------------------------------


def test_on_s3(s3: str, pool: Pool, config: FeaturesConfig) -> None:
    there = config.model_copy(update={"path": f"{s3}/features"})
    features = build(pool, there, LocalRuntime(), seed=3)
    assert features.shards[0].uri.startswith(f"{s3}/features/{features.version}/shard-")
    np.testing.assert_array_equal(matrix(features), matrix(build(pool, config, LocalRuntime(), seed=3)))
    runtime = Counting()
    build(pool, there, runtime, seed=3)
    assert (runtime.chunks, runtime.files) == (0, 0)


def on_resnet(folder: Path) -> FeaturesConfig:
    """Return settings with a backbone that Ray's workers can import too."""
    return FeaturesConfig(backbone="resnet18", image_size=32, batch=8, path=str(folder))


@pytest.mark.ray
def test_ray_computes_the_same_bits(ray_runtime: Runtime, tmp_path: Path) -> None:
    pool = damaged(tmp_path / "pool", rows_per_shard=40, files=(70, 30))
    local = on_resnet(tmp_path / "local")
    ray = local.model_copy(update={"path": str(tmp_path / "ray")})
    ours, theirs = build(pool, local, LocalRuntime(), seed=3), build(pool, ray, ray_runtime, seed=3)
    assert contents(ray.path) == contents(local.path)
    assert list(ours.quarantine) == list(theirs.quarantine) and len(theirs.quarantine) == 2
    before = files_of(ray.path)
    build(pool, ray, ray_runtime, seed=3)
    assert files_of(ray.path) == before


DRIVER = """
import sys
from alray.features import FeaturesConfig, build, extract
from alray.pool import Pool
from alray.runtime import RuntimeConfig, open_runtime
sys.modules["alray.features.build"].WAVE_CHUNKS = 1
extract.CHUNK_ROWS = 8
config = FeaturesConfig.model_validate_json(sys.argv[2])
with open_runtime(RuntimeConfig(name="ray", workers=2, object_store_bytes=100 * 2**20)) as runtime:
    build(Pool.open(sys.argv[1], rows_per_shard=20), config, runtime, seed=3)
"""


@pytest.mark.ray
def test_a_killed_driver_on_ray_is_taken_up_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = damaged(tmp_path / "pool", rows_per_shard=20, files=(70, 30))
    whole, cut = on_resnet(tmp_path / "whole"), on_resnet(tmp_path / "cut")
    command = [sys.executable, "-c", DRIVER, str(tmp_path / "pool" / "*.parquet"), cut.model_dump_json()]
    driver = subprocess.Popen(command)
    try:
        give_up = time.monotonic() + 280
        while sum(name.startswith("shard-") for name in files_of(cut.path)) < 2:
            assert driver.poll() is None and time.monotonic() < give_up
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    time.sleep(3)  # its Ray ends by itself
    left = {name: file for name, file in files_of(cut.path).items() if name.startswith("shard-")}
    assert 2 <= len(left) < 6
    monkeypatch.setattr(extract, "CHUNK_ROWS", 8)
    build(pool, cut, LocalRuntime(), seed=3)
    assert left.items() <= files_of(cut.path).items()
    build(pool, whole, LocalRuntime(), seed=3)
    kept = {n: d for n, d in contents(cut.path).items() if not n.startswith((storage.TEMPORARY, "chunk-"))}
    assert kept == contents(whole.path)
