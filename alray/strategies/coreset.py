"""CoreSet: label the row that is the farthest from all labelled and picked ones, again and again."""

from __future__ import annotations

from typing import ClassVar, Literal

from alray.strategies.diversity import Diversity, KCentre
from alray.strategies.kinds.in_sequence import InSequence


class CoreSet(InSequence):
    """Greedy k-centre: argmax_u min_{c ∈ centres} ‖z_u − z_c‖, algorithm 1 of Sener & Savarese, ICLR 2018.

    z are activations or features as they are, not normalised, by `selection.space`; the labelled rows are the first
    centres. Needs neither head nor labels: without labels the first pick is drawn at random. The score of a pick is its
    distance when it was picked (∞ for the first without labels), so ranks are the greedy order, but for picks whose
    distances are one fp32 number: these are ranked by id. Picks end when every row left is equal to a centre.
    """

    name: Literal["coreset"] = "coreset"
    needs: ClassVar[frozenset[str]] = frozenset({"features"})
    paper: ClassVar[str] = "Sener & Savarese, ICLR 2018"
    cost: ClassVar[str] = "(M + B)·N·D"

    @property
    def diversity(self) -> Diversity:
        return KCentre(rounds=self.rounds)
