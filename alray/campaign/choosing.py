"""Which rows a round asks for: the strategy's, and a control arm drawn at random from a part of the pool of its own.

Rows that a strategy has left over are easier than the pool: drawn from these, a control arm would not stand for it. So
a part of the pool, by id and seed alone, is kept from the strategy while it has other rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from alray.campaign import rounds
from alray.campaign.rounds import Round
from alray.campaign.settings import Settings
from alray.selection import Picks, ResidentPool, Selection
from alray.selection.picks import Reason
from alray.selection.resident import Part
from alray.strategies import Given, find
from alray.table import as_ids

RESERVE = 0.2
"""Share of the pool that a control arm is drawn from; a strategy may not pick there while other rows are left."""


@dataclass
class Choice:
    """The choice of one round. `known` are ids that may not be picked; `given(count)` is what the strategy looks at."""

    scan: ResidentPool
    settings: Settings
    round: Round
    known: set[str]
    given: Callable[[int], Given]

    def picks(self, wanted: int) -> Picks:
        """Return `wanted` picks, or as many as the pool still has and the rules of `selection` let in."""
        if self.round.number == 0:
            return self._drawn(wanted, "initial", None)
        if self.settings.strategy.name == "random" and not self.settings.selection.quotas:
            return self._drawn(wanted, "control", None)
        budget = self.settings.budget
        control = self._drawn(budget.controls(wanted), "control", self._reserve(others=False))
        chosen = self._by_strategy(wanted - len(control))
        picks = self._noted(chosen.picks).then(control)
        if len(picks) == wanted or not budget.control:
            return picks
        return picks.then(self._filled(wanted - len(picks), chosen))

    def _by_strategy(self, count: int) -> Selection:
        settings, config = self.settings, self.settings.selection
        if count < self.settings.budget.of_strategy(self.round.number):  # the end of the budget: a part of a round
            config = config.without_minimums
        chosen = self.scan.select(
            settings.strategy,
            self.given(count),
            excluded=self.known,
            config=config,
            within=self._reserve(others=True),
        )
        self.round.ledger.note(self.round.name(rounds.SELECTION), chosen.report)
        return chosen

    def _filled(self, count: int, chosen: Selection) -> Picks:
        """Return rows drawn from all that is left, the control arm's too, once the strategy's part is used up.

        They take the strategy's place, so that its quotas hold for both together.
        """
        config, before = self.settings.selection.without_minimums, chosen.report.get("quotas")
        drawn = self.scan.select(
            RANDOM, self.given(count), excluded=self.known, config=config, reason="fill", before=before
        )
        return self._noted(drawn.picks)

    def _drawn(self, count: int, reason: Reason, within: Part | None) -> Picks:
        """Return rows that stand for the pool: near-duplicates are not bought, but no quota bends the draw.

        Nor do they count towards a quota: it says what the strategy may pick.
        """
        if not count:
            return NONE
        given = Given(budget=count, seed=self.settings.seed, round=self.round.number)
        config = self.settings.selection.at_random
        drawn = self.scan.select(RANDOM, given, excluded=self.known, config=config, reason=reason, within=within)
        return self._noted(drawn.picks)

    def _noted(self, picks: Picks) -> Picks:
        self.known |= {str(i) for i in picks.ids}
        return picks

    def _reserve(self, *, others: bool) -> Part | None:
        """Return the part of the control arm, or the others, which are the strategy's; without an arm all are."""
        settings = self.settings
        return Part(settings.seed, "reserve", RESERVE, others) if settings.budget.control else None


RANDOM = find("random")
NONE = Picks(as_ids([]), np.zeros(0, dtype=np.float32), ())
