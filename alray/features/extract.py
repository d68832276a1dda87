"""From pictures to embeddings, one fixed chunk of a shard at a time.

A chunk is cut by the shard alone and goes through the backbone in batches of one fixed size, the last one padded, so
that every row meets the same kernel wherever and however often it is computed. A row that cannot be decoded keeps a
blank slot. The functions here run on workers and are safe to run twice: a chunk's part file is
the same whoever writes it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from alray import storage
from alray.errors import AlrayError, ModelError
from alray.features import store
from alray.models import backbone as backbones
from alray.models.backbone import Backbone, BackboneConfig
from alray.models.transform import Transform
from alray.pool import BadRow, Shard, images

Arrays = dict[str, np.ndarray[Any, Any]]
Precision = Literal["fp32", "bf16"]

CHUNK_ROWS = 256
"""Rows of a chunk, rounded up to whole batches: a few seconds of work, tens of MB of decoded pictures."""


@dataclass(frozen=True)
class Chunk:
    """Rows [start, stop) of a shard, the part file for their embeddings, and the shard's file they will end in."""

    shard: Shard
    key: str
    number: int
    start: int
    stop: int
    part: str
    whole: str


def cut(shard: Shard, key: str, batch: int, folder: str, whole: str) -> list[Chunk]:
    """Return the chunks of a shard; `folder` is where their parts go."""
    step = -(-CHUNK_ROWS // batch) * batch
    return [
        Chunk(shard, key, number, start, min(start + step, shard.rows), part_uri(folder, number), whole)
        for number, start in enumerate(range(0, shard.rows, step))
    ]


def part_uri(folder: str, number: int) -> str:
    """Return the location of a chunk's part file."""
    return storage.join(folder, f"chunk-{number:05d}.arrow")


# -- decode ------------------------------------------------------------------------------------------------------


class _Reader:
    """The pictures of one shard in order, kept open between neighbouring chunks.

    A Parquet row group can only be read from its start, so that opening it afresh for every chunk would read it
    over and over.
    """

    def __init__(self) -> None:
        self._shard: Shard | None = None
        self._next = 0
        self._pictures: Iterator[tuple[int, bytes | BadRow]] = iter(())

    def read(self, shard: Shard, start: int, stop: int) -> Iterator[tuple[int, bytes | BadRow]]:
        """Yield (row, bytes or why there are none) for rows [start, stop) of the shard."""
        if (shard, start) != (self._shard, self._next):
            self._pictures = shard.images(range(start, shard.rows))
        self._shard = None  # until these rows are through
        for _ in range(start, stop):
            yield next(self._pictures)
        self._shard, self._next = (shard, stop) if stop < shard.rows else (None, 0)


_READER = _Reader()


def decode(chunk: Chunk, steps: Transform) -> Arrays:
    """Return the chunk's pictures as the backbone takes them, uint8 [N, 3, crop, crop], and each bad row's reason [N].

    A bad row is a blank picture; the reason of any other is empty.
    """
    count = chunk.stop - chunk.start
    pictures = np.zeros((count, 3, steps.crop, steps.crop), np.uint8)
    reasons = [""] * count
    for row, data in _READER.read(chunk.shard, chunk.start, chunk.stop):
        try:
            pictures[row - chunk.start] = steps(_picture(data)).numpy()
        except images.BadImage as bad:
            reasons[row - chunk.start] = str(bad) or "unreadable picture"
    return {"pictures": pictures, "reasons": np.array(reasons)}


def _picture(data: bytes | BadRow) -> Image.Image:
    if isinstance(data, BadRow):
        raise images.BadImage(data.reason)
    return images.decode(data)


# -- embed -------------------------------------------------------------------------------------------------------


class Embedder:
    """A backbone on this worker's device, in evaluation mode."""

    def __init__(self, backbone: Backbone, batch: int, precision: Precision) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.backbone = backbone.to(self.device).eval()
        if self.device.type == "cuda":
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # what its kernels want
        self.batch, self.precision = batch, precision

    def __call__(self, arrays: Arrays) -> Arrays:
        """Return the fp16 features [N, D] of decoded pictures, and the reason of each bad row [N]."""
        pictures, reasons = arrays["pictures"], arrays["reasons"].tolist()
        values_ND = np.zeros((len(pictures), self.backbone.dim), np.float32)
        for at in range(0, len(pictures), self.batch):
            values_ND[at : at + self.batch] = self._forward(pictures[at : at + self.batch])
        features_ND, faults = store.to_half(values_ND)
        for row, reason in enumerate(reasons):
            if reason:
                features_ND[row] = 0
            else:
                reasons[row] = faults.get(row, "")
        return {"features": features_ND, "reasons": np.array(reasons)}

    @torch.inference_mode()
    def _forward(self, pictures: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Embed at most one batch; a short one is filled up with blanks, which are thrown away."""
        rows = len(pictures)
        if rows < self.batch:
            blanks = np.zeros((self.batch - rows, *pictures.shape[1:]), pictures.dtype)
            pictures = np.concatenate([pictures, blanks])
        batch = torch.from_numpy(pictures).to(self.device)
        # Convolutions of fp32 are otherwise rounded to TF32 on a GPU, by whichever algorithm is picked that day.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with exact, torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            out = self.backbone(batch)
        values: npt.NDArray[np.float32] = out[:rows].float().cpu().numpy()
        return values


def embedder(
    config: BackboneConfig, seed: int, fingerprint: str, batch: int, precision: Precision
) -> Callable[[Arrays], Arrays]:
    """Build what an actor embeds with."""
    return Embedder(_backbone(config, seed, fingerprint), batch, precision)


@functools.lru_cache(maxsize=2)
def _backbone(config: BackboneConfig, seed: int, fingerprint: str) -> Backbone:
    """Load the backbone that the version was named after, and no other."""
    backbone = backbones.load(config, seed)
    if backbone.fingerprint != fingerprint:
        raise ModelError(
            f"`features.backbone` {config.backbone!r} with `weights` {config.weights!r} is not the same everywhere: "
            f"its fingerprint is {backbone.fingerprint[:12]} here and was {fingerprint[:12]} when the work began. "
            "Put the same weights file and the same torchvision on every machine, and leave them alone meanwhile."
        )
    return backbone


# -- commit ------------------------------------------------------------------------------------------------------


def write_part(chunk: Chunk, arrays: Arrays, version: str) -> None:
    """Commit one chunk's part file. Written twice it has the same content."""
    reasons = {row: reason for row, reason in enumerate(arrays["reasons"].tolist()) if reason}
    meta = {"version": version, "key": chunk.key, "chunk": chunk.number}
    data = store.batch_bytes(store.make_batch(arrays["features"], reasons, meta=meta))
    try:
        storage.write_bytes(chunk.part, data)
    except (AlrayError, OSError):
        # Another driver may have finished this shard and cleared its parts away under this one's hands.
        if not storage.exists(chunk.whole):
            raise
