"""Diverse: the best of any score, thinned out by k-means, so that a batch does not hold the same row twenty times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import Tensor

from alray.strategies.base import Given, Strategy
from alray.strategies.diversity import Diversity, KMeans, Nothing
from alray.strategies.kinds.sampled import SampledStrategy
from alray.strategies.margin import Margin
from alray.strategies.registry import StrategyFamily
from alray.strategies.shortlist import All, Shortlist
from alray.table import Table


class Diverse(Strategy):
    """Zhdanov, *Diverse Mini-Batch Active Learning*, 2019, algorithm 1, without the weights of its k-means.

    The `multiple`·B rows that the `base` scores highest are clustered into B; of each cluster the real row nearest to
    its centroid is picked. The score, and what has to be there, are the base's. Other libraries call k-centre greedy
    "diverse": here that is `coreset`.
    """

    name: Literal["diverse"] = "diverse"
    needs: ClassVar[frozenset[str]] = Margin.needs
    exact: ClassVar[bool] = False  # the shortlist is exact, k-means over shards is not
    paper: ClassVar[str] = "Zhdanov, arXiv:1901.05954, 2019"
    cost: ClassVar[str] = "its base's, and β·B²·D a step of k-means (β = multiple)"

    base: Annotated[Strategy, StrategyFamily] = Field(default_factory=Margin)
    multiple: float = Field(10.0, gt=1, le=10_000)  # of the budget: how many rows the base nominates

    @field_validator("base", mode="before")
    @classmethod
    def _fields_without_a_name(cls, base: Any) -> Any:
        """Refuse fields of a base that is not named: those of the default, which has none, are not meant."""
        if not isinstance(base, Mapping) or not base or "name" in base:
            return base
        own = next((f" `{key}` is a field of `diverse` itself." for key in base if key in cls.model_fields), "")
        raise ValueError(
            f"has {', '.join(f'`{key}`' for key in base)} but no `name`, and the base is `margin` unless it is named, "
            f"which has no fields (expected a name too, such as `name: bald`).{own}"
        )

    @field_validator("base", mode="after")
    @classmethod
    def _takes_the_best(cls, base: Strategy) -> Strategy:
        if not isinstance(base.diversity, Nothing):
            raise ValueError(
                f"`{base.name}` is diverse already and cannot be made so twice (expected a strategy that takes the "
                f"best of a score, such as margin). Use `{base.name}` itself"
            )
        if isinstance(base, SampledStrategy) and base.picks_alone:
            raise ValueError(
                f"`{base.name}` names the rows to pick and no others, so that there is nothing to thin out (expected a "
                f"strategy that takes the best of a score, such as margin). Use `{base.name}` itself"
            )
        return base

    @property
    def wants(self) -> frozenset[str]:
        """What the base wants."""
        return self.base.wants

    def too_few(self, classes: int) -> str | None:
        return self.base.too_few(classes)

    def prepare(self, given: Given) -> dict[str, Any]:
        return self.base.prepare(given)

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return self.base.score(rows, prepared)

    def shortlist(self, budget: int) -> Shortlist:
        return All(most=math.ceil(self.multiple * budget))

    def sample(self, budget: int) -> int:
        return self.base.sample(budget)

    def reference(self) -> float:
        return self.base.reference()

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor | None:
        return self.base.points(rows, prepared)

    @property
    def diversity(self) -> Diversity:
        return KMeans()
