"""What a recipe is: a way to turn labelled rows into the model that a round delivers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alray.config import Config
from alray.models.backbone import BackboneConfig
from alray.models.head import Head
from alray.pool import Pool
from alray.runtime import Runtime
from alray.training.probe import HeadConfig
from alray.training.rows import TrainSet

if TYPE_CHECKING:
    from alray.training.fine_tune import FineTune


@dataclass(frozen=True)
class Trained:
    """What a recipe made: a head, the checkpoint of the backbone below it if that was trained too, and the metrics."""

    head: Head
    checkpoint: str | None = None  # a folder that `weights:` takes; it holds the same head
    metrics: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class Recipe(Config, ABC):
    """How the labelled rows train a model; the fields of each recipe are its settings."""

    def fits(self, pool: Pool, head: HeadConfig) -> None:
        """Raise ModelError when it cannot train on this pool, or beside such a head: asked before labels are paid."""

    def choose(self, updated: bool) -> Recipe:
        """Return the recipe to train by, given whether the features were `updated` since the campaign began."""
        return self

    def alignment(self) -> FineTune:
        """Return the fine-tuning that an update of the features uses: of a recipe that has none, the defaults."""
        from alray.training.fine_tune import FineTune  # it is a recipe, and stands on this file

        return FineTune()

    @property
    def stops_early(self) -> bool:
        """Whether the holdout chooses the epoch that is delivered."""
        return False

    @abstractmethod
    def train(
        self,
        rows: TrainSet,
        backbone: BackboneConfig,
        head: Head | None,
        runtime: Runtime,
        *,
        name: str,
        folder: str,
        seed: int,
        holdout: TrainSet | None = None,
    ) -> Trained:
        """Train on `rows`. `head` was fitted on this backbone's features; `name` is unique to the round, and the same
        name and folder resume. `holdout` rows are never trained on: they decide when to stop early."""
