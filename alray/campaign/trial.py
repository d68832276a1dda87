"""The trial of new features: the same held-out rows, seen by the features in force and by those of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from alray.campaign.rounds import Round
from alray.campaign.workplace import Workplace
from alray.models import Head
from alray.proxy import guard
from alray.table import Table
from alray.training import TrainSet, evaluate, fit_head
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
    """Return the verdict on a checkpoint's features, and `gain`: the share of the proxy's errors that it takes away.

    `held_out` are rows, with their labels, that the checkpoint was not trained on; the proxy that it is compared with
    is fitted on the features in force of the rows that it was `trained` on.
    """
    old = _before(place, round, trained, held_out, classes)
    place.release()
    runtime = place.runtime
    with place.meter.stage("align", round.number):
        rows = TrainSet(place.material.pool, list(held_out), list(held_out.values()), classes)
        model = evaluate.Model.of_checkpoint(checkpoint)
        found = evaluate.outputs(model.body(), rows_of.locate(rows), runtime, stage="trial")
    new = Table(found.ids, {"features": torch.from_numpy(found.values.astype(np.float32))})
    assert model.head is not None
    new = new.with_columns(logits=Head.load(model.head).logits(new["features"]))
    return _compared(old, new, held_out, classes)


def _before(
    place: Workplace, round: Round, trained: Mapping[str, str], held_out: Mapping[str, str], classes: Sequence[str]
) -> Table:
    """Return the held-out rows with their features in force, and the logits of a proxy fitted on the trained rows."""
    scan, settings = place.scan, place.settings
    with place.meter.stage("align", round.number):
        known, judged = scan.rows(trained), scan.rows(held_out)
        texts = [trained[i] for i in known.ids]
        arguments = (settings.head, known["features"].numpy(), texts, list(classes), settings.seed)
        head: Head = scan.runtime.call(fit_head, *arguments, stage="trial")
        return judged.with_columns(logits=head.logits(judged["features"]))


def _compared(old: Table, new: Table, labels: Mapping[str, str], classes: Sequence[str]) -> dict[str, Any]:
    """Judge both on the rows that both could read."""
    both = sorted(set(old.ids) & set(new.ids))
    if not both:
        return {"verdict": guard.unjudged("no held-out row can be read").to_dict(), "gain": None, "accuracy": None}
    target_N = label_numbers([labels[i] for i in both], classes)
    old, new = (table.take(_places(table, both)) for table in (old, new))
    verdict = guard.judge(old["features"].numpy(), new["features"].numpy(), target_N.numpy(), len(classes))
    wrong = [float((table["logits"].argmax(1) != target_N).double().mean()) for table in (old, new)]
    gain = 1 - wrong[1] / wrong[0] if wrong[0] else None
    return {"verdict": verdict.to_dict(), "gain": gain, "accuracy": {"before": 1 - wrong[0], "after": 1 - wrong[1]}}


def _places(table: Table, ids: Sequence[str]) -> np.ndarray:
    place = {i: row for row, i in enumerate(table.ids)}
    return np.array([place[i] for i in ids], dtype=np.int64)
