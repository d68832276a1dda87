"""What a campaign works on: the pool, the test rows and the labels that were there before it began.

All of it is checked here, in the driver, before a worker is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from alray.campaign.ledger import Ledger
from alray.campaign.settings import Settings, TestConfig
from alray.errors import LabelsError, ModelError, StrategyError, nearest
from alray.labelling import Labels, Oracle, read_labels
from alray.pool import Pool
from alray.proxy.switch import Off
from alray.selection import pictures
from alray.selection.quotas import check_classes, check_columns
from alray.table import Ids

log = logging.getLogger(__name__)

EXAMPLES = 5


@dataclass(frozen=True)
class Test:
    """The rows that accuracy is measured on, and the label of each."""

    __test__ = False  # for pytest: not a test

    pool: Pool
    labels: dict[str, str]


@dataclass(frozen=True)
class Material:
    """A pool, its test rows (none: accuracy is not measured), and given labels by id."""

    pool: Pool
    test: Test | None
    given: Labels

    @staticmethod
    def open(settings: Settings, ledger: Ledger) -> Material:
        """Open everything; shards keep the numbers that an earlier command gave them.

        Raises PoolError for ids that stand twice or in pool and test, LabelsError for labels of unknown rows or
        classes, ModelError for a recipe that cannot train on them: settings that no later command may change.
        """
        known = ledger.files("pool")
        before = ledger.read_json(known[-1]) if known else None
        pool = Pool.open(settings.pool, known=before)
        _refuse_unfit(settings, pool)
        test = open_test(settings.test, settings.classes) if settings.test else None
        given = read_labels(settings.labels) if settings.labels else Labels.of([])
        refuse_unnamed(given.mapping(), settings.classes, f"`labels` {settings.labels}")
        check_selection(settings, pool, given, begun=bool(ledger.files("asks")))
        manifest = pool.manifest()
        if manifest != before:  # ids are read once, and again when the pool has grown
            pool.check_ids(other=[test_ids(test.pool)] if test else [])
            _refuse_unknown(given, pool, settings.labels)
            ledger.commit_json(f"pool/{len(known) + 1:04d}.json", manifest)
        return Material(pool, test, given)


def _refuse_unfit(settings: Settings, pool: Pool) -> None:
    """Raise ModelError if the recipe, the regime or the pre-training asks for what the pool does not have."""
    settings.training.recipe.fits(pool, settings.head)
    wants = {"`regime: standard`": settings.regime == "standard", "`pretrain`": settings.pretrain is not None}
    wants["`switch`"] = not isinstance(settings.switch, Off)
    for what, wanted in wants.items():
        if wanted and pool.kind == "features":
            raise ModelError(
                f"{what} trains a backbone, and the pool holds `features` and no pictures. Give a pool of pictures, or "
                "set `regime: svpp` without `pretrain`."
            )


def check_selection(settings: Settings, pool: Pool, given: Labels, *, begun: bool) -> None:
    """Raise PoolError or StrategyError for what strategy or quotas ask of the pool and the classes and cannot have.

    `begun`: labels have been asked for, and the given ones are not all that there are.
    """
    strategy, quotas = settings.strategy, settings.selection.quotas
    if pictures.NEED in strategy.wants and pool.kind == "features":
        raise StrategyError(pictures.needed(strategy))
    check_classes(quotas, settings.classes)
    check_columns(pool.shards, quotas)
    if strategy.too_few(1) is None:
        return  # any head will do; else answers are read, if they lie in a file
    classes = _classes(settings, given, begun)
    if classes is not None and (why := strategy.too_few(classes)) is not None:
        raise StrategyError(why)


def _classes(settings: Settings, given: Labels, begun: bool) -> int | None:
    """Return how many classes the head will have that selects next, or the most; None where nobody knows."""
    if settings.classes is not None:
        return len(settings.classes)
    seen = set(given.mapping().values())
    if isinstance(settings.labeller, Oracle):
        seen |= set(read_labels(settings.labeller.path).mapping().values())
    elif begun or settings.budget.initial:
        return None
    return max(1, len(seen))


def open_test(config: TestConfig, classes: Sequence[str] | None = None) -> Test:
    """Open the test rows and find the label of each; it must be one of `classes` if these are given."""
    pool = Pool.open(config.path)
    pool.check_ids()
    labels = read_labels(config.labels).mapping()
    ids = test_ids(pool)
    missing = [i for i in ids if i not in labels]
    if missing:
        raise LabelsError(
            f"`test.labels` {config.labels} has no label for {len(missing)} of {len(ids)} test rows, e.g. "
            f"{_some(missing)}. Every row of `test.path` needs one."
        )
    found = {i: labels[i] for i in ids}
    refuse_unnamed(found, classes, f"`test.labels` {config.labels}")
    return Test(pool, found)


def test_ids(pool: Pool) -> Ids:
    """Return all ids of a test pool."""
    return np.concatenate([shard.ids() for shard in pool.shards])


test_ids.__test__ = False  # type: ignore[attr-defined]  # for pytest: not a test


def refuse_unnamed(labels: Mapping[str, str], classes: Sequence[str] | None, what: str) -> None:
    """Raise LabelsError if a label is none of `classes`: said before labels are paid for that no head could take."""
    if classes is None:
        return
    strange = {i: label for i, label in labels.items() if label not in classes}
    if strange:
        i, label = next(iter(strange.items()))
        raise LabelsError(
            f"{what} has {len(strange):,} rows of classes that `classes` does not name, e.g. `{i}`: `{label}`."
            f"{nearest(label, classes)} Expected one of {_some(classes)}: name all classes, or take these rows out."
        )


def _refuse_unknown(given: Labels, pool: Pool, uri: str | None) -> None:
    found: Mapping[str, tuple[int, int]] = pool.locate(given.ids) if len(given) else {}
    unknown = [i for i in given.ids if i not in found]
    if unknown:
        raise LabelsError(
            f"`labels` {uri} names {len(unknown)} ids that are not in the pool, e.g. {_some(unknown)}. "
            "Take them out, or add their rows to `pool.path`."
        )


def _some(ids: Iterable[str]) -> str:
    return ", ".join(list(ids)[:EXAMPLES])
