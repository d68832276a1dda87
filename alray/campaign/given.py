"""What a strategy may look at in a round: labelled rows and the head of the round before, a reference set, the network.

The reference set is the held-out rows that were drawn at random, in round 0 and by the control arm since: they are paid
for like any label, no model was trained on them, and they stand for the pool (decision 26). The test set has no part.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from alray.campaign import delivery, rounds
from alray.campaign.rounds import ALIGNED, TRAINED, Round
from alray.campaign.splits import Split
from alray.campaign.workplace import Workplace
from alray.models import Head
from alray.models.backbone import plain
from alray.models.network import Network
from alray.strategies import Given
from alray.table import Table
from alray.training import evaluate
from alray.training.probe import label_numbers, row_weights

PICTURES = "backbone+images"


def given(place: Workplace, before: Round, parts: Split, skipped: Collection[str], wanted: int) -> Given:
    """Return what the strategy may look at while it chooses `wanted` rows after the round `before`."""
    settings, head, scan = place.settings, before.head(), place.scan
    labelled = scan.rows(parts.train)
    label_M = label_numbers([parts.train[i] for i in labelled.ids], head.classes)
    holdout = scan.rows(parts.holdout) if parts.holdout else None
    others = _drawn(holdout, before)
    fitted = _fitted(place, before)
    return Given(
        budget=wanted,
        seed=settings.seed,
        round=before.number + 1,
        head=head,
        head_config=settings.head,
        labelled=labelled,
        label_M=label_M,
        holdout=holdout,
        skipped=scan.rows(skipped) if skipped else None,
        backbone=settings.features.backbone,
        reference=others,
        reference_label_M=None
        if others is None
        else label_numbers([parts.holdout[i] for i in others.ids], head.classes),
        l2=settings.head.penalty(len(labelled)) if fitted is None else len(labelled) * fitted["weight_decay"],
        weight_M=row_weights(label_M, (fitted or settings.head.model_dump())["class_weights"]),
        network=_network(place, before, head, len(labelled)) if PICTURES in settings.strategy.wants else None,
    )


def _drawn(holdout: Table | None, before: Round) -> Table | None:
    """Return the held-out rows that were drawn at random; None when there are none."""
    if holdout is None:
        return None
    random = rounds.drawn(before.ledger, before.number)
    rows = np.flatnonzero([i in random for i in holdout.ids])
    return holdout.take(rows) if len(rows) else None


def _fitted(place: Workplace, before: Round) -> dict[str, Any] | None:
    """Return the settings that the head of the round before was fine-tuned by; None for a proxy."""
    if place.settings.regime != "standard":
        return None
    settings: dict[str, Any] = before.json(ALIGNED)["settings"]
    return settings


def _network(place: Workplace, before: Round, head: Head, rows: int) -> Network:
    """Return the network that the round before delivered: what its recipe trained, else its head on the backbone."""
    if before.has(TRAINED):
        made = before.json(TRAINED)
        model = evaluate.Model.of_checkpoint(delivery.checkpoint(before, made))
        assert model.head is not None
        return Network(model.backbone, Head.load(model.head), model.seed, rows * made["settings"]["weight_decay"])
    fitted = _fitted(place, before)
    l2 = place.settings.head.penalty(rows) if fitted is None else rows * fitted["weight_decay"]
    return Network(plain(place.backbone), head, place.settings.seed, l2)
