"""The trial of new features: the same held-out rows, seen by the features in force and by those of a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alray.campaign import rounds
from alray.campaign.rounds import Round
from alray.campaign.workplace import Workplace
from alray.proxy import guard
from alray.runtime.threads import one_thread
from alray.table import Table
from alray.training import TrainSet, evaluate
from alray.training import rows as rows_of
from alray.training.probe import label_numbers


def judge(
    place: Workplace,
    round: Round,
    checkpoint: str,
    trained: Mapping[str, str],
    held_out: Mapping[str, str],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the verdict on a checkpoint's features, and `gain`: the share of a proxy's errors that they take away.

    `held_out` are rows, with their labels, that the checkpoint was not trained on. Both proxies are fitted on the rows
    that it was `trained` on: one on the features in force, one on the checkpoint's, as a round would fit it.
    """
    old = _before(place, round, trained, held_out, classes)
    place.release()
    new = _after(place, round, checkpoint, trained, held_out, classes)
    return _compared(old, new, held_out, classes, rounds.drawn(round.ledger, round.number))


def _before(
    place: Workplace, round: Round, trained: Mapping[str, str], held_out: Mapping[str, str], classes: Sequence[str]
) -> Table:
    """Return the held-out rows with their features in force, and the logits of a proxy fitted on the trained rows."""
    scan = place.scan
    with place.meter.stage("align", round.number):
        return _with_proxy(place, scan.rows(trained), scan.rows(held_out), trained, classes)


def _after(
    place: Workplace,
    round: Round,
    checkpoint: str,
    trained: Mapping[str, str],
    held_out: Mapping[str, str],
    classes: Sequence[str],
) -> Table:
    """Return the same with the checkpoint's features; rows that these are not finite of are left out, as of a pool."""
    labels, runtime = {**trained, **held_out}, place.runtime
    with place.meter.stage("align", round.number):
        rows = TrainSet(place.material.pool, list(labels), list(labels.values()), classes)
        model = evaluate.Model.of_checkpoint(checkpoint).body()
        found = evaluate.outputs(model, rows_of.locate(rows), runtime, stage="trial")
        table = Table(found.ids, {"features": torch.from_numpy(found.values.astype(np.float32))})
        fine = [i for i, row in zip(found.ids, found.values, strict=True) if np.isfinite(row).all()]
        known, judged = (table.take(_places(table, [i for i in fine if i in part])) for part in (trained, held_out))
        return _with_proxy(place, known, judged, trained, classes)


def _with_proxy(
    place: Workplace, known: Table, judged: Table, trained: Mapping[str, str], classes: Sequence[str]
) -> Table:
    """Return the judged rows with the logits of a proxy fitted on the known ones; no row where none is known."""
    if not len(known.ids):
        judged = judged.take(np.zeros(0, dtype=np.int64))
        return judged.with_columns(logits=torch.zeros(0, len(classes)))
    head = place.proxy(known, trained, classes, stage="trial")
    with one_thread():
        return judged.with_columns(logits=head.logits(judged["features"].float()))


def _compared(
    old: Table, new: Table, labels: Mapping[str, str], classes: Sequence[str], drawn: Collection[str]
) -> dict[str, Any]:
    """Judge both on the rows that both could read and that were `drawn` at random.

    The others were picked because the old features do not explain them: new ones would seem to gain much on these.
    """
    both = sorted(set(old.ids) & set(new.ids) & set(drawn))
    if not both:
        why = "no held-out row that was drawn at random can be read"
        return {"verdict": guard.unjudged(why).to_dict(), "gain": None, "accuracy": None}
    target_N = label_numbers([labels[i] for i in both], classes)
    old, new = (table.take(_places(table, both)) for table in (old, new))
    with one_thread():
        verdict = guard.judge(old["features"].numpy(), new["features"].numpy(), target_N.numpy(), len(classes))
    right = [float((table["logits"].argmax(1) == target_N).double().mean()) for table in (old, new)]
    gain = 1 - (1 - right[1]) / (1 - right[0]) if right[0] < 1 else None
    accuracy = {"rows": len(both), "before": right[0], "after": right[1]}
    return {"verdict": verdict.to_dict(), "gain": gain, "accuracy": accuracy}


def _places(table: Table, ids: Sequence[str]) -> np.ndarray:
    place = {i: row for row, i in enumerate(table.ids)}
    return np.array([place[i] for i in ids], dtype=np.int64)
