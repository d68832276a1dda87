"""The linear probe: the backbone stays as it is, and a head is fitted on its features in one worker."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from alray.models.backbone import BackboneConfig, plain
from alray.models.head import Head
from alray.runtime import Runtime
from alray.training import evaluate
from alray.training import rows as rows_of
from alray.training.base import Recipe, Trained
from alray.training.probe import HeadConfig, fit_head
from alray.training.rows import Rows, TrainSet

log = logging.getLogger(__name__)


class LinearProbe(Recipe):
    """Deliver the head that was fitted on the features, or fit one."""

    probe: HeadConfig = HeadConfig()  # used when the round brings no head of its own

    def train(
        self,
        rows: TrainSet,
        backbone: BackboneConfig,
        head: Head | None,
        runtime: Runtime,
        *,
        name: str,
        folder: str,
        seed: int,
        holdout: TrainSet | None = None,
    ) -> Trained:
        """Return `head`, or one fitted here; nothing is stored."""
        return Trained(head if head is not None else fit(self.probe, rows, backbone, runtime, seed))


def fit(probe: HeadConfig, rows: TrainSet, backbone: BackboneConfig, runtime: Runtime, seed: int) -> Head:
    """Fit a head on the rows' features: the pool's own, or the backbone's."""
    ids, features_MD = features(rows, backbone, runtime, seed)
    label_of = dict(zip(rows.ids, rows.labels, strict=True))
    labels = [label_of[i] for i in ids]
    head: Head = runtime.call(fit_head, probe, features_MD, labels, list(rows.classes), seed, stage="fit head")
    return head


def features(rows: TrainSet, backbone: BackboneConfig, runtime: Runtime, seed: int) -> tuple[Sequence[str], np.ndarray]:
    """Return ids in order and fp16 features [M, D]; rows that cannot be read are left out and logged."""
    located = rows_of.locate(rows)
    if rows.pool.kind != "features":
        found = evaluate.outputs(evaluate.Model(plain(backbone), seed), located, runtime, stage="embed labelled rows")
        ids, values, bad = found.ids, found.values, found.bad
    else:
        parts = runtime.map(_read, located.chunks(len(located)), stage="read labelled rows")
        ids = tuple(i for part in parts for i in part[0])
        order = sorted(range(len(ids)), key=lambda i: ids[i].encode())
        ids, values = tuple(ids[i] for i in order), np.concatenate([part[1] for part in parts])[order]
        bad = {k: v for part in parts for k, v in part[2].items()}
    for name, reason in sorted(bad.items()):
        log.warning("fitting without %s: %s", name, reason)
    return ids, values


def _read(rows: Rows) -> tuple[list[str], np.ndarray, dict[str, str]]:
    values_ND, reasons = rows.shards[0].features()
    good = [i for i, row in enumerate(rows.row_M.tolist()) if row not in reasons]
    bad = {rows.ids[i]: reasons[row] for i, row in enumerate(rows.row_M.tolist()) if row in reasons}
    return [rows.ids[i] for i in good], values_ND[rows.row_M[good]], bad
