"""The grid: each combination of values with each seed is one trial, named by what it varies and a hash of its settings.

The name is the same whenever the same sweep is read again, so that a trial finds the run that it began.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from alray import config, storage
from alray.campaign import Settings, opening
from alray.errors import ConfigError
from alray.labelling import Oracle
from alray.sweeps.settings import Sweep

RUNS, FEATURES = "runs", "features"
"""Folders of a sweep: a run for each trial, and the features that all of them share."""

DIGITS = 8
PART, NAME = 40, 150
"""Characters of a name: of one value in it, and of what stands before its hash. Some disks end at 255."""

ALL = "all"
"""The name of the only configuration of a sweep without a grid."""


@dataclass(frozen=True)
class Trial:
    """One campaign of a sweep. `varied` are the values that its configuration has, as text, by the keys of the grid."""

    name: str
    configuration: str
    varied: Mapping[str, str]
    seed: int
    settings: Settings

    def using(self, **settings: Any) -> Trial:
        """Return the trial with other values of some settings, under the same name."""
        return replace(self, settings=self.settings.model_copy(update=settings))


def expand(sweep: Sweep) -> list[Trial]:
    """Return all trials, seed by seed, so that a sweep that was cut has whole seeds.

    Raises ConfigError for settings that make no campaign, that cannot be compared, or that are the same twice.
    """
    points = list(_points(sweep.config.grid))
    trials = [_trial(sweep, point, seed) for seed in sweep.config.drawn for point in points]
    by_hash: dict[str, Trial] = {}
    for trial in trials:
        same = by_hash.setdefault(trial.name.rsplit("-", 1)[1], trial)
        if same is not trial:
            raise ConfigError(
                f"{sweep.source}: the trials {same.name} and {trial.name} are one campaign: `sweep.grid` says the same "
                "twice. Take one of the values out."
            )
    return trials


@dataclass(frozen=True)
class _Value:
    """One value of a key of the grid: how it is called, and the settings that it stands for."""

    key: str
    text: str
    settings: Mapping[str, Any]


def _points(grid: Mapping[str, Any]) -> Iterator[tuple[_Value, ...]]:
    """Yield each combination; the last key of the grid changes fastest."""
    return itertools.product(*(list(_values(key, values)) for key, values in grid.items()))


def _values(key: str, values: Any) -> Iterator[_Value]:
    if isinstance(values, dict):
        yield from (_Value(key, name, settings) for name, settings in values.items())
    else:
        yield from (_Value(key, text(value), {key: value}) for value in values)


def _trial(sweep: Sweep, point: Sequence[_Value], seed: int) -> Trial:
    names = _called(sweep.config.grid, point)
    source = f"{sweep.source}, trial {'-'.join([*names, f'seed={seed}'])}"
    varied = {path: value for one in point for path, value in one.settings.items()}
    words = [_word(path, value) for path, value in {**varied, "seed": seed, "run": sweep.home}.items()]
    settings = config.parse(_absolute(sweep), Settings, source=source, overrides=words)
    _refuse_unfit(settings, source)
    name = "-".join([*map(_safe, names), f"seed={seed}"])[:NAME]
    name = f"{name}-{opening.digest(settings)[:DIGITS]}"
    texts = {one.key: one.text for one in point}
    run = storage.join(sweep.home, RUNS, name)
    return Trial(name, ", ".join(names) or ALL, texts, seed, settings.model_copy(update={"run": run}))


def _absolute(sweep: Sweep) -> dict[str, Any]:
    """Return the campaign's settings with a place for features that all trials share."""
    raw = dict(sweep.campaign)
    features = raw.get("features")
    if features is None or (isinstance(features, dict) and features.get("path") is None):
        raw["features"] = {**(features or {}), "path": storage.join(sweep.home, FEATURES)}
    return raw


def _word(path: str, value: Any) -> str:
    """Return `path=value` as `config` reads it back: YAML on one line."""
    dumped = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), allow_unicode=True)
    return f"{path}={dumped.removesuffix('...' + chr(10)).strip()}"


def _refuse_unfit(settings: Settings, source: str) -> None:
    if settings.test is None:
        raise ConfigError(
            f"{source}: `campaign.test` is not set: without test rows no accuracy is measured, and nothing can be "
            "compared. Give `test: {path, labels}`."
        )
    if not isinstance(settings.labeller, Oracle):
        raise ConfigError(
            f"{source}: `campaign.labeller` is {settings.labeller.name}, which every trial would ask for labels of its "
            "own, each paid for. A sweep replays labels that are known: give `labeller: {name: oracle, path}`; "
            "`alray sweep --backtest RUN` uses those that a run has bought."
        )


# Names


def text(value: Any) -> str:
    """Return a setting's value as a person would say it, on one line."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, dict):
        said = [f"{k}={text(v)}" for k, v in value.items() if k != "name"]
        return " ".join([text(value["name"]), *said] if "name" in value else said)
    if isinstance(value, list | tuple):
        return " ".join(map(text, value))
    return " ".join(str(value).split())


def _called(grid: Mapping[str, Any], point: Sequence[_Value]) -> list[str]:
    """Return what each value is called: alone where it says what it is, else after the last word of its setting."""
    last = [key.rsplit(".", 1)[-1] for key in grid]
    out = []
    for one in point:
        short = one.key.rsplit(".", 1)[-1]
        key = short if last.count(short) == 1 else one.key
        alone = isinstance(grid[one.key], dict) or one.key in ("strategy", "strategy.name", "regime")
        out.append(one.text if alone else f"{key}={one.text}")
    return out


def _safe(name: str) -> str:
    """Return a part of a folder's name: only letters, digits and `._=+`, and no dot at its beginning."""
    return re.sub(r"[^A-Za-z0-9._=+]+", "_", name)[:PART].lstrip(".") or "_"
