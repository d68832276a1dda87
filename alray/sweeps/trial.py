"""One trial: a campaign that reports after each round, and ends after one if it is told to."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from alray import campaign, config, storage
from alray.campaign import Settings, Status, lease

LABELS, ACCURACY = "labels_used", "accuracy"
"""What early stopping compares trials at, and by."""

WAIT_S, POLL_S = 2 * lease.TTL_S, 0.2

Report = dict[str, Any]


@dataclass(frozen=True)
class Payload:
    """What a trial is given: its settings as plain values, and the folder that its relative paths start from."""

    settings: dict[str, Any]
    folder: str


def payload(settings: Settings) -> Payload:
    """Return what `drive` is to be given, here or on another machine."""
    return Payload(settings.model_dump(mode="json"), os.getcwd())


def drive(given: Payload, report: Callable[[Report], bool]) -> None:
    """Run the campaign, or go on with it; after each round call `report`, and end there if it returns False."""
    if os.path.isdir(given.folder):  # other machines of a cluster share storage, not working folders
        os.chdir(given.folder)
    settings = config.parse(given.settings, Settings, source="the trial's settings")
    storage.configure(settings.storage.endpoint, settings.storage.region)
    _outlive(settings.run)
    campaign.run(settings, after_round=lambda number: report(reports(campaign.status(settings.run))[-1]))


def reports(status: Status) -> list[Report]:
    """Return what a trial reports, or has reported, after each of its rounds: the sums up to it, and its accuracy."""
    found: list[Report] = []
    dollars = seconds = 0.0
    for row in status.per_round:
        dollars, seconds = dollars + row["dollars"], seconds + row["seconds"]
        at = {"round": row["round"], LABELS: row["labels_so_far"], ACCURACY: row["accuracy"]}
        found.append({**at, "dollars": round(dollars, 6), "seconds": round(seconds, 3)})
    return found


def existing(run: str) -> Status | None:
    """Return how the run stands; None where there is none yet."""
    return campaign.status(run) if storage.exists(storage.join(run, "run.json")) else None


def _outlive(run: str) -> None:
    """Wait for what drives the run: trials outlive a sweep that was killed by the seconds that Ray needs to notice.

    A driver that stays is the campaign's to refuse, with its name.
    """
    give_up, uri = time.monotonic() + WAIT_S, storage.join(run, "lease.json")
    while (holder := lease.read_lease(uri)) is not None and lease.alive(holder) and time.monotonic() < give_up:
        time.sleep(POLL_S)
