"""One selection without a campaign: from a pool of features and a labels file to B picks."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Literal

import numpy as np
import torch

from alray.config import parse
from alray.errors import LabelsError, PoolError, StrategyError
from alray.features import FeaturesConfig, FeatureSet, from_pool
from alray.labelling import Labels, read_labels
from alray.models.backbone import plain
from alray.models.head import Head
from alray.models.network import Network
from alray.pool import Pool, PoolConfig
from alray.runtime import Runtime, RuntimeConfig, open_runtime
from alray.selection import pictures, reference
from alray.selection.quotas import PREDICTED, check_classes
from alray.selection.resident import Space
from alray.selection.resident_pool import ResidentPool
from alray.selection.settings import SelectionConfig
from alray.selection.stages import Selection
from alray.strategies import Given, Strategy, find
from alray.strategies.base import HEAD_NEEDS
from alray.table import Table
from alray.training.probe import HeadConfig, fit_head, row_weights

log = logging.getLogger(__name__)

LabelsLike = str | Mapping[str, str] | Labels


def select(
    strategy: str | Mapping[str, Any] | Strategy,
    pool: str | Sequence[str] | Pool | FeatureSet,
    *,
    budget: int,
    labels: LabelsLike | None = None,
    head: Head | str | None = None,
    seed: int = 0,
    round: int = 0,
    exclude: Collection[str] = (),
    runtime: Runtime | Literal["ray", "local"] = "local",
    regime: Literal["auto", "central", "coreset"] = "auto",
    space: Space = "activations",
    classes: Sequence[str] | None = None,
    head_config: HeadConfig | None = None,
    max_quarantine: float | None = None,
    backbone: FeaturesConfig | None = None,
    min_distance: float = 0.0,
    quotas: Mapping[str, Any] | None = None,
) -> Selection:
    """Return the `budget` rows of `pool` to label next: distinct, none labelled, the same on any runtime.

    `pool` has features (a path, glob, folder or URI of Parquet files, a `Pool`, or a `FeatureSet`); `labels` is a file
    `id,label` or a mapping. Without a `head`, a linear one is fitted on the labels. `exclude` are more ids not to pick;
    `space` says whether rows are made diverse by an MLP head's activations or by the features below it. Strategies
    that look at pictures take a `FeatureSet` made of pictures, the `backbone` that made it, and the same `seed`. Rows
    nearer than `min_distance` (cosine) to one that is bought are not picked; `quotas` says how many picks may, or have
    to, share a value of a column: `{"source": {"at_most": 100, "at_least": {"web": 20}}}`.

    Raises ConfigError, PoolError, LabelsError, ModelError, StrategyError and QuarantineError: what the caller can mend.
    """
    chosen = find(strategy)
    if budget < 1:
        raise StrategyError(f"The budget is {budget}; expected at least 1 row to pick.")
    limits = {"min_distance": min_distance, "quotas": quotas or {}}
    config = parse({"regime": regime, "space": space, **limits}, SelectionConfig, source="The selection")
    config.check(budget)
    known = as_labels(labels)
    features, share = open_features(pool, max_quarantine)
    given_head = Head.load(head, classes) if isinstance(head, str) else head
    check_classes(config.quotas, classes if given_head is None else given_head.classes)
    with (
        open_runtime(RuntimeConfig(name=runtime)) if isinstance(runtime, str) else nullcontext(runtime) as open_one,
        ResidentPool(features, open_one) as resident,
    ):
        resident.quarantine().check(features.rows, share)
        fixed = (budget, seed, round, classes, head_config, backbone, PREDICTED in config.quotas)
        given = prepare_given(resident, chosen, known, given_head, *fixed)
        return resident.select(chosen, given, excluded={*known.paid_ids(), *exclude}, config=config)


def as_labels(labels: LabelsLike | None) -> Labels:
    """Return labels from a file, a mapping, or as they are; none is an empty table."""
    if isinstance(labels, str):
        return read_labels(labels)
    return labels if isinstance(labels, Labels) else Labels.of(labels or {})


def open_features(
    pool: str | Sequence[str] | Pool | FeatureSet, max_quarantine: float | None
) -> tuple[FeatureSet, float]:
    """Return a pool's features and the share of unreadable rows that it may have."""
    share = parse({"path": "-"}, PoolConfig).max_quarantine if max_quarantine is None else max_quarantine
    if isinstance(pool, FeatureSet):
        return pool, share
    opened = pool if isinstance(pool, Pool) else Pool.open(pool)
    if opened.kind != "features":
        raise PoolError(
            f"The pool has {opened.kind} rows and no `features`; a selection without a campaign needs them. Run "
            "`alray features CONFIG` first, or `alray run CONFIG`, which does both."
        )
    opened.check_ids()
    return from_pool(opened), share


