"""What UncertainGCN and CoreGCN share: a graph network that tells labelled rows from a sample of the pool."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from alray import seeds
from alray.errors import StrategyError
from alray.ops import gcn, kmeans
from alray.strategies.base import Given
from alray.strategies.kinds.sampled import SampledStrategy
from alray.table import Table


class GraphStrategy(SampledStrategy):
    """Caramalau, Bhattarai & Kim, *Sequential Graph Convolutional Network for Active Learning*, CVPR 2021, §3.

    Nodes are `subset` rows drawn from the pool and as many of the labelled rows at most, by their unit activations.
    Picks come from the subset; what a larger budget lacks is filled at random.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"hidden", "hash", "graph"})
    exact: ClassVar[bool] = True
    paper: ClassVar[str] = "Caramalau et al., CVPR 2021"

    subset: int = Field(10_000, ge=1, le=100_000)  # the graph takes up to 16·subset² bytes; few behind a ReLU
    hidden: int = Field(128, ge=1, le=4096)
    epochs: int = Field(200, ge=1, le=10_000)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(5e-4, ge=0, le=1000)
    dropout: float = Field(0.3, ge=0, lt=1)
    unlabelled_weight: float = Field(1.2, gt=0, le=1_000_000)

    def sample(self, budget: int) -> int:
        return self.subset

    def prepare(self, given: Given) -> dict[str, Any]:
        """As all that choose among a sample. Activations that are no numbers would reach every node: they are none."""
        return super().prepare(replace(given, sample=_numbers(given.sample)))

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return torch.where(rows["hidden"].isfinite().all(dim=1), super().score(rows, prepared), torch.nan)

    def fitted(self, given: Given) -> tuple[Tensor, Tensor, Tensor]:
        """Return how labelled each row of the sample looks, [S], its hidden activations, and the labelled nodes'."""
        assert given.sample is not None
        units_SD, units_LD = kmeans.unit_rows(given.sample["hidden"]), self._labelled(given)
        known_N = torch.arange(len(units_SD) + len(units_LD)) >= len(units_SD)
        score_N, hidden_NH = gcn.fit(
            torch.cat([units_SD, units_LD]),
            known_N,
            gcn.Recipe(
                hidden=self.hidden,
                epochs=self.epochs,
                rate=self.learning_rate,
                decay=self.weight_decay,
                dropout=self.dropout,
                weight=self.unlabelled_weight,
            ),
            seeds.torch_generator(given.seed, "gcn", given.round),
        )
        return score_N[~known_N], hidden_NH[~known_N], hidden_NH[known_N]

    def _labelled(self, given: Given) -> Tensor:
        """Return the unit activations of the rows with labels, held-out ones too, or of `subset` drawn from them."""
        known = _numbers(given.bought)
        if known is None or not len(known):
            raise StrategyError(
                f"`{self.name}` learns to tell labelled rows from the others, and there are no labels. Give labels, or "
                "start with `typiclust`, `prob_cover` or `random`, which need none."
            )
        stream = seeds.key(given.seed, "gcn-labelled", given.round)
        order = np.argsort(seeds.uniform(stream, seeds.hash_ids(known.ids)), kind="stable")[: self.subset]
        return kmeans.unit_rows(known["hidden"][torch.from_numpy(np.sort(order))])


def _numbers(rows: Table | None) -> Table | None:
    """Return the rows whose activations are finite."""
    return rows if rows is None else rows.take(rows["hidden"].isfinite().all(dim=1).nonzero()[:, 0].numpy())
