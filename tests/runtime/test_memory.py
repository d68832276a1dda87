"""Work that does not fit into memory is done again in smaller chunks: the same answer, or the shard by its name."""

from __future__ import annotations

from pathlib import Path

import builders
import faults
import pytest
import torch

import alray
from alray.errors import RuntimeFailure
from alray.features import FeatureSet, from_pool
from alray.pool import Pool
from alray.runtime import LocalRuntime, memory


def test_a_chunk_is_cut_in_tiles() -> None:
    assert memory.chunk(4096) == 4096 and memory.chunk(37) == 37
    with memory.split(2):
        assert memory.chunk(4096) == 2048 and memory.chunk(37) == 32
        with memory.split(4):
            assert memory.chunk(4096) == 1024 and memory.chunk(1) == 16
        assert memory.chunk(4096) == 2048
    assert memory.chunk(4096) == 4096


def test_what_means_that_memory_ran_out() -> None:
    assert memory.ran_out(MemoryError()) and memory.ran_out(torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**55, dtype=torch.float64)
    assert memory.ran_out(error.value)
    assert not memory.ran_out(RuntimeError("shapes do not fit")) and not memory.ran_out(None)


@pytest.fixture
def pool(tmp_path: Path) -> tuple[FeatureSet, dict[str, str]]:
    matrix, labels = builders.features(3000, 16, seed=3)
    names = builders.ids(len(matrix))
    builders.parquet(tmp_path / "pool.parquet", {"id": names, "features": builders.vectors(matrix)})
    features = from_pool(Pool.open(str(tmp_path / "pool.parquet"), rows_per_shard=1000))
    return features, dict(zip(names[::100], labels[::100], strict=True))


def picks(pool: tuple[FeatureSet, dict[str, str]], folder: Path, **more: int) -> str:
    (folder / "notes").mkdir(exist_ok=True)
    strategy = faults.Paced(notes=str(folder / "notes"), heavy=(pool[0].shards[1].read().ids[0],), **more)
    found = alray.select(strategy, pool[0], budget=12, labels=pool[1], regime="coreset", runtime=LocalRuntime())
    return found.picks.digest()


def test_here_too_half_a_chunk_gives_the_same_picks(
    pool: tuple[FeatureSet, dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = picks(pool, tmp_path, fits=1000)
    assert "out of memory" not in caplog.text
    assert picks(pool, tmp_path, fits=300) == whole
    assert caplog.text.count("scan: out of memory at shard 1; again, in chunks half as large") == 2


def test_here_too_what_never_fits_is_named(pool: tuple[FeatureSet, dict[str, str]], tmp_path: Path) -> None:
    said = r"^scan: shard 1 ran out of memory 3 times, at last in chunks of a quarter of their rows: 256 .* 200 fit"
    with pytest.raises(RuntimeFailure, match=said):
        picks(pool, tmp_path, fits=200)
