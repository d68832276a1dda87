"""Losses of labelled rows under heads that have not seen them: what a module that predicts losses is taught by.

Under the head that was fitted on it a row's loss is near zero, whatever its label. Heads are fitted by `training/`,
which a strategy may not call: so the pipeline does, for strategies that need `loss`.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import torch

from alray.models.head import Head
from alray.runtime import Runtime
from alray.strategies import Given, Strategy
from alray.training.crossval import losses
from alray.training.probe import HeadConfig

log = logging.getLogger(__name__)

NEED = "loss"


def with_losses(given: Given, strategy: Strategy, runtime: Runtime) -> Given:
    """Return `given` with `losses`, if the strategy needs them and there are labelled rows that were not judged yet."""
    labelled, label_M, head = given.labelled, given.label_M, given.head
    if NEED not in strategy.wants or given.losses is not None or labelled is None or label_M is None or head is None:
        return given
    texts = [head.classes[c] for c in label_M.tolist()]
    config, features_MD = alike(given), labelled["features"].numpy()
    arguments = (config, features_MD, texts, head.classes, given.seed, labelled.ids.tolist())
    loss_M, known_M = runtime.call(losses, *arguments, stage="fit heads without a fold")
    judged = labelled.take(np.flatnonzero(known_M))
    return replace(given, losses=judged.with_columns(loss=torch.from_numpy(loss_M[known_M])))


def alike(given: Given) -> HeadConfig:
    """Return how heads are to be fitted that stand for the round's: as it was, or where nobody knows, as its like."""
    if isinstance(given.head_config, HeadConfig):
        return given.head_config
    head: Head | None = given.head
    assert head is not None
    log.info("It is not known how the head was fitted: losses are those of %s heads of default settings", head.kind)
    return HeadConfig(kind=head.kind, hidden=head.hidden_dim)
