"""Measure a head on the test rows, shard by shard, where the shards are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alray.features import FeatureSet, FeatureShard
from alray.models import Head
from alray.runtime import Runtime

CHUNK = 8192
"""Rows of one product with the head: fp32 copies of them stay small."""


def head_metrics(head: Head, features: FeatureSet, labels: Mapping[str, str], runtime: Runtime) -> dict[str, Any]:
    """Return accuracy, its share per class, and the mean negative log-likelihood of a head on the test rows.

    A row whose class the head does not know counts as wrong, and not in `nll`; an unreadable row counts as wrong.
    """
    parts = runtime.map(count_correct, features.shards, head, dict(labels), stage="test")
    return combine(parts)


def count_correct(shard: FeatureShard, head: Head, labels: dict[str, str]) -> dict[str, Any]:
    """Return the counts of one test shard: rows, right answers and summed −log p, per class."""
    rows = shard.read()
    names = [labels[i] for i in rows.ids]
    known = {name: c for c, name in enumerate(head.classes)}
    target_N = np.array([known.get(name, -1) for name in names])
    logp = [
        torch.log_softmax(head.logits(torch.from_numpy(rows.features_ND[at : at + CHUNK].astype(np.float32))), dim=1)
        for at in range(0, len(names), CHUNK)
    ]
    logp_NC = torch.cat(logp).double().numpy()
    fine_N = rows.ok_N & (target_N >= 0)
    right_N = fine_N & (logp_NC.argmax(axis=1) == target_N)
    total, right = _per_class(names, np.ones(len(names), dtype=bool)), _per_class(names, right_N)
    loss = -logp_NC[np.flatnonzero(fine_N), target_N[fine_N]].sum()
    return {"total": total, "right": right, "loss": float(loss), "scored": int(fine_N.sum())}


def combine(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add the counts of shards, in order, and divide."""
    total: dict[str, int] = {}
    right: dict[str, int] = {}
    for part in parts:
        for name, count in part["total"].items():
            total[name] = total.get(name, 0) + count
            right[name] = right.get(name, 0) + part["right"].get(name, 0)
    scored, rows = sum(p["scored"] for p in parts), sum(total.values())
    return {
        "rows": rows,
        "accuracy": sum(right.values()) / rows,
        "per_class": {name: right[name] / total[name] for name in sorted(total)},
        "nll": sum(p["loss"] for p in parts) / scored if scored else None,
    }


def _per_class(names: Sequence[str], chosen_N: np.ndarray) -> dict[str, int]:
    kept = [name for name, chosen in zip(names, chosen_N, strict=True) if chosen]
    return dict(sorted(Counter(kept).items()))
