"""The loop of self-supervised pre-training: plain PyTorch on one worker of many, or of one.

The gradient of a step is that of the whole global batch, which every worker takes its own share of. Batch norm is the
exception on CPUs: each worker normalises by its own rows there, and by all rows of the batch on GPUs (SyncBatchNorm).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn

from alray import seeds
from alray.models import backbone as backbones
from alray.models import weights
from alray.models.backbone import BackboneConfig
from alray.pool import Shard
from alray.runtime import Worker
from alray.training import descent, plan, views
from alray.training.plan import Index
from alray.training.pretrain_settings import PretrainConfig
from alray.training.rows import PictureCache, Rows
from alray.training.simsiam import SimSiam, Spread

log = logging.getLogger(__name__)

RESUME_FILE = "resume.pt"

WINDOW_ROWS = 2048
"""Rows read from the pool in one pass, and so held at once when they are not kept."""


@dataclass(frozen=True, eq=False)
class Job:
    """All that a pre-training is: settings, the backbone that it starts from, and where the pictures are."""

    settings: PretrainConfig
    backbone: BackboneConfig
    shards: tuple[Shard, ...]
    seed: int
    trace: str | None = None  # local folder: each worker notes there which rows it used in which step


def loop(config: dict[str, Any], worker: Worker) -> None:
    """Train `config["job"]` to its last epoch, or until it has collapsed; some epochs are commits.

    A commit's metrics hold those of all `epochs` since the last one: a report costs more than a small epoch does.
    """
    learner, since = Learner(config["job"], worker), []
    epochs, every = learner.settings.epochs, learner.settings.checkpoint_every
    while learner.done < epochs and not learner.collapsed:
        since.append(learner.epoch(learner.done))
        if learner.done == epochs or learner.collapsed or learner.done % every == 0:
            if worker.rank == 0:
                log.info("epoch %d of %d: %s", learner.done, epochs, since[-1])
            worker.report({"epochs": since}, learner.save)
            since = []


def rows_of(shards: tuple[Shard, ...]) -> Rows:
    """Return all rows of these shards, in their order; each worker reads the ids for itself. Their class is 0."""
    ids_of = [shard.ids().tolist() for shard in shards]
    counts = [len(ids) for ids in ids_of]
    shard_M = np.repeat(np.arange(len(shards)), counts)
    row_M = np.concatenate([np.arange(count) for count in counts])
    return Rows(shards, tuple(i for ids in ids_of for i in ids), shard_M, row_M, np.zeros(len(row_M), np.int64))


class Learner:
    """The state of a run on one worker: model, optimiser, pictures, and how far it has come."""

    def __init__(self, job: Job, worker: Worker) -> None:
        self.job, self.settings, self.worker = job, job.settings, worker
        self.model = _model(job, worker)
        self.done, self.low = 0, 0  # epochs; those in a row whose spread is below `collapse`
        state: Mapping[str, Any] | None = None
        with worker.resume() as folder:
            if folder is not None:
                state = weights.read_state(str(folder / RESUME_FILE))
                self.model.load_state_dict(state["model"])
                self.done, self.low = state["done"], state["low"]
        self.wrapped = worker.wrap(self.model)
        self.optimiser = _optimiser(self.settings, self.model)
        if state is not None:
            self.optimiser.load_state_dict(state["optimiser"])
        self.rows = rows_of(job.shards)
        self.hashes = seeds.hash_ids(self.rows.ids)
        self.pictures = PictureCache(self.rows, self.model.body.transform.shrink, self.settings.cache_bytes)

    @property
    def collapsed(self) -> bool:
        """Say whether the spread has been low for as long as the settings allow."""
        return self.low >= self.settings.collapse_epochs

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch and return its metrics, the same on every worker but for times."""
        start, job = time.perf_counter(), self.job
        batches = plan.epoch_batches(len(self.rows), self.settings.batch, seed=job.seed, epoch=epoch)
        shares = [plan.share(batch, self.worker.rank, self.worker.world) for batch in batches]
        # Sums stay on the device: to read one in every step would make a GPU wait for it.
        sums = torch.zeros(2, dtype=torch.float64, device=self.worker.device)
        spread, step = Spread(self.settings.dim, self.worker.device), 0
        with descent.own_stream(job.seed, epoch, self.worker):
            for window in plan.windows(shares, WINDOW_ROWS):
                found = self.pictures.load(np.concatenate(window))
                for part in window:
                    self._set_lr(epoch + step / len(batches))
                    sums += self._step(epoch, part, found, spread, rows=len(batches[step]))
                    plan.note(job.trace, self.worker.rank, epoch, step, [self.rows.ids[i] for i in part.tolist()])
                    step += 1
        totals = self._summed(torch.cat([sums, spread.sums]))
        return self._metrics(epoch, totals, step, time.perf_counter() - start)

    def _metrics(self, epoch: int, totals: Tensor, steps: int, seconds: float) -> dict[str, Any]:
        loss, rows = totals[:2].tolist()
        spread = Spread.of(totals[2:])
        finite = math.isfinite(loss) and (spread is None or math.isfinite(spread))
        low = spread is not None and spread < self.settings.collapse and epoch >= self.settings.warmup
        self.done, self.low = epoch + 1, self.low + 1 if low else 0
        if not finite:
            self.low = self.settings.collapse_epochs  # nothing comes after NaN
        metrics = {
            "epoch": epoch + 1, "loss": loss / max(rows, 1) if finite else None, "spread": spread if finite else None,
            "lr": self.optimiser.param_groups[0]["lr"], "rows": int(rows), "steps": steps,
            "unreadable": len(self.rows) - int(rows), "low_epochs": self.low,
            "seconds": round(seconds, 3), "pictures_per_second": round(rows / seconds, 1),
        }  # fmt: skip
        return metrics

    def save(self, folder: Path) -> None:
        """Write this epoch's checkpoint into a local folder: what `weights:` takes, and what a resume needs besides."""
        backbones.save(self.model.body, folder, seed=self.job.seed, method=self.settings.method, epochs=self.done)
        resume = {
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(), "done": self.done,
            "low": self.low,
        }  # fmt: skip
        weights.write(str(folder / RESUME_FILE), resume)

    def _step(self, epoch: int, part: Index, found: Mapping[int, Tensor], spread: Spread, *, rows: int) -> Tensor:
        """Take one step on this worker's part of a global batch of `rows`; return its sums of loss and rows."""
        index = [i for i in part.tolist() if i in found]
        first, second = (self._view(epoch, index, found, view) for view in (0, 1))
        # One row has no batch statistics of its own. Where norms are synchronised all workers must take part in them.
        self.wrapped.train(len(index) > 1 or self.synchronised)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.worker.device.type == "cuda"):
            loss_B, z1, z2 = self.wrapped(first, second)
        loss = loss_B[: len(index)].sum()
        self.optimiser.zero_grad()
        (loss / rows * self.worker.world + 0.0 * loss_B.sum()).backward()
        self.optimiser.step()
        for z in (z1, z2):
            spread.add(z[: len(index)])
        return F.pad(loss.detach().double()[None], (0, 1), value=float(len(index)))

    @property
    def synchronised(self) -> bool:
        """Say whether batch norm is over the rows of all workers."""
        return any(isinstance(m, nn.SyncBatchNorm) for m in self.model.modules())

    def _view(self, epoch: int, index: list[int], found: Mapping[int, Tensor], view: int) -> Tensor:
        """Return a view of a step's pictures on the device; a worker without rows takes part with a blank one."""
        size, device = self.model.body.transform.crop, self.worker.device
        if not index:
            return torch.zeros(1, 3, size, size, device=device)
        draws = views.Draws(self.hashes[index], device, seed=self.job.seed, epoch=epoch, view=view)
        made = views.make([found[i] for i in index], draws, self.settings, size, device)
        return made.contiguous(memory_format=torch.channels_last)

    def _summed(self, sums: Tensor) -> Tensor:
        """Return the sum over all workers."""
        if self.worker.world > 1:
            torch.distributed.all_reduce(sums)
        return sums.cpu()

    def _set_lr(self, epochs: float) -> None:
        """Set the learning rate after so many epochs: a warm-up, then a cosine; the predictor's is constant."""
        settings = self.settings
        peak = settings.lr * settings.batch / 256
        if epochs < settings.warmup:
            rate = peak * epochs / settings.warmup
        else:
            past = (epochs - settings.warmup) / max(1, settings.epochs - settings.warmup)
            rate = peak * 0.5 * (1 + math.cos(math.pi * past))
        self.optimiser.param_groups[0]["lr"], self.optimiser.param_groups[1]["lr"] = rate, peak


def _model(job: Job, worker: Worker) -> SimSiam:
    settings = job.settings
    body = backbones.load(job.backbone, job.seed)
    model = SimSiam(body, dim=settings.dim, hidden=settings.hidden, layers=settings.layers, seed=job.seed)
    return descent.placed(model, worker).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _optimiser(settings: PretrainConfig, model: SimSiam) -> torch.optim.Optimizer:
    falling = [*model.body.parameters(), *model.projector.parameters()]
    groups = [{"params": falling}, {"params": list(model.predictor.parameters())}]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay)
