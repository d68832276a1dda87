"""The loop of active learning: select, ask, label, align, fit, train, test; each line done once and committed.

Running the same command again resumes from the first piece that is not in the ledger. Nothing here computes: each
line of `_rounds` is a stage (`stages.py`) that returns what is committed, or does it and commits it.
"""

from __future__ import annotations

import logging
from functools import partial

from alray import storage
from alray.campaign import costs, opening, rounds, states
from alray.campaign.lease import Lease
from alray.campaign.ledger import Ledger
from alray.campaign.material import Material
from alray.campaign.opening import Opened
from alray.campaign.settings import Settings
from alray.campaign.stages import Stages
from alray.campaign.states import State
from alray.campaign.status import Status, status

log = logging.getLogger(__name__)


def run(settings: Settings) -> Status:
    """Start or resume a campaign; return how it stands when its budget is spent or it waits for labels.

    Raises RunError if another driver is at work, if frozen settings changed, or if the run failed before.
    """
    storage.configure(settings.storage.endpoint, settings.storage.region)
    folder = opening.home(settings.run)
    with Lease(storage.join(folder, "lease.json")) as lease:
        ledger = Ledger(folder, guard=lease.check)
        ledger.sweep()
        opened = opening.begin(ledger, settings)
        rounds.verify(ledger)
        costs.settle(ledger, lease.fence, lease.holder.beats)
        material = Material.open(settings, ledger)
        state = states.recorded(ledger, opened, partial(_drive, settings, ledger, material, opened, lease.fence))
    log.info("%s: %s", folder, state)
    return status(folder)


def _drive(
    settings: Settings, ledger: Ledger, material: Material, opened: Opened, attempt: int, refusal: str | None
) -> tuple[State, str]:
    with Stages(settings, ledger, material, opened, attempt) as do:
        do.place.refusal = refusal
        return _rounds(do), do.ending or ""


def _rounds(do: Stages) -> State:
    while (round := do.next()) is not None:
        picks = do.select(round)
        if not len(picks) and round.number:
            return "done"  # all that is left of the pool is unreadable
        if not do.ask(round, picks):
            return "waiting"
        labels = do.label(round)
        do.align(round, labels)
        head = do.fit(round, labels)
        do.look_ahead(round, head, labels)
        model = do.train(round, head, labels)
        do.test(round, model)
        do.close(round)
    return "done"
