"""Ask for the labels of a round's picks, once each, and gather what has been answered."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from alray.campaign.ledger import Ledger
from alray.labelling import Ask, Labeller

log = logging.getLogger(__name__)


def ask(ledger: Ledger, labeller: Labeller, round: int, ids: Sequence[str]) -> bool:
    """Ask about these picks and collect; return whether every ask of the round has its answer.

    The intent is in the ledger before anything is sent. An ask that has its answer is never sent again; one that
    has none is sent again after a crash, under the same request id.
    """
    if ids and not ledger.asks(round):
        ledger.commit_asks([Ask(ledger.name(), round, i) for i in ids])
    open_asks = ledger.outstanding(round)
    if open_asks:
        labeller.ask(open_asks)
        new = ledger.commit_answers(round, labeller.collect(open_asks))
        log.info("round %d: %d of %d outstanding labels have come in", round, new, len(open_asks))
    return not ledger.outstanding(round)
