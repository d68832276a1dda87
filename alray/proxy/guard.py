"""The guard of an alignment: new features are accepted only where labels that they were not trained on say so.

A backbone always fits the rows that it was fine-tuned on, so both sides are judged on rows that neither was trained on,
and on the same ones: the LogME of the new features must be above that of the old ones. Two things favour the new ones a
little: many of these rows were picked because the old features do not explain them, and where there is a holdout, it
has chosen the epoch. (LogME: You et al., ICML 2021; the
ASVP paper, Wen et al., TMLR 2024, asks for evidence and leaves the guard open.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from alray import seeds
from alray.ops.logme import logme
from alray.ops.moments import Moments


@dataclass(frozen=True)
class Halves:
    """Labels by id, sorted by id: what a trial is trained on, and what it is judged by."""

    first: dict[str, str]
    second: dict[str, str]


@dataclass(frozen=True)
class Verdict:
    """What both kinds of features say of the same held-out rows; `before` and `after` are nats a row and class."""

    rows: int
    before: float | None
    after: float | None
    accepted: bool
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        return asdict(self)


def halves(labels: Mapping[str, str], seed: int) -> Halves:
    """Divide labelled rows in two, each row by its id and the seed alone: fixed for life."""
    ids = sorted(labels)
    draws = seeds.uniform(seeds.key(seed, "guard"), seeds.hash_ids(ids))
    first = {i for i, draw in zip(ids, draws, strict=True) if draw < 0.5}
    return Halves({i: labels[i] for i in ids if i in first}, {i: labels[i] for i in ids if i not in first})


def unjudged(why: str) -> Verdict:
    """Return the verdict where nothing could be compared: the old features stay."""
    return Verdict(0, None, None, accepted=False, reason=why)


def judge(before_ND: np.ndarray, after_ND: np.ndarray, target_N: np.ndarray, classes: int) -> Verdict:
    """Compare two kinds of features [N, D] and [N, D'] of the same held-out rows with classes `target_N` [N]."""
    old = logme(Moments.of(before_ND, target_N, classes))
    new = logme(Moments.of(after_ND, target_N, classes))
    if old.score is None or new.score is None:
        why = f"the {len(target_N)} held-out rows say nothing: {old.reason or new.reason}"
        return Verdict(len(target_N), old.score, new.score, accepted=False, reason=why)
    accepted = new.score > old.score
    word = "above" if accepted else "not above"
    said = f"LogME {new.score:.4f} on {len(target_N)} held-out rows, {word} the {old.score:.4f} of the old features"
    return Verdict(len(target_N), old.score, new.score, accepted, said)
