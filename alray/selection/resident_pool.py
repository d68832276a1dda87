"""A pool resident on a runtime's workers: look rows up, and select the best of it with any strategy."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch

from alray.errors import LabelsError
from alray.features import FeatureSet
from alray.ops.moments import Coordinates, Moments
from alray.pool.quarantine import Quarantine
from alray.runtime import Runtime
from alray.selection import stages, statistics
from alray.selection.picks import Reason
from alray.selection.quotas import Counts
from alray.selection.resident import Exclusion, Part, Resident, bad_rows, find_rows
from alray.selection.settings import SelectionConfig
from alray.selection.stages import Selection, Stages
from alray.strategies import Given, Strategy
from alray.table import Table

log = logging.getLogger(__name__)


class ResidentPool:
    """The shards of one feature set on a runtime's workers. Use it as a context manager."""

    def __init__(self, features: FeatureSet, runtime: Runtime) -> None:
        self.features, self.runtime = features, runtime
        self.numbers = [shard.number for shard in features.shards]
        self.held = runtime.hold(Resident, features.shards, stage="scan")
        self._coordinates: Coordinates | None = None
        self.kept: dict[Any, Any] = {}  # by ways of selection, from round to round

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.held.close()

    def quarantine(self) -> Quarantine:
        """Return the pool's unreadable rows, each with its reason."""
        return stages.quarantine(self.held.map(bad_rows))

    def rows(self, ids: Collection[str]) -> Table:
        """Return the features of the given ids, fp32, sorted by id. Rows in quarantine are left out, with a warning.

        Raises LabelsError when an id is not in the pool.
        """
        parts = self.held.map(find_rows, Exclusion(frozenset(ids)))
        found = np.concatenate([part[0] for part in parts])
        if len(found) < len(set(ids)):
            missing = sorted(set(ids) - set(found))
            shown = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise LabelsError(
                f"{len(missing)} of {len(set(ids))} labelled ids are not in the pool: {shown}. Give the pool that the "
                "labels belong to, or remove these rows."
            )
        features_ND = np.concatenate([part[1] for part in parts]).astype(np.float32)
        fine = np.concatenate([part[2] for part in parts])
        if not fine.all():
            log.warning("%d labelled rows cannot be read and are not trained on", int((~fine).sum()))
        keep = np.argsort(found.astype(str), kind="stable")
        keep = keep[fine[keep]]
        return Table(found[keep], {"features": torch.from_numpy(features_ND[keep])})

    def moments(self, labels: Mapping[str, str], classes: Sequence[str]) -> Moments:
        """Return the moments of the labelled rows, their labels numbered by `classes`; rows in quarantine are left out.

        Raises LabelsError when an id is not in the pool, or a label not among the classes.
        """
        found, moments = statistics.labelled_moments(self.held, labels, classes)
        if found < len(labels):
            self.rows(labels)  # raises, and names the missing ids
        if moments.rows < found:
            log.warning("%d labelled rows cannot be read and are no evidence", found - moments.rows)
        return moments

    def coordinates(self) -> Coordinates:
        """Return the sums of each coordinate over every row that can be read; summed once, then remembered."""
        if self._coordinates is None:
            self._coordinates = statistics.pool_coordinates(self.held)
        return self._coordinates

    def select(
        self,
        strategy: Strategy,
        given: Given,
        *,
        excluded: Collection[str] = (),
        config: SelectionConfig | None = None,
        reason: Reason = "strategy",
        within: Part | None = None,
        before: Counts | None = None,
    ) -> Selection:
        """Return `given.budget` distinct rows, none `excluded`; fewer, with a warning, when there are fewer.

        `within` is the part of the pool that they come from; else all of it. `before` is the report's `quotas` of an
        earlier selection in the same round, whose picks count towards the quotas of this one.
        """
        closed = Exclusion(frozenset(excluded), within)
        return Stages(self, strategy, given, closed, config or SelectionConfig()).run(reason, before or {})
