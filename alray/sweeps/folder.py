"""A sweep's folder: what it was told, which trials were stopped early, and where the rest is.

What the trials did is in their own ledgers. Here is only what these cannot know: the sweep's settings, which are fixed
as long as the folder lives, and the decisions of early stopping.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from alray import storage
from alray.config import load_yaml
from alray.errors import LedgerError, RunError
from alray.sweeps.settings import Sweep

SETTINGS, STOPPED, LEASE = "sweep.yaml", "stopped", "lease.json"

LIVE = ("run", "runtime", "storage", "seed")
"""Settings of the campaign that may change between two commands, or that each trial has its own of."""


def keep(sweep: Sweep) -> None:
    """Write down what a new sweep was told; RunError, with the difference, if an old one was told something else.

    How many trials run at a time, where, what logs them and which one counts as the best may change.
    """
    told = {"grid": sweep.config.grid, "seeds": sweep.config.drawn, "asha": sweep.config.model_dump()["asha"]}
    now = {"sweep": told, "campaign": {k: v for k, v in sweep.campaign.items() if k not in LIVE}}
    uri = storage.join(sweep.home, SETTINGS)
    text = yaml.safe_dump({"schema": 1, **now}, sort_keys=False, allow_unicode=True)
    if storage.put_once(uri, text.encode()):
        return
    before = _read(uri)
    differs = _difference(before, yaml.safe_load(text))
    if differs:
        lines = [f"  `{path}`: was {was!r}, is now {now!r}" for path, (was, now) in differs.items()]
        raise RunError(
            "\n".join(
                [
                    f"The sweep {sweep.home} was begun with other settings, which cannot change within a sweep:",
                    *lines,
                    "Set them back, or name a new folder in `sweep.folder`. What may change: `sweep.concurrency`, "
                    "`sweep.runtime`, `sweep.best`, `sweep.log_to`, `campaign.runtime`.",
                ]
            )
        )


def stop(home: str, trial: str, report: Mapping[str, Any]) -> None:
    """Note that a trial is not to go on: it was behind the others at this report."""
    numbers = {name: report[name] for name in ("labels_used", "accuracy")}
    storage.write_json(storage.join(home, STOPPED, f"{trial}.json"), {"schema": 1, **numbers})


def stopped(home: str) -> set[str]:
    """Return the names of the trials that were stopped early."""
    names = [uri.rsplit("/", 1)[1] for uri in storage.list_files(storage.join(home, STOPPED))]
    return {name.removesuffix(".json") for name in names if name.endswith(".json") and not name.startswith(".")}


def _read(uri: str) -> dict[str, Any]:
    try:
        found = load_yaml(storage.read_bytes(uri).decode())
        if found["schema"] != 1:
            raise LedgerError(
                f"{uri} has schema {found['schema']}; this alray reads schema 1. Use the alray that wrote it."
            )
        return dict(found)
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise LedgerError(
            f"{uri} is not readable as what alray wrote there ({error}). Restore it from a copy, or name a new folder "
            "in `sweep.folder`."
        ) from error


def _difference(before: Any, now: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return dotted path → (before, now) of every value that differs; the order of a grid's keys names its trials."""
    if isinstance(before, dict) and isinstance(now, dict):
        if path == "sweep.grid" and [*before] != [*now]:
            return {path: (before, now)}
        inner = [_difference(before.get(k), now.get(k), f"{path}.{k}".lstrip(".")) for k in {**before, **now}]
        return {where: pair for found in inner for where, pair in found.items()}
    return {} if before == now else {path: (before, now)}
