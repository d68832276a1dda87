"""CDAL: label the row whose predicted probabilities are the farthest from those of all labelled and picked ones."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from torch import Tensor

from alray.strategies.diversity import Diversity, KCentre
from alray.strategies.kinds.in_sequence import InSequence
from alray.table import Table


class CDAL(InSequence):
    """Greedy k-centre by ½ KL(p‖q) + ½ KL(q‖p) (CDAL-CS of Agarwal et al., ECCV 2020).

    Probabilities are floored at 1e-12 under the logarithm. The labelled rows are the first centres; with a head and no
    labels the first pick is drawn at random. The score of a pick is its distance when it was picked, so ranks are the
    greedy order, but for picks whose distances are one fp32 number: these are ranked by id.
    """

    name: Literal["cdal"] = "cdal"
    needs: ClassVar[frozenset[str]] = frozenset({"probs"})
    paper: ClassVar[str] = "Agarwal et al., ECCV 2020"
    cost: ClassVar[str] = "2·(M + B)·N·C"

    double_softmax: bool = False  # as the code of the ALFA-Mix authors: softmax of probabilities, which flattens them

    def points(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return rows["probs"].softmax(dim=1) if self.double_softmax else rows["probs"]

    @property
    def diversity(self) -> Diversity:
        return KCentre("symmetric_kl", rounds=self.rounds)
