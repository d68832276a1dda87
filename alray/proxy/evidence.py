"""How well the features in force explain the labels so far: one record a round, on which the switch decides.

Computed on rows that were drawn at random. On rows that a strategy picked, the evidence stops rising at once, whatever
the features are worth: they were picked because the features do not explain them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from alray.ops.logme import logme
from alray.ops.moments import Coordinates, Moments
from alray.ops.ped import descend


@dataclass(frozen=True)
class Evidence:
    """What `labels` rows of `classes` classes, those that have rows, say of the features.

    `logme` is the evidence in nats per label, `logme_ped` the same after potential-energy descent, which took
    `ped_steps` steps and moved the classes by `shift`. Both are None where there is no evidence; `reason` says why.
    """

    labels: int
    classes: int
    logme: float | None
    logme_ped: float | None
    ped_steps: int = 0
    shift: float = 0.0
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the record that `to_dict` wrote; keys that this version does not know are left out."""
        return cls(**{key: record[key] for key in cls.__dataclass_fields__ if key in record})


def measure(moments: Moments, coordinates: Coordinates) -> Evidence:
    """Return the evidence of labelled rows; `coordinates` are those of the whole pool.

    LogME: You et al., ICML 2021; descent: Li et al., ICCV 2023; both together as an indicator: Wen et al., TMLR 2024.
    """
    moments = moments.compact()
    plain = logme(moments)
    if plain.score is None:
        return Evidence(moments.rows, moments.classes, None, None, reason=plain.reason)
    descent = descend(moments, coordinates)
    after = logme(descent.moments).score if descent.steps else plain.score
    return Evidence(moments.rows, moments.classes, plain.score, after, descent.steps, descent.shift)
