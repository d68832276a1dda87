"""What things are priced at: a label by its class or its source, an hour of a GPU, an hour of a core.

The price of a label is known only when it is answered: until then the dearest that it could be is set aside, so that a
budget in dollars is never overspent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pydantic import Field, field_validator

from alray.config import Config
from alray.errors import nearest
from alray.labelling import CANCELLED, LABELLED, Labels
from alray.mistakes import shown


class CostsConfig(Config):
    """Prices in dollars.

    A label costs the price of its class where `classes` has one, else that of its source where `sources` has one, else
    `label`. A skipped row has no class.
    """

    label: float = Field(0.0, ge=0)  # of one label, answered or skipped
    classes: dict[str, float] = Field(default_factory=dict)  # of a label of this class
    sources: dict[str, float] = Field(default_factory=dict)  # of an answer whose `origin` is this
    gpu_hour: float = Field(0.0, ge=0)
    cpu_hour: float = Field(0.0, ge=0)  # of one core

    @field_validator("classes", "sources", mode="before")
    @classmethod
    def _prices_by_name(cls, value: Any) -> Any:
        """Take the class 7 of a YAML file for the class `7` of a labels file; name each price that is none."""
        if not isinstance(value, dict):
            return value
        named = {str(name) if type(name) is int else name: price for name, price in value.items()}
        wrong = [f"`{name}` is {shown(price)}" for name, price in named.items() if not _is_price(price)]
        wrong += [f"the name {shown(name)} is no text (quote it)" for name in named if not isinstance(name, str)]
        if wrong:
            raise ValueError(f"{', '.join(wrong)} (expected names, each with a finite number of dollars, 0 or more)")
        return named

    @property
    def dearest(self) -> float:
        """The most that one label can cost."""
        return max(self.label, *self.classes.values(), *self.sources.values(), 0.0)

    def price(self, label: str | None, source: str | None) -> float:
        """Return the price of one answer; `label` is None for a skipped row."""
        if label in self.classes:
            return self.classes[label]
        return self.sources.get(source, self.label) if source is not None else self.label

    def fault(self, classes: Sequence[str] | None) -> str | None:
        """Return a sentence about prices of classes that the campaign does not have, or None. None: any class."""
        unknown = [name for name in self.classes if classes is not None and name not in classes]
        if not unknown:
            return None
        hint = nearest(unknown[0], list(classes or ()))
        return (
            f"`costs.classes` prices {len(unknown)} class(es) that `classes` does not name, e.g. `{unknown[0]}`.{hint} "
            "Name each as `classes` does, or take its price out"
        )


def _is_price(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 <= float(value) < math.inf  # type: ignore[arg-type]


def label_dollars(answers: Labels, prices: CostsConfig) -> float:
    """Return what these answers cost: labelled and skipped ones; a cancelled one costs nothing."""
    columns = (answers.column(name) for name in ("status", "label", "origin"))
    return math.fsum(
        prices.price(label if status == LABELLED else None, origin)
        for status, label, origin in zip(*columns, strict=True)
        if status != CANCELLED
    )
