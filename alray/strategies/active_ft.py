"""ActiveFT: label rows that stand where the pool is dense and apart from each other; it needs no labels."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from alray.strategies import diversity
from alray.strategies.diversity import Diversity
from alray.strategies.kinds.unscored import Unscored


class ActiveFT(Unscored):
    """Xie et al., *Active Finetuning: Exploiting Annotation Budget in the Pretraining-Finetuning Paradigm*, CVPR 2023.

    B centroids, first B random rows, are moved by Adam over `most` rows drawn from the pool, by their unit features
    (eq. 6); labelled rows are centroids that stay, as in Wen et al. (TMLR 2024). Then each centroid in turn takes the
    most similar row of the whole pool that no other has taken. The score is that similarity.
    """

    name: Literal["active_ft"] = "active_ft"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    exact: ClassVar[bool] = True
    paper: ClassVar[str] = "Xie et al., CVPR 2023"
    cost: ClassVar[str] = "N·B·D + `iterations`·(`most` + B)·(B + M)·D"

    temperature: float = Field(0.07, gt=0, le=1000)
    balance: float = Field(1.0, gt=0, le=1_000_000)
    learning_rate: float = Field(1e-3, gt=0, le=1)
    iterations: int = Field(100, ge=0, le=100_000)
    most: int = Field(20_000, ge=1, le=1_000_000)

    @property
    def diversity(self) -> Diversity:
        return diversity.Finetuned(self.temperature, self.balance, self.learning_rate, self.iterations, self.most)
