"""The estimate of a round: how good a head fitted on its labels is, measured on labelled rows drawn at random.

Rows that a strategy picked are the hard ones, and a head is no judge of rows that it was fitted on. So each row is
scored by a head that was fitted without its fold, and only randomly drawn rows are scored. The test set is not looked
at, so that stopping and forecasting may use the number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from alray import seeds
from alray.runtime.threads import one_thread
from alray.training.probe import HeadConfig, fit_head, label_numbers

FOLDS = 5
CHUNK = 8192
"""Rows of one product with a head: fp32 copies of them stay small."""


@dataclass(frozen=True)
class Estimate:
    """How many of the scored rows were right, and what the heads that said so were fitted on."""

    accuracy: float
    se: float  # standard error of `accuracy`; never zero
    rows: int  # scored
    fitted: int  # labelled rows in all: what the round's own head is fitted on
    trained: int  # labelled rows that a fold's head saw: the place of this accuracy on a learning curve

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for a JSON file."""
        return asdict(self)


def cross_validated(
    config: HeadConfig,
    features_MD: npt.NDArray[Any],
    labels: Sequence[str],
    classes: Sequence[str],
    seed: int,
    ids: Sequence[str],
    scored_M: npt.NDArray[np.bool_],
    folds: int = FOLDS,
) -> Estimate | None:
    """Return the accuracy of heads on the rows of `scored_M`, each by a head that never saw the row's fold.

    Rows come in any order. None when no row can be scored: none is to be, or all labelled rows are of one fold.
    Raises what `fit_head` raises.
    """
    right_M, trained_M = out_of_fold(config, features_MD, labels, classes, seed, ids, scored_M, folds)
    counted_M = trained_M > 0
    rows = int(counted_M.sum())
    if not rows:
        return None
    right = int(right_M[counted_M].sum())
    trained = round(float(trained_M[counted_M].mean()))
    return Estimate(right / rows, standard_error(right, rows), rows, len(labels), trained)


def out_of_fold(
    config: HeadConfig,
    features_MD: npt.NDArray[Any],
    labels: Sequence[str],
    classes: Sequence[str],
    seed: int,
    ids: Sequence[str],
    scored_M: npt.NDArray[np.bool_],
    folds: int = FOLDS,
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int64]]:
    """Return for each row whether its head was right, bool [M], and how many rows that head was fitted on, [M].

    Zero stands where there is no such head: the row is not to be scored, or no row is outside its fold.
    """
    name_M = np.array(labels, dtype=object)
    right_M, trained_M = np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=np.int64)
    for rows, logits_NC, trained in _folds(config, features_MD, labels, classes, seed, ids, scored_M, folds):
        guess_N = np.array(classes, dtype=object)[logits_NC.argmax(dim=1).cpu().numpy()]
        right_M[rows], trained_M[rows] = guess_N == name_M[rows], trained
    return right_M, trained_M


def losses(
    config: HeadConfig,
    features_MD: npt.NDArray[Any],
    labels: Sequence[str],
    classes: Sequence[str],
    seed: int,
    ids: Sequence[str],
    folds: int = FOLDS,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return each row's cross-entropy in nats under a head that was fitted without its fold, [M], and if it has one.

    A row has none, and 0 stands there, when no row is outside its fold. Raises what `fit_head` raises.
    """
    target_M = label_numbers(labels, classes)
    loss_M, known_M = np.zeros(len(ids)), np.zeros(len(ids), dtype=bool)
    every_M = np.ones(len(ids), dtype=bool)
    for rows, logits_NC, _ in _folds(config, features_MD, labels, classes, seed, ids, every_M, folds):
        target_N = target_M[torch.from_numpy(rows)]
        loss_M[rows] = F.cross_entropy(logits_NC.cpu().double(), target_N, reduction="none").numpy()
        known_M[rows] = True
    return loss_M, known_M


def _folds(
    config: HeadConfig,
    features_MD: npt.NDArray[Any],
    labels: Sequence[str],
    classes: Sequence[str],
    seed: int,
    ids: Sequence[str],
    scored_M: npt.NDArray[np.bool_],
    folds: int,
) -> Iterator[tuple[npt.NDArray[np.int64], Tensor, int]]:
    """Yield (rows, their logits under a head fitted without their fold, how many rows it was fitted on)."""
    fold_M, name_M = fold_of(ids, seed, folds), np.array(labels, dtype=object)
    order_M = np.array(sorted(range(len(ids)), key=lambda row: ids[row]), dtype=np.int64)  # part of a head's bits
    for fold in range(folds):
        inside = np.flatnonzero((fold_M == fold) & np.asarray(scored_M, dtype=bool))
        outside = order_M[fold_M[order_M] != fold]
        if not len(inside) or not len(outside):
            continue
        head = fit_head(config, features_MD[outside], list(name_M[outside]), classes, seed)
        for at in range(0, len(inside), CHUNK):
            rows = inside[at : at + CHUNK]
            with one_thread():
                logits_NC = head.logits(torch.from_numpy(np.asarray(features_MD[rows], dtype=np.float32)))
            yield rows, logits_NC, len(outside)


def fold_of(ids: Sequence[str], seed: int, folds: int = FOLDS) -> npt.NDArray[np.int64]:
    """Return the fold of each id, [M]: for life, however many rows are labelled later."""
    draws_M = seeds.uniform(seeds.key(seed, "fold"), seeds.hash_ids(ids))
    return np.asarray(np.floor(draws_M * folds), dtype=np.int64)


def standard_error(right: int, rows: int) -> float:
    """Return the spread of an accuracy given `right` of `rows`: of its posterior under Jeffreys' prior.

    The posterior is Beta(right + ½, rows − right + ½), so that all or none right is not taken for certainty.
    """
    a, b = right + 0.5, rows - right + 0.5
    return float(np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1))))
