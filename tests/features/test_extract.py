"""Chunks: cut by the shard alone, the same bits however they are computed, a bad row never stops its neighbours."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from alray.features import extract, store
from alray.features.extract import Embedder
from alray.models.backbone import Backbone, BackboneConfig
from alray.models.transform import Transform
from alray.pool import BadRow, Pool, Shard

STEPS = Transform.of_size(8)


class Body(nn.Module):
    """The mean colour, through whatever a test asks for; notes the size of each batch."""

    def __init__(self, then: Any = None) -> None:
        super().__init__()
        self.then, self.batches = then, []

    def forward(self, pictures: Tensor) -> Tensor:
        self.batches.append(len(pictures))
        means = pictures.mean((2, 3))
        return means if self.then is None else self.then(means)


def embedder(then: Any = None, batch: int = 4) -> Embedder:
    return Embedder(Backbone(Body(then), name="x:y", steps=STEPS, dim=3), batch, "fp32")


def shard_of(folder: Path, rows: int) -> Shard:
    path, *_ = builders.image_pool(folder, files=(rows,), row_group=rows)
    return Pool.open(path).shards[0]


@pytest.mark.parametrize(
    ("rows", "batch", "sizes"),
    [(600, 64, [256, 256, 88]), (256, 100, [256]), (700, 300, [300, 300, 100])],
)
def test_chunks_cover_a_shard_in_whole_batches(rows: int, batch: int, sizes: list[int]) -> None:
    chunks = extract.cut(Shard(0, "/p.parquet", 50, 50 + rows, "image", "s"), "key", batch, "/parts", "/whole")
    assert [c.stop - c.start for c in chunks] == sizes
    assert [c.start for c in chunks] == [0, *np.cumsum(sizes)[:-1]]
    assert all(c.start % batch == 0 for c in chunks)
    assert [c.part for c in chunks][:2] == ["/parts/chunk-00000.arrow", "/parts/chunk-00001.arrow"][: len(sizes)]


def test_every_batch_has_one_size_and_fillers_leave_no_trace() -> None:
    embed = embedder(batch=4)
    pictures = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8)).astype(np.uint8)
    whole = embed({"pictures": pictures, "reasons": np.array([""] * 6)})["features"]
    assert embed.backbone.body.batches == [4, 4]
    alone = embed({"pictures": pictures[4:], "reasons": np.array(["", ""])})["features"]
    np.testing.assert_array_equal(whole[4:], alone)
    assert whole.shape == (6, 3) and whole.dtype == np.float16


def test_bad_pictures_and_bad_embeddings_are_blank_rows_with_a_reason() -> None:
    def explode(means: Tensor) -> Tensor:
        return means * torch.tensor([1, 1, float("nan"), 1e9])[: len(means), None]

    pictures = np.full((4, 3, 8, 8), 200, np.uint8)
    out = embedder(explode)({"pictures": pictures, "reasons": np.array(["", "cut short", "", ""])})
    assert out["reasons"].tolist()[:3] == ["", "cut short", "embedding is NaN or infinite"]
    assert "beyond what fp16 holds" in out["reasons"][3]
    assert out["features"][0].any() and not out["features"][1:].any()


def test_a_chunk_of_none_but_bad_rows_still_has_its_rows() -> None:
    out = embedder()({"pictures": np.zeros((2, 3, 8, 8), np.uint8), "reasons": np.array(["a", "b"])})
    assert out["reasons"].tolist() == ["a", "b"] and not out["features"].any()


def test_neighbouring_chunks_read_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard, opened = shard_of(tmp_path, 20), []
    images = Shard.images

    def counted(self: Shard, rows: Any = None) -> Any:
        opened.append(rows)
        return images(self, rows)

    monkeypatch.setattr(Shard, "images", counted)
    reader = extract._Reader()
    got = [row for start in (0, 8, 16) for row, _ in reader.read(shard, start, min(start + 8, 20))]
    assert got == list(range(20)) and opened == [range(20)]
    assert [row for row, _ in reader.read(shard, 8, 16)] == list(range(8, 16))  # out of turn
    assert [row for row, _ in reader.read(shard, 16, 20)] == list(range(16, 20))
    assert opened[1:] == [range(8, 20)]


def test_a_reader_that_was_left_in_the_middle_starts_afresh(tmp_path: Path) -> None:
    shard, reader = shard_of(tmp_path, 12), extract._Reader()
    half = reader.read(shard, 0, 8)
    next(half)
    assert [row for row, _ in reader.read(shard, 0, 8)] == list(range(8))


def test_decode_gives_every_row_a_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = builders.picture(0)[0]
    rows = [(4, good), (5, BadRow("`image` is null")), (6, b"no picture"), (7, good)]
    monkeypatch.setattr(Shard, "images", lambda self, wanted: iter([r for r in rows if r[0] in wanted]))
    shard = Shard(0, "/p.parquet", 0, 8, "image", "s")
    out = extract.decode(extract.Chunk(shard, "k", 1, 4, 8, "/part", "/whole"), STEPS)
    assert out["pictures"].shape == (4, 3, 8, 8) and out["pictures"].dtype == np.uint8
    reasons = out["reasons"].tolist()
    assert reasons[0] == reasons[3] == "" and reasons[1] == "`image` is null" and reasons[2]
    assert out["pictures"][0].any() and not out["pictures"][1:3].any()
    np.testing.assert_array_equal(out["pictures"][0], out["pictures"][3])


def test_a_part_is_the_same_whenever_it_is_written(tmp_path: Path) -> None:
    chunk = extract.Chunk(Shard(0, "/p", 0, 2, "image", "s"), "k", 0, 0, 2, str(tmp_path / "part"), str(tmp_path / "w"))
    arrays = {"features": np.ones((2, 3), np.float16), "reasons": np.array(["", "bad"])}
    write = functools.partial(extract.write_part, chunk, arrays, version="v")
    write()
    first = Path(chunk.part).read_bytes()
    write()
    assert Path(chunk.part).read_bytes() == first
    batch = store.read_batch(chunk.part)
    assert store.batch_reasons(batch) == {1: "bad"}
    store.check_identity(batch, chunk.part, version="v", key="k")


def test_weights_that_differ_between_machines_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from alray.errors import ModelError

    backbone = Backbone(nn.Linear(2, 2), name="x:y", steps=STEPS, dim=2)
    monkeypatch.setattr("alray.models.backbone.load", lambda config, seed: backbone)
    config = BackboneConfig(backbone="x:y", weights="none")
    assert extract.embedder(config, 0, backbone.fingerprint, 4, "fp32")
    with pytest.raises(ModelError, match=r"is not the same everywhere: its fingerprint is .* and was 123 when"):
        extract.embedder(config, 0, "123", 4, "fp32")
