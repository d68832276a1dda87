"""Run folders, found and read: one curve a run, with what its labels and its sampling took.

The hours at a budget are those that were spent until its labels were asked for. What a round does after them serves the
next one's choice, and in the last round no choice at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alray import storage
from alray.campaign import opening, rounds, states
from alray.campaign.costs import HOUR_S, SAMPLING, STARTUP, CostsConfig, Spent, part
from alray.campaign.ledger import Ledger
from alray.campaign.settings import Settings
from alray.errors import LedgerError, RunError, StoragePathError
from alray.reports.curves import Curve, Hours
from alray.reports.savings import Prices

ASKING = "labels"
"""The stage that ends a round's choice: what comes before it served this choice, what comes after it the next one."""

DRAWING = ("select",)
"""What a random draw needs: round 0 of every campaign is one, and where the first features choose nothing after it, as
in the regime `standard`, they are not counted either."""

Material = tuple[object, ...]
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Run:
    """One campaign, as its folder tells it. `curve` is over labels paid for; `switch` is as set, as JSON."""

    folder: str
    state: str
    settings: Mapping[str, Any]
    prices: Prices
    curve: Curve
    startup: Hours
    total: Hours
    labels: int
    label_dollars: float
    material: Material

    @property
    def seed(self) -> int:
        """The seed of everything that it drew."""
        return int(self.settings["seed"])

    @property
    def key(self) -> Key:
        """Regime, strategy and switch: what a group has in common."""
        switch = json.dumps(self.settings.get("switch"), sort_keys=True)
        return str(self.settings["regime"]), str(self.settings["strategy"]["name"]), switch


def find(words: Sequence[str]) -> list[str]:
    """Return the runs that these folders, globs and folders of runs name, each once; RunError if one names none."""
    return list(dict.fromkeys(folder for word in words for folder in _find(word)))


def read(folder: str) -> Run:
    """Read one run. RunError where there is none, or no round of it was tested."""
    ledger = Ledger(opening.home(folder))
    found = opening.latest(ledger) if ledger.has("run.json") else None
    if found is None:
        raise RunError(f"There is no run in {folder}: it has no settings. Give the folder that `run:` names.")
    settings = found[1]
    records = [one.json(rounds.RECORD) for one in rounds.closed(ledger)]
    _refuse_untested(folder, settings, records)
    costs = [record["cost"] for record in records]
    prices = Prices(settings.costs.label, settings.costs.cpu_hour, settings.costs.gpu_hour)
    return Run(
        folder=ledger.run,
        state=states.read(ledger)["state"],
        settings=settings.model_dump(mode="json"),
        prices=prices,
        curve=_curve(ledger, records, settings),
        startup=_hours(part(cost, STARTUP) for cost in costs),
        total=_hours(part(cost, tuple(cost["stages"])) for cost in costs),
        labels=sum(cost["labels"] for cost in costs),
        label_dollars=sum(cost["label_dollars"] for cost in costs),
        material=_material(ledger, settings),
    )


# Finding


def _find(word: str) -> list[str]:
    if storage.exists(storage.join(word, "run.json")):
        return [opening.home(word)]
    inside = storage.list_folders(word) if storage.is_folder(word) else _match(word)
    found = [folder for folder in inside if storage.exists(storage.join(folder, "run.json"))]
    if not found:
        raise RunError(
            f"There is no run in {word}, nor in a folder of it: none has a run.json. Give run folders, a glob of them, "
            "or the folder that they are in."
        )
    return found


def _match(word: str) -> list[str]:
    try:
        return [file.removesuffix("/run.json") for file in storage.expand(storage.join(word, "run.json"))]
    except StoragePathError:  # nothing matches
        return []


# Reading


def _refuse_untested(folder: str, settings: Settings, records: Sequence[Mapping[str, Any]]) -> None:
    if settings.test is None:
        raise RunError(
            f"The run {folder} has no test rows, so its accuracy was not measured and nothing can be compared. Give "
            "`test` in a new run, or leave this one out."
        )
    if not records:
        raise RunError(f"The run {folder} has no finished round yet. Run it on, or leave it out.")
    untested = [record["round"] for record in records if record["accuracy"] is None]
    if untested:
        raise RunError(f"Round {untested[0]} of the run {folder} has no test accuracy. Leave this run out.")


def _curve(ledger: Ledger, records: Sequence[Mapping[str, Any]], settings: Settings) -> Curve:
    """Return accuracy over labels paid for; of rounds that paid for none the last counts."""
    points: dict[int, tuple[float, Hours, float]] = {}
    labels, paid, spent = 0, 0.0, Spent()
    stages, unseen = choosing(settings.strategy.name), settings.regime == "standard"  # embedded anew before it selects
    for record in records:
        before, after = halves([ledger.read_json(name) for name in sorted(record["cost"]["files"])])
        labels += record["cost"]["labels"]
        paid += record["cost"]["label_dollars"]
        spent += _sum(before, DRAWING if unseen and record["round"] == 0 else stages)
        points[labels] = (record["accuracy"], _as_hours(spent), paid)
        spent += _sum(after, stages)
    accuracy, hours, dollars = zip(*points.values(), strict=True)
    return Curve.of(list(points), accuracy, hours, paid=dollars)


def choosing(strategy: str) -> Sequence[str]:
    """Return the stages that a strategy needs to choose rows: a random draw looks at no features and asks no head."""
    return DRAWING if strategy == "random" else SAMPLING


def halves(records: Sequence[Mapping[str, Any]]) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
    """Return a round's cost records, in their order, before and from the first time that labels were asked for."""
    asked = next((n for n, record in enumerate(records) if record["stage"] == ASKING), 0)
    return records[:asked], records[asked:]


def _sum(records: Iterable[Mapping[str, Any]], stages: Sequence[str]) -> Spent:
    free = CostsConfig()  # prices are put on later
    return sum((Spent.of(dict(record), free) for record in records if record["stage"] in stages), Spent())


def _hours(parts: Iterable[Spent]) -> Hours:
    return _as_hours(sum(parts, Spent()))


def _as_hours(spent: Spent) -> Hours:
    return Hours(spent.seconds / HOUR_S, spent.cpu_seconds / HOUR_S, spent.gpu_seconds / HOUR_S)


def _material(ledger: Ledger, settings: Settings) -> Material:
    """Return what two runs must share to be compared: the pool's files and rows, test rows and given labels."""
    manifests = ledger.files("pool")
    if not manifests:
        raise LedgerError(f"{ledger.run} has rounds and no pool manifest. Restore its folder pool/ from a copy.")
    shards = ledger.read_json(manifests[-1])["shards"]
    assert settings.test is not None
    test = (_absolute(settings.test.path), _absolute(settings.test.labels))
    pool = tuple((shard["uri"], shard["start"], shard["stop"]) for shard in shards)
    return pool, test, _absolute(settings.labels or []), tuple(settings.classes or ())


def _absolute(path: str | Sequence[str]) -> tuple[str, ...]:
    paths = [path] if isinstance(path, str) else path
    return tuple(opening.home(one) for one in paths)
