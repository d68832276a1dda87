"""The plain PyTorch loops that `gpu_training.py` compares with: what one would write for one model and one machine."""

from __future__ import annotations

import argparse
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from alray import seeds
from alray.models import backbone as backbones
from alray.models.backbone import Backbone, BackboneConfig
from alray.models.transform import Transform
from alray.pool.images import decode
from alray.runtime import Runtime
from alray.training import FineTune, TrainSet, classifier, plan, views
from alray.training import rows as rows_of
from alray.training.pretrain import PretrainConfig
from alray.training.simsiam import SimSiam

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CLASSES = [f"class-{i}" for i in range(4)]
SEED = 0


@dataclass
class Bench:
    """What all parts need."""

    args: argparse.Namespace
    net: BackboneConfig
    rows: TrainSet
    runtime: Runtime
    pixels: list[Tensor] = field(default_factory=list)  # shrunk pictures in order of id

    def fresh(self) -> str:
        """Return a folder that is not there yet."""
        return str(self.args.work / uuid.uuid4().hex[:8])

    def model(self) -> Backbone:
        return backbones.load(self.net, SEED)

    def config(self, epochs: int) -> PretrainConfig:
        return PretrainConfig(epochs=epochs, batch=self.args.batch, lr=0.05, dim=self.args.dim,
                              hidden=self.args.dim // 4, path=self.fresh(), checkpoint_every=epochs)  # fmt: skip

    def recipe(self, epochs: int, augmentation: str) -> FineTune:
        return FineTune(epochs=epochs, batch=self.args.batch, lr=0.01, augmentation=augmentation)


class Files(Dataset[Tensor]):
    """Pictures as their files' bytes, decoded when asked for."""

    def __init__(self, path: str, steps: Transform) -> None:
        table = pq.read_table(path)
        order = np.argsort(np.array([i.encode() for i in table["id"].to_pylist()]))
        self.cells, self.steps = [table["image"][int(i)].as_py() for i in order], steps

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, index: int) -> Tensor:
        return self.steps(decode(self.cells[index]))


class Crops(Dataset[tuple[Tensor, int]]):
    """Decoded pictures, cropped at random as torchvision does it; or not."""

    def __init__(self, pixels: list[Tensor], target_M: Any, size: int, *, crop: bool) -> None:
        from torchvision.transforms import v2

        self.pixels, self.target_M = pixels, target_M
        padding = max(1, size // 8)
        self.crop = v2.RandomCrop(size, padding=padding) if crop else v2.CenterCrop(size)

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.crop(self.pixels[index]), int(self.target_M[index])


@contextmanager
def fast() -> Iterator[None]:
    with torch.autocast("cuda", torch.bfloat16, enabled=DEVICE.type == "cuda"):
        yield


def placed(model: nn.Module) -> nn.Module:
    return model.to(DEVICE, memory_format=torch.channels_last)  # type: ignore[call-overload]


def timed(bench: Bench, work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what `work` returns, and pictures per second."""
    start = time.perf_counter()
    out = work()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return out, len(bench.rows.ids) / (time.perf_counter() - start)


@torch.inference_mode()
def features(bench: Bench) -> np.ndarray:
    body = placed(bench.model()).eval()
    files = Files(bench.rows.pool.shards[0].uri, bench.model().transform)
    found = []
    loader = DataLoader(files, bench.args.batch, num_workers=bench.args.loaders, pin_memory=DEVICE.type == "cuda")
    for batch in loader:
        with fast():
            pixels = batch.to(DEVICE, non_blocking=True, memory_format=torch.channels_last)
            found.append(body(pixels).half().cpu())
    return torch.cat(found).numpy()


def simsiam(bench: Bench, epochs: int) -> tuple[list[float], list[float]]:
    """Return the loss and the pictures per second of each epoch."""
    config, args = bench.config(epochs), bench.args
    model = SimSiam(bench.model(), dim=config.dim, hidden=config.hidden, layers=config.layers, seed=SEED)
    placed(model).train()
    peak, hashes = config.lr * config.batch / 256, seeds.hash_ids(bench.rows.ids)
    rest = [*model.body.parameters(), *model.projector.parameters()]
    groups = [{"params": rest}, {"params": list(model.predictor.parameters())}]
    optimiser = torch.optim.SGD(groups, lr=peak, momentum=config.momentum, weight_decay=config.weight_decay)
    size, out = model.body.transform.crop, []

    def epoch(number: int) -> float:
        batches, total = (
            plan.epoch_batches(len(hashes), args.batch, seed=SEED, epoch=number),
            torch.zeros((), device=DEVICE),
        )
        for step, index in enumerate(batches):
            rate = (number + step / len(batches)) / epochs
            optimiser.param_groups[0]["lr"] = peak * 0.5 * (1 + np.cos(np.pi * rate))
            pair = []
            for view in (0, 1):
                draws = views.Draws(hashes[index], DEVICE, seed=SEED, epoch=number, view=view)
                made = views.make([bench.pixels[i] for i in index], draws, config, size, DEVICE)
                pair.append(made.contiguous(memory_format=torch.channels_last))
            with fast():
                loss_B, *_ = model(*pair)
            optimiser.zero_grad()
            loss_B.mean().backward()
            optimiser.step()
            total += loss_B.detach().sum()
        return float(total) / len(hashes)

    for number in range(epochs):
        out.append(timed(bench, lambda number=number: epoch(number)))
    return [loss for loss, _ in out], [speed for _, speed in out]


def tuning(bench: Bench, epochs: int, *, crop: bool, planned: bool) -> tuple[list[float], list[float]]:
    """Return the loss and the pictures per second of each epoch; `planned`: in alray's batches."""
    recipe, target_M = bench.recipe(epochs, "crop"), rows_of.locate(bench.rows).target_M
    model = placed(classifier.build(bench.model(), len(CLASSES), None, SEED)).train()
    optimiser = torch.optim.SGD(
        model.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    pictures = Crops(bench.pixels, target_M, bench.model().transform.crop, crop=crop)

    def loader(number: int) -> Any:
        order: Any = {"batch_size": recipe.batch, "shuffle": True}
        if planned:
            batches = plan.epoch_batches(len(pictures), recipe.batch, seed=SEED, epoch=number)
            order = {"batch_sampler": [batch.tolist() for batch in batches]}
        return DataLoader(pictures, num_workers=bench.args.loaders, pin_memory=DEVICE.type == "cuda", **order)

    def epoch(number: int) -> float:
        total, found = torch.zeros((), device=DEVICE), loader(number)
        for step, (batch, target) in enumerate(found):
            for group in optimiser.param_groups:
                group["lr"] = recipe.lr * 0.5 * (1 + np.cos(np.pi * (number + step / len(found)) / epochs))
            pixels = batch.to(DEVICE, non_blocking=True, memory_format=torch.channels_last)
            with fast():
                logits = model(pixels).float()
            loss = F.cross_entropy(logits, target.to(DEVICE, non_blocking=True))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach() * len(target)
        return float(total) / len(pictures)

    out = [timed(bench, lambda number=number: epoch(number)) for number in range(epochs)]
    return [loss for loss, _ in out], [speed for _, speed in out]
