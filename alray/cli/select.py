"""`alray select`: one selection from a pool, without a campaign."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from pydantic import Field

from alray import config, storage
from alray.cli import show
from alray.config import Config
from alray.errors import ConfigError, StoragePathError, UserError
from alray.models import Head
from alray.pool import Pool, PoolConfig
from alray.runtime import RuntimeConfig, open_runtime
from alray.selection import Picks, Selection, SelectionConfig, picks
from alray.selection import select as select_rows
from alray.strategies import Strategy
from alray.strategies.registry import StrategyFamily
from alray.training.probe import HeadConfig

FACTS = ("available", "candidates", "cap", "shortlist", "regime", "filled", "near_duplicates")
"""Parts of a selection's report that are worth a line."""


VALUES = 6
"""Values of a quota's column that are worth a line."""


class SelectSettings(Config):
    """What one selection is told: the command's options, and `key=value` words under a campaign's own names."""

    pool: PoolConfig
    strategy: Annotated[Strategy, StrategyFamily]
    budget: int = Field(ge=1)
    seed: int = Field(0, ge=0)
    classes: list[str] | None = None
    head: HeadConfig = Field(default_factory=HeadConfig)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    runtime: RuntimeConfig = Field(default_factory=RuntimeConfig)


def select(
    pool: Annotated[str, typer.Option(metavar="P", help="Parquet file, glob or folder with features.")],
    strategy: Annotated[str, typer.Option(metavar="S", help="Name of a strategy.")],
    budget: Annotated[int, typer.Option(metavar="B", help="Rows to pick.")],
    out: Annotated[str, typer.Option(metavar="F", help="Picks to write: .parquet or .csv.")],
    labels: Annotated[str | None, typer.Option(metavar="L", help="Labels there already (.csv, .parquet).")] = None,
    head: Annotated[str | None, typer.Option(metavar="H", help="Head to use instead of fitting one.")] = None,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 0,
    runtime: Annotated[str, typer.Option(metavar="ray|local", help="How work is run.")] = "ray",
    workers: Annotated[int, typer.Option(help="Shard actors.")] = 2,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[key=value …]", help="Fields of the strategy, or selection.*, head.*")
    ] = None,
) -> None:
    """Pick the rows of a pool to label next. Labelled rows are left out; without --head one is fitted on them."""
    given: dict[str, Any] = {
        "pool": {"path": pool},
        "strategy": {"name": strategy},
        "budget": budget,
        "seed": seed,
        "runtime": {"name": runtime, "workers": workers},
    }
    overrides = [_in_its_place(word) for word in words or ()]
    settings = config.parse(given, SelectSettings, source="alray select", overrides=overrides)
    check_out(out)
    start = time.perf_counter()
    selection = _selected(settings, labels, head)
    _write(selection, out)
    _print(selection, settings.budget, out, time.perf_counter() - start)


def _in_its_place(word: str) -> str:
    """Return a word with its whole path: a bare `eps=0.1` is a field of the strategy."""
    first = word.partition("=")[0].split(".")[0]
    return word if first in SelectSettings.model_fields or "=" not in word else f"strategy.{word}"


def check_out(out: str) -> None:
    """Refuse, before any work, an output of no known format, or one that would destroy what is not a picks file.

    Picks that somebody has written labels beside are no picks file any more: they are work, and perhaps paid for.
    """
    picks.check_suffix(out)
    if not storage.exists(out):
        return
    try:
        Picks.read(out, only=True)
    except (UserError, ValueError, KeyError):  # pyarrow's own errors are ValueErrors and KeyErrors
        raise StoragePathError(
            f"`--out` {out} exists and is not a picks file, so it is left alone. Give another name, or delete it first."
        ) from None


def _given_head(settings: SelectSettings, uri: str) -> Head:
    """Return the head that `--head` names, and refuse settings that would then say nothing, or something else."""
    head, said = Head.load(uri, settings.classes), settings.head.model_fields_set
    if said and not settings.strategy.wants & {"loss", "reference"}:  # these ask how the given head was fitted
        raise ConfigError(
            f"`--head` is used as it is, and `head.{min(said)}` says how a head is to be fitted. Leave one of them out."
        )
    if "kind" in said and settings.head.kind != head.kind:
        raise ConfigError(
            f"`head.kind` is {settings.head.kind} and the head `{uri}` is {head.kind}. Say how this head was fitted, "
            "or leave `head.kind` out."
        )
    return head


def _selected(settings: SelectSettings, labels: str | None, head: str | None) -> Selection:
    given = _given_head(settings, head) if head else None
    known = settings.head if given is None or settings.head.model_fields_set else None
    opened = Pool.open(settings.pool)
    with open_runtime(settings.runtime) as runtime:
        return select_rows(
            settings.strategy,
            opened,
            budget=settings.budget,
            labels=labels,
            head=given,
            seed=settings.seed,
            runtime=runtime,
            regime=settings.selection.regime,
            space=settings.selection.space,
            max_quarantine=settings.pool.max_quarantine,
            classes=settings.classes,
            head_config=known,
            min_distance=settings.selection.min_distance,
            quotas=settings.selection.quotas,
        )


def _write(selection: Selection, out: str) -> None:
    selection.picks.write(out)
    rejected = out + ".quarantine.parquet"
    if len(selection.quarantine):
        selection.quarantine.write(rejected)
    else:
        storage.delete(rejected)  # of an earlier selection under this name: these picks have none


def _print(selection: Selection, budget: int, out: str, seconds: float) -> None:
    report = selection.report
    rows = [[stage, f"{took:.2f}"] for stage, took in report.get("seconds", {}).items()]
    show.table(["stage", "seconds"], [*rows, ["all", f"{seconds:.2f}"]])
    facts: dict[str, object] = {"budget": budget, "picks": f"{len(selection.picks)} in {out}"}
    facts |= {name: report[name] for name in FACTS if report.get(name) is not None}
    facts |= {f"of {column}": _counted(counts) for column, counts in report.get("quotas", {}).items()}
    if len(selection.quarantine):
        facts["quarantined"] = f"{len(selection.quarantine)} rows in {out}.quarantine.parquet"
    show.pairs(facts | {"sha256": selection.picks.digest()})


def _counted(counts: dict[str, int]) -> str:
    """Return the picks of each value, the most frequent first, as far as a line goes."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f" and {len(most) - VALUES} more" if len(most) > VALUES else ""
    return ", ".join(f"{value} {count}" for value, count in most[:VALUES]) + more
