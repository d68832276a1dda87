"""How the shortlist becomes picks, and which picks are not wanted whatever their score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from alray.config import Config
from alray.errors import StrategyError
from alray.selection.resident import Space

EVERY = "*"
"""Stands for each value that is not named."""

NO_VALUES: Mapping[str, Iterable[str]] = MappingProxyType({})

Count = Annotated[int, Field(ge=0)]


class Quota(Config):
    """How many picks of a round may, or have to, share one value of a column: by value, or one number for each."""

    at_most: dict[str, Count] = Field(default_factory=dict)
    at_least: dict[str, Count] = Field(default_factory=dict)

    @field_validator("at_most", "at_least", mode="before")
    @classmethod
    def _one_number_is_for_every_value(cls, given: Any) -> Any:
        if isinstance(given, int) and not isinstance(given, bool):
            return {EVERY: given}
        return {named(key): count for key, count in given.items()} if isinstance(given, Mapping) else given

    @model_validator(mode="after")
    def _least_below_most(self) -> Self:
        for value in sorted({*self.at_least, *self.at_most, EVERY}):
            least, most = self.least(value), self.most(value)
            if most is not None and least > most:
                raise ValueError(f"at least {least} and at most {most} of {value!r} (expected no more than at most)")
        return self

    def most(self, value: str) -> int | None:
        """Return how many picks may have this value; None when as many as come."""
        return self.at_most.get(value, self.at_most.get(EVERY))

    def least(self, value: str) -> int:
        """Return how many picks have to have this value."""
        return self.at_least.get(value, self.at_least.get(EVERY, 0))

    def asked_for(self, values: Iterable[str] = ()) -> int:
        """Return how many picks the values in the settings, and these others, have to have together."""
        return sum(self.least(value) for value in {*self.names, *values})

    @property
    def names(self) -> frozenset[str]:
        """The values that stand in the settings by name."""
        return frozenset({*self.at_most, *self.at_least} - {EVERY})


def named(value: object) -> str:
    """Return a cell of a column, or a key of the settings, as the name of a value: `null` where there is nothing."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


class SelectionConfig(Config):
    """How the shortlist becomes picks."""

    regime: Literal["auto", "central", "coreset"] = "auto"  # of k-means; auto goes by the shortlist's size
    space: Space = "activations"  # of diversity and of mixing: the head's hidden activations, or the features below
    min_distance: float = Field(0.0, ge=0, lt=1)  # cosine distance below which two rows are one, bought once
    quotas: dict[str, Quota] = Field(default_factory=dict)  # by column of the pool, or `predicted_class`

    @property
    def has_rules(self) -> bool:
        """Whether any row may be refused that a strategy has chosen."""
        return bool(self.min_distance or self.quotas)

    @property
    def at_random(self) -> SelectionConfig:
        """The same without quotas: a draw under quotas would not stand for the pool."""
        return self.model_copy(update={"quotas": {}})

    @property
    def without_minimums(self) -> SelectionConfig:
        """The same without the least numbers of any quota."""
        quotas = {column: quota.model_copy(update={"at_least": {}}) for column, quota in self.quotas.items()}
        return self.model_copy(update={"quotas": quotas})

    def check(self, budget: int, values: Mapping[str, Iterable[str]] = NO_VALUES) -> None:
        """Raise StrategyError when the quotas of one column ask for more rows than the budget has.

        `values` are all of each column, once they are known: a minimum for every value counts for each of them.
        """
        for column, quota in self.quotas.items():
            there = frozenset(values.get(column, ()))
            wanted, others = quota.asked_for(there), len(there - quota.names)
            if wanted > budget:
                each = f" ({quota.least(EVERY)} of each of {others} values)" if others and quota.least(EVERY) else ""
                raise StrategyError(
                    f"`selection.quotas.{column}` asks for at least {wanted} rows{each}, and the budget is {budget}. "
                    "Ask for fewer, or give a larger budget."
                )
