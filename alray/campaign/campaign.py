"""The loop of active learning: select, ask, label, align, fit, train, test; each line done once and committed.

Running the same command again resumes from the first piece that is not in the ledger. Nothing here computes: each
line of `_rounds` is a stage (`stages.py`) that returns what is committed, or does it and commits it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
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
from alray.log import within
from alray.runtime import prepare

log = logging.getLogger(__name__)

AfterRound = Callable[[int], bool]
"""Called with the number of each round once it is committed; False: begin no other."""


def run(settings: Settings, *, after_round: AfterRound | None = None) -> Status:
    """Start or resume a campaign; return how it stands when its budget is spent or it waits for labels.

    Where `after_round` returns False and a round would follow, the campaign stands as `running`: it can go on later.

    Raises RunError if another driver is at work, if frozen settings changed, or if the run failed before.
    """
    storage.configure(settings.storage.endpoint, settings.storage.region)
    opening.refuse_fleeting(settings)
    folder = opening.home(settings.run)
    with within(run=folder), Lease(storage.join(folder, "lease.json")) as lease:
        ledger = Ledger(folder, guard=lease.check)
        ledger.sweep()
        opened = opening.begin(ledger, settings)
        rounds.verify(ledger)
        costs.settle(ledger, lease.fence, lease.holder.beats)
        with states.opening(ledger, opened):
            prepare(settings.runtime)  # here, since a token that was forgotten is no fault of the settings
            material = Material.open(settings, ledger)
        drive = partial(_drive, settings, ledger, material, opened, lease.fence, after_round)
        state = states.recorded(ledger, opened, drive)
        log.info("%s: %s", folder, state)
    return status(folder)


def _drive(
    settings: Settings,
    ledger: Ledger,
    material: Material,
    opened: Opened,
    attempt: int,
    after_round: AfterRound | None,
    refusal: str | None,
) -> tuple[State, str]:
    with Stages(settings, ledger, material, opened, attempt) as do, states.shown():
        do.place.refusal = refusal
        state = _rounds(do, after_round)
        states.show(state)
        return state, do.ending or ""


def _rounds(do: Stages, after_round: AfterRound | None) -> State:
    go_on = True
    while (round := do.next()) is not None:
        if not go_on:
            do.ending = f"told to stop after round {round.number - 1}; the same command goes on."
            return "running"
        picks = do.select(round)
        if not len(picks) and round.number:
            do.ending = do.nothing_left()
            return "done"
        if not do.ask(round, picks):
            return "waiting"
        labels = do.label(round)
        do.align(round, labels)
        head = do.fit(round, labels)
        do.look_ahead(round, head, labels)
        model = do.train(round, head, labels)
        do.test(round, model)
        do.close(round)
        go_on = after_round is None or after_round(round.number)
    return "done"
