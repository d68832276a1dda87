"""Evaluate: logits, features and accuracy of a model on rows of a pool, chunk by chunk on the workers."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from alray import storage
from alray.models import backbone as backbones
from alray.models.backbone import Backbone, BackboneConfig
from alray.models.head import Head
from alray.runtime import Runtime
from alray.training import rows as rows_of
from alray.training.classifier import HEAD_FILE
from alray.training.probe import label_numbers
from alray.training.rows import Rows, TrainSet

CHUNK = 256
"""Rows of one call. Fixed, so that a row meets the same batch wherever it is computed."""

BATCH = 64


@dataclass(frozen=True)
class Model:
    """A model by what it is loaded from, so that it can be sent: a backbone, and a head if logits are wanted."""

    backbone: BackboneConfig
    seed: int = 0
    head: str | None = None  # URI

    @staticmethod
    def of_checkpoint(checkpoint: str) -> Model:
        """Return the model that a fine-tuned checkpoint's folder holds."""
        meta = storage.read_json(storage.join(checkpoint, backbones.META))
        config = BackboneConfig(backbone=meta["backbone"], weights=checkpoint)
        return Model(config, meta["seed"], storage.join(checkpoint, HEAD_FILE))

    def body(self) -> Model:
        """Return the model without its head: what comes out are features."""
        return replace(self, head=None)


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a model says of N rows, sorted by id: logits [N, C] or features [N, D], and the rows it could not read."""

    ids: tuple[str, ...]
    values: np.ndarray
    bad: dict[str, str]  # id → reason


def accuracy(model: Model, test: TrainSet, runtime: Runtime) -> dict[str, Any]:
    """Return `accuracy`, `per_class`, `nll`, `rows` and `unreadable` of a model on all these labelled rows.

    A row that cannot be read, or whose label is none of the classes, counts as wrong, and not in `nll`.
    """
    label_of = {i: label for i, label in zip(test.ids, test.labels, strict=True) if label in set(test.classes)}
    total, right, nll, unreadable = Counter(test.labels), Counter[str](), None, 0
    if label_of:
        known = rows_of.locate(TrainSet(test.pool, list(label_of), list(label_of.values()), test.classes))
        found = outputs(model, known, runtime, stage="evaluate")
        labels, unreadable = [label_of[i] for i in found.ids], len(found.bad)
        said = [test.classes[c] for c in found.values.argmax(axis=1)]
        right = Counter(label for label, guess in zip(labels, said, strict=True) if label == guess)
        nll = measure(found.values, labels, test.classes)["nll"] if labels else None
    return {
        "accuracy": right.total() / total.total(),
        "nll": nll,
        "per_class": {name: right[name] / count for name, count in sorted(total.items())},
        "rows": total.total(),
        "unreadable": unreadable,
    }


def measure(logits_NC: np.ndarray, labels: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Return `accuracy`, `nll` (mean, nats), `per_class` accuracy of the classes that have labels, and `rows`."""
    target_N = label_numbers(labels, classes)
    logits = torch.from_numpy(np.asarray(logits_NC)).double()
    right_N = logits.argmax(1) == target_N
    per_class = {name: right_N[target_N == c] for c, name in enumerate(classes)}
    return {
        "accuracy": float(right_N.double().mean()),
        "nll": float(F.cross_entropy(logits, target_N)),
        "per_class": {name: float(right.double().mean()) for name, right in per_class.items() if len(right)},
        "rows": len(labels),
    }


def outputs(model: Model, rows: Rows, runtime: Runtime, *, stage: str) -> Outputs:
    """Run a model over rows on the workers; fp32 logits if it has a head, else fp16 features."""
    parts = runtime.map(run_chunk, rows.chunks(CHUNK), model, stage=stage)
    ids = [i for part in parts for i in part[0]]
    order = sorted(range(len(ids)), key=lambda i: ids[i].encode())
    values = np.concatenate([part[1] for part in parts])[order]
    return Outputs(tuple(ids[i] for i in order), values, {k: v for part in parts for k, v in part[2].items()})


def run_chunk(rows: Rows, model: Model) -> tuple[list[str], np.ndarray, dict[str, str]]:
    """Return ids, logits or features, and the reasons of unreadable rows: one call on one worker."""
    body, head = _loaded(model)
    bad: dict[str, str] = {}
    ids, pixels = [], []
    for i, found in rows_of.pictures(rows, np.arange(len(rows)), body.transform.shrink):
        if isinstance(found, str):
            bad[rows.ids[i]] = found
        else:
            ids.append(rows.ids[i])
            pixels.append(body.transform.centre(found))
    width = len(head.classes) if head else body.dim
    if not pixels:
        return ids, np.zeros((0, width), np.float32 if head else np.float16), bad
    return ids, forward(body, head, torch.stack(pixels)), bad


@torch.inference_mode()
def forward(body: Backbone, head: Head | None, pixels: torch.Tensor) -> np.ndarray:
    """Return fp32 logits, or fp16 features without a head, of uint8 pictures [N, 3, S, S]; N is the chunk."""
    device = next(body.buffers()).device
    found = []
    for batch in torch.split(pixels, BATCH):
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            features = body(batch.to(device))
        found.append((head.logits(features.float()) if head else features.half()).cpu())
    return torch.cat(found).numpy()


@functools.lru_cache(maxsize=1)
def _loaded(model: Model) -> tuple[Backbone, Head | None]:
    """Load a model once a process; its files do not change under a name."""
    body = backbones.load(model.backbone, model.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return body.to(device), Head.load(model.head) if model.head else None
