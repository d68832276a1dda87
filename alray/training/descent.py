"""Descent: how a classifier's weights move in a step, and whose statistics its batch norms use meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from alray import seeds
from alray.runtime import Worker
from alray.training import schedule
from alray.training.classifier import Classifier
from alray.training.settings import TuneSettings

M = TypeVar("M", bound=nn.Module)


class Descent:
    """The optimiser of a classifier, its learning rates and the clipping of its gradient."""

    def __init__(self, settings: TuneSettings, model: Classifier) -> None:
        self.settings, self.model = settings, model
        self.rates = (settings.lr, settings.lr if settings.head_lr is None else settings.head_lr)
        self.optimiser = self._optimiser([{"params": list(part.parameters())} for part in (model.body, model.layer)])

    def _optimiser(self, groups: list[dict[str, list[nn.Parameter]]]) -> torch.optim.Optimizer:
        settings = self.settings
        if settings.optimizer == "adamw":
            return torch.optim.AdamW(groups, lr=settings.lr, weight_decay=settings.weight_decay)
        return torch.optim.SGD(
            groups,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=settings.weight_decay,
        )

    def set_rates(self, epoch: int, step: int, steps: int) -> None:
        """Set the learning rates for step 0 … `steps` − 1 of the whole run, which is in this epoch, 0 for the first."""
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor(self.settings, epoch, step, steps)

    def step(self) -> None:
        """Move the weights along the gradient, which is that of the global batch on every worker."""
        if self.settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.optimiser.step()


def factor(settings: TuneSettings, epoch: int, step: int, steps: int) -> float:
    """Return what the learning rates are multiplied by in a step; see `Descent.set_rates`."""
    if settings.schedule == "constant":
        return 1.0
    if settings.schedule == "steps":
        return schedule.staircase(epoch, settings.milestones, settings.gamma)
    return schedule.falling(settings.schedule, step, steps)


# Batch norm


def synchronises(worker: Worker) -> bool:
    """Say whether batch norm takes its statistics over all workers: torch's SyncBatchNorm does so on CUDA alone.

    On CPUs, whose workers speak gloo, each worker normalises by its own rows.
    """
    return worker.world > 1 and worker.device.type == "cuda"


def placed(model: M, worker: Worker) -> M:
    """Return the model as this worker's device likes it best: on CUDA channels last, its batch norms synchronised."""
    if worker.device.type == "cuda":
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if synchronises(worker):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    return model


@contextmanager
def quiet_norms(model: nn.Module, quiet: bool) -> Iterator[None]:
    """Let batch norm use its running statistics, and leave them as they are, until the model's mode is set anew."""
    norms = [m for m in model.modules() if quiet and isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.eval()
    yield


@contextmanager
def own_stream(seed: int, epoch: int, worker: Worker) -> Iterator[None]:
    """Seed torch's own generators for an epoch (dropout draws from them), and put them back."""
    devices = [worker.device] if worker.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seeds.key(seed, "dropout", epoch, worker.rank) & (2**63 - 1))
        yield
