"""What a sweep is told: what is varied, how often, where it is kept, and the campaign that every trial begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alray import config, storage
from alray.campaign import Settings, opening
from alray.config import Config
from alray.errors import ConfigError

OWN = ("run", "seed", "runtime", "storage", "features.path", "pretrain.path")
"""Settings of a campaign that a grid may not vary: the sweep sets them itself, or they change nothing but the speed."""

COLUMNS = ("trial", "state", "rounds", "labels", "accuracy", "dollars", "seconds", "error")
"""What a table says of each trial, beside what the grid varies and the seed."""

OTHER = "as in `start: {none: {labels: null}, some: {labels: first.csv}}`"

Values = list[Any] | dict[str, dict[str, Any]]
"""What a key of the grid is varied over: values of that setting; or names, and the settings that each stands for."""


class AshaConfig(Config):
    """Early stopping: of the trials that get to a rung, at `grace`·`reduction`ᵏ labels, one in `reduction` goes on."""

    grace: int = Field(ge=1)  # labels that every trial may buy
    reduction: float = Field(3.0, gt=1)


class BestConfig(Config):
    """Which configuration is the best: see `best.py`."""

    target: float | None = Field(None, gt=0, le=1)  # the cheapest to this accuracy; none: the most accurate
    dollars: float | None = Field(None, gt=0)  # a mean cost above this is too dear


class SweepConfig(Config):
    """A grid of campaigns."""

    folder: str  # folder or s3:// URI that keeps the trials, the features that they share, and the results
    grid: dict[str, Values] = Field(default_factory=dict)  # config path → values, or a name → {name: {path: value}}
    seeds: int | list[int] = 1  # of each configuration; a number N: 0 … N − 1
    concurrency: int | None = Field(None, ge=1)  # trials at a time; none: as many as there is room for
    runtime: Literal["ray", "local"] = "ray"  # trials on Ray Tune; or one after the other in this process
    asha: AshaConfig | None = None  # stop early what lags behind; none: every trial runs to its end
    best: BestConfig | None = Field(default_factory=BestConfig)  # none: no configuration is written down as the best
    log_to: list[Literal["mlflow", "tensorboard"]] = Field(
        default_factory=list
    )  # Ray Tune's callbacks, beside the table

    @field_validator("grid")
    @classmethod
    def _varies(cls, grid: dict[str, Values]) -> dict[str, Values]:
        for path, values in grid.items():
            if own := next((own for own in OWN if path == own or path.startswith(f"{own}.")), None):
                instead = " Give `sweep.seeds`" if own == "seed" else ""
                raise ValueError(f"varies `{path}`, which the sweep sets for each trial.{instead or ' Take it out'}")
            if path in COLUMNS:
                raise ValueError(
                    f"varies `{path}`, which is a column of the table: vary it under another name, {OTHER}"
                )
            if not values:
                raise ValueError(f"has no values for `{path}`: give a list of them, or take the line out")
        return grid

    @field_validator("seeds")
    @classmethod
    def _counts(cls, seeds: int | list[int]) -> int | list[int]:
        drawn = list(range(seeds)) if isinstance(seeds, int) else seeds
        if not drawn or min(drawn) < 0 or len(set(drawn)) < len(drawn):
            raise ValueError(f"is {seeds} (expected a number of seeds, 1 or more, or a list of different ones from 0)")
        return seeds

    @model_validator(mode="after")
    def _stops_on_ray(self) -> SweepConfig:
        for name in ("asha", "log_to"):
            if self.runtime == "local" and getattr(self, name):
                raise ValueError(
                    f"`{name}` is Ray Tune's, and `runtime` is local: take it out, or set `runtime` to ray"
                )
        return self

    @property
    def drawn(self) -> list[int]:
        """The seeds."""
        return list(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds


class _File(Config):
    """A sweep's file, before it is known what its campaign is."""

    sweep: dict[str, Any]
    campaign: str | dict[str, Any]


class _Known(Config):
    """The same, to know which of its settings name a member of a family."""

    sweep: SweepConfig
    campaign: Settings


class _Told(Config):
    """The same, with the campaign's settings as they stand: alone they need not make a campaign."""

    sweep: SweepConfig
    campaign: dict[str, Any]


class _Any(Config, extra="allow"):
    """Any settings at all."""


@dataclass(frozen=True)
class Sweep:
    """A sweep's settings, and those of the campaign that every trial begins with; `source` is where they stand."""

    config: SweepConfig
    campaign: Mapping[str, Any]
    source: str

    @property
    def home(self) -> str:
        """The sweep's folder, as a URI that means the same in every process."""
        return opening.home(self.config.folder)


def load(uri: str, words: Sequence[str] = ()) -> Sweep:
    """Read a sweep's YAML file; words are `sweep.…=value` and `campaign.…=value`, or `campaign=other.yaml`.

    Raises ConfigError with every mistake of the sweep's own settings; those of the campaign show in its trials.
    """
    given = config.load(uri, [], _File)
    return read({"sweep": given.sweep, "campaign": given.campaign}, words, source=uri)


def read(raw: Mapping[str, Any], words: Sequence[str] = (), *, source: str) -> Sweep:
    """Return the sweep in `raw`, where `campaign` holds a campaign's settings or the path of their file."""
    for word in words:
        _refuse_stray(word)
    other = [word for word in words if word.startswith("campaign=")]
    raw = config.apply(raw, other)
    if isinstance(raw["campaign"], str):
        raw["campaign"] = config.load(raw["campaign"], [], _Any).model_dump()
    told = config.apply(raw, [word for word in words if word not in other], _Known)
    found = config.parse(told, _Told, source=source)
    sweep = Sweep(found.sweep, found.campaign, source)
    _refuse_relative(sweep)
    return sweep


def _refuse_stray(word: str) -> None:
    section = word.partition("=")[0].split(".")[0].strip()
    if section not in ("sweep", "campaign"):
        meant = f" Did you mean `campaign.{word}`?" if section in Settings.model_fields else ""
        raise ConfigError(
            f"{word}: is no setting of a sweep: expected `sweep.…=value` or `campaign.…=value`, as in `sweep.seeds=3`."
            f"{meant}"
        )


def _refuse_relative(sweep: Sweep) -> None:
    runtime = sweep.campaign.get("runtime")
    address = runtime.get("address") if isinstance(runtime, dict) else None
    if address not in (None, "auto", "local") and storage.is_relative(sweep.config.folder):
        raise ConfigError(
            f"`sweep.folder` is the relative path {sweep.config.folder!r}, which another machine of the cluster at "
            f"`campaign.runtime.address` {address} would look for elsewhere: give an absolute path or s3://"
        )
