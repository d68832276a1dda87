"""What a strategy is: pure maths from a table of rows to a score a row, and how its shortlist becomes picks.

One pipeline serves all strategies (design §2): prepare once from the labelled rows, score every shard, shortlist by one
global rule, diversify, fill. A strategy says what is its own; the pipeline decides the rest.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from alray.config import Config
from alray.models.head import Head
from alray.models.network import Network
from alray.strategies.diversity import Diversity, Nothing
from alray.strategies.shortlist import Best, Shortlist
from alray.table import Table

NEEDS = frozenset(
    {"hash", "features", "hidden", "logits", "probs", "draws", "loss", "reference", "graph", "backbone+images"}
)
"""Columns and helpers that a strategy may declare. `hash`, `features`, `hidden`, `logits` and `probs` are columns of
its table; `hidden` is the input of the head's last affine layer, and equals `features` for a linear head."""

HEAD_NEEDS = frozenset({"hidden", "logits", "probs", "draws", "loss", "reference", "graph"})
"""Needs that a head must be there for, and with it labels."""


@dataclass(frozen=True)
class Given:
    """What a strategy may look at besides the pool, fixed for the round.

    `labelled` holds the training rows sorted by id with columns `features` and, with a head, `hidden`; `label_M` their
    class indices; `holdout` the labelled rows that no model was trained on; `skipped` rows that were paid for and have
    no label; `sample` the rows that `Strategy.sample` asked for, sorted by id, with `hash` beside them. Seeds are keyed
    by (seed, purpose, round).

    `reference` holds labelled rows that were drawn at random and that no model was trained on, `reference_label_M`
    their class indices. `l2` and `weight_M` say what the head was fitted by: Σ wᵢ·CEᵢ + ½·l2·‖W‖², bias free; no
    weights are ones, and `head_config` the settings by which more heads like it are fitted. `losses` holds the labelled
    rows with their `loss` under a head that was fitted without them. `network` is the backbone with the head on it;
    strategies that ask for `backbone+images` also find `pictures`, uint8 [M, 3, S, S], in these tables.
    """

    budget: int
    seed: int
    round: int
    labelled: Table | None = None
    label_M: Tensor | None = None
    holdout: Table | None = None
    skipped: Table | None = None
    sample: Table | None = None
    head: Head | None = None
    space: Literal["activations", "features"] = "activations"  # `selection.space`: where rows are mixed, too
    backbone: str | None = None
    reference: Table | None = None
    reference_label_M: Tensor | None = None
    l2: float = 0.0
    weight_M: Tensor | None = None
    head_config: Config | None = None
    losses: Table | None = None
    network: Network | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The head's classes, in its order; none without a head."""
        return self.head.classes if self.head else ()

    @property
    def bought(self) -> Table | None:
        """All rows of the pool that are paid for, sorted by id, whether a model was trained on them or not.

        What keeps picks apart from rows that are known already looks at these: a held-out row is known like any other,
        and beside a row that had no class stand more that have none.
        """
        paid = (self.labelled, self.holdout, self.reference, self.skipped)
        tables = [table for table in paid if table is not None]
        if not tables:
            return None
        shared = reduce(set.intersection, (set(table.columns) for table in tables))
        rows = Table.concat([table.only(*sorted(shared)) for table in tables])
        first = np.unique(rows.ids.astype(str), return_index=True)[1]  # drawn at random, it is held out as well
        return rows.take(first)


class Strategy(Config, ABC):
    """A rule for which rows to label next. Its fields are its parameters; its docstring names paper and equation."""

    name: str
    needs: ClassVar[frozenset[str]]
    exact: ClassVar[bool]  # the tree returns what one machine returns, bit for bit
    paper: ClassVar[str] = ""
    cost: ClassVar[str] = ""  # of one round, in multiplications; N, M, D, C, B, S as in the house words

    @property
    def wants(self) -> frozenset[str]:
        """What these parameters need: `needs`, unless they make a difference."""
        return self.needs

    def prepare(self, given: Given) -> dict[str, Any]:
        """Return what every shard needs besides its rows: small NumPy arrays and numbers. Runs once a round."""
        return {}

    def too_few(self, classes: int) -> str | None:
        """Return why so many classes are too few for these parameters; None where they, or any more, are enough."""
        return None

    @abstractmethod
    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        """Return one fp32 score a row, [N]: higher is sooner, −inf is last. Sees the columns in `wants` alone."""

    def shortlist(self, budget: int) -> Shortlist:
        """Return the rule that turns all scores into the rows worth looking at: the best `budget`."""
        return Best(budget)

    def sample(self, budget: int) -> int:
        """Return how many rows drawn from the pool `prepare` is to be given as `given.sample`; none by default."""
        return 0

    def reference(self) -> float:
        """Return the share of the labels that a selection without a campaign keeps from the head as `given.reference`.

        In a campaign these are the held-out rows that were drawn at random (decision 26).
        """
        return 0.0

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor | None:
        """Return what diversity is measured on, fp32 [N, P]; None leaves it to the setting `selection.space`."""
        return None

    @property
    def diversity(self) -> Diversity:
        """How the shortlist becomes picks when it is longer than the budget."""
        return Nothing()


class ScoreStrategy(Strategy):
    """A strategy that takes the rows with the highest scores: exact on any number of workers."""

    exact: ClassVar[bool] = True


def as_tensor(array: Any, like: Tensor) -> Tensor:
    """Return a copy of a prepared array as a tensor of its own precision on the device of `like`."""
    return torch.tensor(array, device=like.device)  # a copy: arrays that come from another process are read-only
