"""The fine-tuning loop: plain PyTorch on one worker of many, or of one; it sees nothing of the runtime but a Worker.

The gradient of a step is that of the whole global batch, whatever the number of workers: each worker sums its rows'
losses, divides by the rows of the global batch and multiplies by the number of workers, because the wrapped module
averages over them. Batch norm is the exception on CPUs: each worker normalises by its own rows.
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
from torch import Tensor

from alray.errors import ModelError
from alray.models import backbone as backbones
from alray.models import transform
from alray.models.backbone import BackboneConfig
from alray.runtime import Worker
from alray.training import classifier, descent, plan
from alray.training.classifier import Progress
from alray.training.descent import Descent
from alray.training.plan import Index
from alray.training.probe import row_weights
from alray.training.rows import PictureCache, Rows
from alray.training.settings import TuneSettings

log = logging.getLogger(__name__)

WINDOW_ROWS = 2048
"""Rows read from the pool in one pass, and so held at once when they are not kept."""


@dataclass(frozen=True, eq=False)
class Job:
    """All that a fine-tune is: settings, where its rows are, and the layer it starts from."""

    settings: TuneSettings
    backbone: BackboneConfig
    classes: tuple[str, ...]
    rows: Rows
    holdout: Rows | None
    start: tuple[np.ndarray, np.ndarray] | None  # classification layer: weight [C, D], bias [C]
    seed: int
    trace: str | None = None  # local folder: each worker notes there which rows it used in which step


def loop(config: dict[str, Any], worker: Worker) -> None:
    """Train `config["job"]` to its last epoch, or until the holdout stops improving; each epoch is a commit."""
    job: Job = config["job"]
    tuner = Tuner(job, worker)
    progress = tuner.progress
    while not progress.finished(job.settings.epochs, job.settings.patience if job.holdout else None):
        with descent.own_stream(job.seed, progress.epoch, worker):
            metrics = tuner.epoch(progress.epoch)
        delivers = progress.advance(metrics.get("holdout_nll"))
        if delivers and job.holdout is not None:
            tuner.best = classifier.snapshot(tuner.model)
        worker.report(metrics, tuner.save)


class Tuner:
    """The state of a run on one worker: model, optimiser, pictures."""

    def __init__(self, job: Job, worker: Worker) -> None:
        self.job, self.worker = job, worker
        self.model = classifier.build(backbones.load(job.backbone, job.seed), len(job.classes), job.start, job.seed)
        self.progress = Progress()
        self.best: classifier.State | None = None  # the weights of the best epoch, where a holdout tells
        optimiser_state: Mapping[str, Any] | None = None
        with worker.resume() as folder:
            if folder is not None:
                self.progress, optimiser_state, self.best = classifier.restore(
                    folder, self.model, holdout=job.holdout is not None
                )
        self.model = descent.placed(self.model, worker)
        self.wrapped = worker.wrap(self.model)
        self.descent = Descent(job.settings, self.model)
        if optimiser_state is not None:
            self.descent.optimiser.load_state_dict(dict(optimiser_state))
        shrink = self.model.body.transform.shrink
        self.pictures = PictureCache(job.rows, shrink, job.settings.cache_bytes)
        self.held_out = PictureCache(job.holdout, shrink, job.settings.cache_bytes) if job.holdout else None
        self.weight_M = row_weights(torch.from_numpy(job.rows.target_M), job.settings.class_weights)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train one epoch and return its metrics, the same on every worker but for `seconds`."""
        start, job = time.perf_counter(), self.job
        batches = plan.epoch_batches(len(job.rows), job.settings.batch, seed=job.seed, epoch=epoch)
        shares = [plan.share(batch, self.worker.rank, self.worker.world) for batch in batches]
        sums, step = torch.zeros(3, dtype=torch.float64), 0  # loss, right, rows
        for window in plan.windows(shares, WINDOW_ROWS):
            found = self.pictures.load(np.concatenate(window))
            for part in window:
                self.descent.set_rates(epoch, epoch * len(batches) + step, job.settings.epochs * len(batches))
                sums += self._step(epoch, part, found, rows=len(batches[step]))
                plan.note(job.trace, self.worker.rank, epoch, step, [job.rows.ids[i] for i in part.tolist()])
                step += 1
        loss, right, rows = self._summed(sums).tolist()
        self._refuse_divergence(epoch, loss)
        metrics = {
            "epoch": epoch + 1, "loss": loss / max(rows, 1), "train_accuracy": right / max(rows, 1), "rows": int(rows),
            "steps": step, "unreadable": len(job.rows) - int(rows), **self._evaluate(),
            "seconds": round(time.perf_counter() - start, 3),
        }  # fmt: skip
        if self.worker.rank == 0:
            log.info("epoch %d of %d: %s", epoch + 1, job.settings.epochs, metrics)
        return metrics

    def _refuse_divergence(self, epoch: int, loss: float) -> None:
        """Raise ModelError when loss or weights are NaN or infinite, on every worker alike."""
        if math.isfinite(loss) and all(bool(torch.isfinite(weight).all()) for weight in self.model.parameters()):
            return
        settings = self.job.settings
        raise ModelError(
            f"The training diverged in epoch {epoch + 1} of {settings.epochs} at `lr` {settings.lr:g}: the loss is "
            f"{loss:g}, and not all weights are finite. Lower `lr` and `head_lr` of the recipe, or set its `clip_norm`."
        )

    def save(self, folder: Path) -> None:
        """Write this epoch's checkpoint into a local folder."""
        classifier.save(
            folder,
            self.model,
            self.job.classes,
            best=self.best,
            progress=self.progress,
            optimiser=self.descent.optimiser.state_dict(),
            seed=self.job.seed,
        )

    def _step(self, epoch: int, part: Index, found: Mapping[int, Tensor], *, rows: int) -> Tensor:
        """Take one step on this worker's part of a global batch of `rows`; return its sums of loss, right, rows."""
        index = [i for i in part.tolist() if i in found]
        self.wrapped.train()
        with descent.quiet_norms(self.model, self._quiet(len(index), rows)), self._autocast():
            logits = self.wrapped(self._augmented(epoch, index, found)).float()
        target = torch.from_numpy(self.job.rows.target_M[index]).to(logits.device)
        smoothing = self.job.settings.label_smoothing
        loss_B = F.cross_entropy(logits[: len(index)], target, reduction="none", label_smoothing=smoothing)
        share = (loss_B * self.weight_M[index].to(logits.device)).sum() / rows * self.worker.world
        self.descent.optimiser.zero_grad()
        (share + 0.0 * logits.sum()).backward()
        self.descent.step()
        right = (logits[: len(index)].argmax(1) == target).sum()
        return torch.tensor([float(loss_B.detach().sum()), float(right), len(index)], dtype=torch.float64)

    def _quiet(self, mine: int, rows: int) -> bool:
        """Say whether batch norm uses its running statistics in a step: one row has none of its own.

        Where the workers share statistics they must agree on it, so there it goes by the rows of the global batch.
        """
        few = rows < 2 * self.worker.world if descent.synchronises(self.worker) else mine < 2
        return few or self.job.settings.freeze_norms

    def _augmented(self, epoch: int, index: list[int], found: Mapping[int, Tensor]) -> Tensor:
        """Return the pictures of a step on the device; a worker without rows takes part with a blank one."""
        steps, kind, job = self.model.body.transform, self.job.settings.augmentation, self.job
        if not index:
            return self._sent(torch.zeros(1, 3, steps.crop, steps.crop, dtype=torch.uint8))
        streams = [transform.stream_of(job.seed, epoch, job.rows.ids[i]) for i in index]
        pixels = [steps.augment(found[i], kind, stream) for i, stream in zip(index, streams, strict=True)]
        return self._sent(torch.stack(pixels))

    @torch.no_grad()
    def _evaluate(self) -> dict[str, float]:
        """Return nll and accuracy on the holdout, each worker on its share; nothing without a row that can be read."""
        rows, sums = self.job.holdout, torch.zeros(3, dtype=torch.float64)
        if rows is None or self.held_out is None:
            return {}
        self._share_buffers()
        self.model.eval()
        mine = plan.share(np.arange(len(rows)), self.worker.rank, self.worker.world)
        for part in np.array_split(mine, plan.steps(max(1, len(mine)), self.job.settings.batch)):
            found = self.held_out.load(part)
            if not found:
                continue
            pixels = torch.stack([self.model.body.transform.centre(picture) for picture in found.values()])
            with self._autocast():
                logits = self.model(self._sent(pixels)).float().cpu()
            target = torch.from_numpy(rows.target_M[list(found)])
            right = (logits.argmax(1) == target).sum()
            nll = F.cross_entropy(logits.double(), target, reduction="sum")
            sums += torch.tensor([float(nll), float(right), len(found)], dtype=torch.float64)
        nll, right, count = self._summed(sums).tolist()
        return {"holdout_nll": nll / count, "holdout_accuracy": right / count} if count else {}

    def _share_buffers(self) -> None:
        """Give every worker the first one's batch-norm statistics: it is those that the checkpoint holds."""
        if self.worker.world > 1:
            for buffer in self.model.buffers():
                torch.distributed.broadcast(buffer, 0)

    def _summed(self, sums: Tensor) -> Tensor:
        """Return the sum over all workers."""
        if self.worker.world == 1:
            return sums
        total = sums.to(self.worker.device)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def _sent(self, pictures: Tensor) -> Tensor:
        """Return uint8 pictures [B, 3, S, S] on the device, laid out as the model is."""
        last = self.worker.device.type == "cuda"
        return pictures.to(self.worker.device, memory_format=torch.channels_last if last else torch.preserve_format)

    def _autocast(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.worker.device.type == "cuda")
