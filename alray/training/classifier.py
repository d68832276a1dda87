"""Classifier: a backbone and its classification layer, and the folder that a fine-tuned one is stored as.

The folder holds `backbone.safetensors`, `head.safetensors` and `meta.json`, which is what `weights:` takes, and
`resume.pt`, which is what an interrupted run needs besides and nobody else reads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from alray import seeds, storage
from alray.errors import ModelError
from alray.models import backbone as backbones
from alray.models import weights
from alray.models.backbone import Backbone
from alray.models.head import Head

HEAD_FILE = "head.safetensors"
RESUME_FILE = "resume.pt"
BODY, LAYER = "body.body.", "layer."

State = dict[str, Tensor]


@dataclass
class Progress:
    """How far a run has come. The loop changes it, once an epoch."""

    epoch: int = 0  # epochs done
    best: float = math.inf  # lowest holdout nll so far
    waited: int = 0  # epochs since then

    def finished(self, epochs: int, patience: int | None) -> bool:
        """Say whether the last epoch is done, or the holdout has waited long enough."""
        return self.epoch >= epochs or (patience is not None and self.waited >= patience)

    def advance(self, holdout_nll: float | None) -> bool:
        """Count an epoch and say whether its model is the one to deliver."""
        self.epoch += 1
        if holdout_nll is None:
            return True
        better = holdout_nll < self.best
        self.best, self.waited = min(self.best, holdout_nll), 0 if better else self.waited + 1
        return better


class Classifier(nn.Module):
    """A backbone and its classification layer: pictures [N, 3, S, S] to logits [N, C]."""

    def __init__(self, body: Backbone, layer: nn.Linear) -> None:
        super().__init__()
        self.body, self.layer = body, layer

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the logits [N, C]."""
        logits: Tensor = self.layer(self.body(pictures))
        return logits


def build(body: Backbone, classes: int, start: tuple[np.ndarray, np.ndarray] | None, seed: int) -> Classifier:
    """Return a classifier whose layer is `start` (weight [C, D], bias [C]), or small seeded numbers."""
    layer = nn.Linear(body.dim, classes, device="meta").to_empty(device="cpu")  # elsewhere it draws random numbers
    if start is not None and start[0].shape != (classes, body.dim):
        raise ModelError(
            f"The head has weights of shape {list(start[0].shape)}; the backbone and the classes need "
            f"[{classes}, {body.dim}]. Fit the head on this backbone's features."
        )
    with torch.no_grad():
        if start is not None:
            layer.weight.copy_(torch.tensor(start[0]))
            layer.bias.copy_(torch.tensor(start[1]))
        else:
            layer.weight.normal_(0.0, 0.01, generator=seeds.torch_generator(seed, "classification layer"))
            layer.bias.zero_()
    return Classifier(body, layer)


def snapshot(model: Classifier) -> State:
    """Return a copy of the weights as they are now, on the CPU and in the order of their shapes."""
    plain = torch.contiguous_format
    return {name: tensor.detach().cpu().clone(memory_format=plain) for name, tensor in model.state_dict().items()}


def save(
    folder: Path,
    model: Classifier,
    classes: tuple[str, ...],
    *,
    best: State | None,
    progress: Progress,
    optimiser: Mapping[str, Any],
    seed: int,
) -> None:
    """Write a checkpoint: the weights to deliver (`best`, else the current ones) and what a resume needs."""
    current = snapshot(model)
    delivered = best or current
    body = {name.removeprefix(BODY): tensor for name, tensor in delivered.items() if name.startswith(BODY)}
    backbones.save(model.body, folder, state=body, classes=list(classes), seed=seed)
    head = Head.linear(delivered[f"{LAYER}weight"].numpy(), delivered[f"{LAYER}bias"].numpy(), classes)
    head.save(str(folder / HEAD_FILE))
    resume = {"progress": asdict(progress), "optimiser": optimiser, "current": current if best else None}
    weights.write(str(folder / RESUME_FILE), resume)


def restore(folder: Path, model: Classifier, *, holdout: bool) -> tuple[Progress, Mapping[str, Any], State | None]:
    """Load the current weights into `model`; return the progress, the optimiser's state and the best weights."""
    resume = weights.read_state(str(folder / RESUME_FILE))
    delivered = _delivered(folder)
    model.load_state_dict(resume["current"] or delivered)
    return Progress(**resume["progress"]), resume["optimiser"], delivered if holdout else None


def _delivered(folder: Path) -> State:
    from alray.models import tensor_file

    body, _ = tensor_file.load(str(folder / backbones.BACKBONE_FILE))
    head = Head.load(str(folder / HEAD_FILE))
    weight, bias = head.last
    state = {f"{BODY}{name}": torch.from_numpy(array.copy()) for name, array in body.items()}
    return {**state, f"{LAYER}weight": weight.clone(), f"{LAYER}bias": bias.clone()}


def classes_of(checkpoint: str) -> tuple[str, ...]:
    """Return the classes of a checkpoint, in the order of its logits."""
    return tuple(storage.read_json(storage.join(checkpoint, backbones.META))["classes"])