def prepare_given(
    pool: ResidentPool,
    strategy: Strategy,
    labels: Labels,
    head: Head | None,
    budget: int,
    seed: int,
    round: int,
    classes: Sequence[str] | None = None,
    head_config: HeadConfig | None = None,
    backbone: FeaturesConfig | None = None,
    predicts: bool = False,
) -> Given:
    """Return what the strategy may look at: labelled rows sorted by id, their classes, and a head if it needs one.

    A share of the labels is kept from the head when the strategy wants a reference set; `backbone`, on whose features
    the head stands, is there for those that look at pictures. With `predicts` there is a head for any strategy.
    """
    said = labels.mapping()
    skipped = labels.paid_ids() - set(said)
    fixed: dict[str, Any] = {"budget": budget, "seed": seed, "round": round}
    fixed["skipped"] = pool.rows(skipped) if skipped else None
    rows = pool.rows(said)
    if not said or not (strategy.wants & HEAD_NEEDS or predicts):
        return Given(**fixed, head=head, labelled=rows if said else None)
    if backbone is not None:
        pictures.check_made_by(pool.features, backbone, seed, pool.runtime)
    config, back_M = head_config or HeadConfig(), reference.kept_back(rows.ids, seed, strategy.reference())
    train, others = rows.take(np.flatnonzero(~back_M)), rows.take(np.flatnonzero(back_M))
    if head is not None and len(others):
        reference.warn(strategy.name, others.ids, len(rows))
    reference.check(strategy.name, len(rows), len(others), strategy.reference())
    fitted_by = config if head is None else head_config
    if head is None:
        names = tuple(classes) if classes else tuple(sorted({said[i] for i in rows.ids}))
        arguments = (config, train["features"].numpy(), [said[i] for i in train.ids], names, seed)
        head = pool.runtime.call(fit_head, *arguments, stage="fit head")
    label_M = label_numbers([said[i] for i in train.ids], train, head)
    return Given(
        **fixed,
        head=head,
        labelled=train,
        label_M=label_M,
        reference=others if len(others) else None,
        reference_label_M=label_numbers([said[i] for i in others.ids], others, head) if len(others) else None,
        l2=config.penalty(len(train)),
        weight_M=row_weights(label_M, config.class_weights),
        network=Network(plain(backbone), head, seed, config.penalty(len(train))) if backbone else None,
        head_config=fitted_by,
    )


def label_numbers(texts: Sequence[str], rows: Table, head: Head) -> torch.Tensor:
    """Return the class index of each labelled row, [M]; a label that the head does not know is an error."""
    number = {name: c for c, name in enumerate(head.classes)}
    unknown = [(i, text) for i, text in zip(rows.ids, texts, strict=True) if text not in number]
    if unknown:
        shown = ", ".join(f"{i!r}: {text!r}" for i, text in unknown[:5])
        classes = ", ".join(map(repr, head.classes[:5])) + (", …" if len(head.classes) > 5 else "")
        raise LabelsError(
            f"{len(unknown)} labels are not among the head's {len(head.classes)} classes ({classes}): {shown}. Use "
            "labels of these classes, or leave the head out so that one is fitted on the labels."
        )
    return torch.tensor([number[text] for text in texts], dtype=torch.int64)
