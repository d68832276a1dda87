"""The pictures of a held shard, read group by group when a strategy looks at them: too many to be kept.

A shard of features knows the rows of the pool that they were made of, so that one round may score pictures, exclude,
shortlist and thin out by features, and quarantine as for any strategy. Rows that may not be picked are not even read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.errors import ModelError, RuntimeFailure, StrategyError
from alray.features import FeaturesConfig, FeatureSet
from alray.features.build import describe, version_of
from alray.features.extract import Precision
from alray.models.backbone import plain
from alray.models.network import Network
from alray.models.transform import Transform
from alray.ops.all_weights import BATCH
from alray.pool import BadRow, images
from alray.runtime import Held, Runtime, memory
from alray.strategies import Given, Strategy
from alray.table import Ids, Table

if TYPE_CHECKING:
    from alray.selection.resident import Exclusion, Resident

NEED = "backbone+images"

ROWS = 8 * BATCH
"""Pictures of one table: whole batches, also of its quarter, and 80 MB at 224 pixels."""

Rows = npt.NDArray[np.int64]


def check(strategy: Strategy, network: Network | None, features: FeatureSet) -> None:
    """Refuse a pool that came with its features, and one of pictures without the network that looks at them."""
    if features.shards[0].shard.kind == "features" or network is None:
        raise StrategyError(needed(strategy))


def needed(strategy: Strategy) -> str:
    """Return that a strategy looks at pictures, and what to do where there are none."""
    return (
        f"`{strategy.name}` with these settings needs pictures and the backbone that looks at them, which a pool of "
        "features cannot meet. Run a campaign on a pool of pictures, or choose settings of the strategy that use "
        f"features alone: `{instead(strategy)}`."
    )


def instead(strategy: Strategy) -> str:
    """Return the first field, with its default, that makes a strategy do without pictures; of its base, if it has one.

    A strategy whose defaults need them has no such field: then another strategy is named.
    """
    for name, field in type(strategy).model_fields.items():
        value = getattr(strategy, name)
        if isinstance(value, Strategy):
            return f"{name}.{instead(value)}"
        if NEED not in strategy.model_copy(update={name: field.default}).wants:
            return f"{name}: {field.default}"
    return "name: margin"


def check_made_by(features: FeatureSet, backbone: FeaturesConfig, seed: int, runtime: Runtime) -> None:
    """Refuse a backbone whose features these are not: a head means nothing on another one's."""
    if features.shards[0].source == "pool":
        return  # `check` refuses it in other words
    fingerprint = runtime.call(describe, plain(backbone), seed, stage="backbone")[0]
    if features.version not in {
        version_of(fingerprint, precision, backbone.batch) for precision in get_args(Precision)
    }:
        raise ModelError(
            f"The features (version {features.version}) were not made by the backbone {backbone.backbone} with the "
            f"weights {backbone.weights}, batches of {backbone.batch} and seed {seed}. Give the settings, and for "
            "weights `none` the seed, that `alray features` was given, or compute the features again."
        )


def tables(shard: Resident, network: Network, rows: Rows) -> Iterator[tuple[Rows, Table]]:
    """Yield (row numbers, their pictures on the shard's device) of the given rows, ascending, but unreadable ones."""
    numbers, pictures, most = list[int](), list[Tensor](), memory.chunk(ROWS)
    for row, picture in _readable(shard, network.steps(), rows):
        numbers.append(row)
        pictures.append(picture)
        if len(numbers) == most:
            yield _table(shard, numbers, pictures)
            numbers, pictures = [], []
    if numbers:
        yield _table(shard, numbers, pictures)


def of_rows(shard: Resident, wanted: Exclusion, network: Network) -> tuple[Ids, npt.NDArray[np.uint8]]:
    """Return ids and pictures, uint8 [n, 3, S, S], of the shard's rows whose id is wanted and that can be read."""
    steps = network.steps()
    found = dict(_readable(shard, steps, np.flatnonzero(wanted.mask(shard) & shard.ok_N)))
    blank = np.zeros((0, 3, steps.crop, steps.crop), np.uint8)
    return shard.ids[list(found)], np.stack([p.numpy() for p in found.values()]) if found else blank


def beside(given: Given, held: Held) -> Given:
    """Return `given` with the pictures of its labelled rows and of its reference set, and the features left out.

    Raises RuntimeFailure for pictures that could be read when features were made of them, and cannot be now.
    """
    from alray.selection.resident import Exclusion

    known = {name: table for name in ("labelled", "reference") if (table := getattr(given, name)) is not None}
    wanted = Exclusion(frozenset(str(i) for table in known.values() for i in table.ids))
    parts = held.map(of_rows, wanted, given.network)
    where = {str(i): (part, row) for part, (ids, _) in enumerate(parts) for row, i in enumerate(ids)}
    gone = sorted(wanted.ids - where.keys())
    if gone:
        raise RuntimeFailure(
            f"{len(gone)} labelled pictures cannot be read any more: {', '.join(gone[:5])}. They could be when their "
            "features were computed; bring them back, or wait until their storage answers, and run again."
        )
    seen: dict[str, Any] = {}
    for name, table in known.items():
        places = [where[str(i)] for i in table.ids]
        stacked = np.stack([parts[part][1][row] for part, row in places])
        seen[name] = Table(table.ids, {"pictures": torch.from_numpy(stacked)})
    return replace(given, **seen)


def _readable(shard: Resident, steps: Transform, rows: Rows) -> Iterator[tuple[int, Tensor]]:
    if not len(rows):
        return
    for row, data in shard.spec.shard.images(rows.tolist()):
        if isinstance(data, BadRow):
            continue
        try:
            yield row, steps(images.decode(data))
        except images.BadImage:
            continue


def _table(shard: Resident, numbers: list[int], pictures: list[Tensor]) -> tuple[Rows, Table]:
    rows = np.array(numbers, dtype=np.int64)
    return rows, Table(shard.ids[rows], {"pictures": torch.stack(pictures).to(shard.device)})
