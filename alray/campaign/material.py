"""What a campaign works on: the pool, the test rows and the labels that were there before it began.

All of it is checked here, in the driver, before a worker is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from alray.campaign.ledger import Ledger
from alray.campaign.settings import Settings, TestConfig
from alray.errors import LabelsError
from alray.labelling import Labels, read_labels
from alray.pool import Pool
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

        Raises PoolError for ids that stand twice or in pool and test, LabelsError for labels of unknown rows.
        """
        known = ledger.files("pool")
        before = ledger.read_json(known[-1]) if known else None
        pool = Pool.open(settings.pool, known=before)
        test = open_test(settings.test) if settings.test else None
        given = read_labels(settings.labels) if settings.labels else Labels.of([])
        manifest = pool.manifest()
        if manifest != before:  # ids are read once, and again when the pool has grown
            pool.check_ids(other=[test_ids(test.pool)] if test else [])
            _refuse_unknown(given, pool, settings.labels)
            ledger.commit_json(f"pool/{len(known) + 1:04d}.json", manifest)
        return Material(pool, test, given)


def open_test(config: TestConfig) -> Test:
    """Open the test rows and find the label of each."""
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
    return Test(pool, {i: labels[i] for i in ids})


def test_ids(pool: Pool) -> Ids:
    """Return all ids of a test pool."""
    return np.concatenate([shard.ids() for shard in pool.shards])


test_ids.__test__ = False  # type: ignore[attr-defined]  # for pytest: not a test


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
