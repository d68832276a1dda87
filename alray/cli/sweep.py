"""`alray sweep`: many campaigns side by side, or the labels of one campaign bought again by other strategies."""

from __future__ import annotations

from typing import Annotated

import typer

from alray import sweeps
from alray.cli import show
from alray.errors import ConfigError, RuntimeFailure
from alray.pool import digits
from alray.sweeps import backtest, table
from alray.sweeps.outcome import Outcome
from alray.sweeps.sweep import Finished


def sweep(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="YAML file of a sweep.")] = None,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value …]", help="Settings to change: sweep.…=value, campaign.…=value."),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--backtest", metavar="RUN", help="Buy the labels of this run again, by other strategies."),
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(metavar="S,S…", help="Of a backtest; else the run's own and some that differ.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, max=1000, metavar="N", help="Of a backtest.")] = None,
) -> None:
    """Run a grid of campaigns on Ray Tune, or go on with it; write a table, plots and the best campaign's settings."""
    if run is not None:
        names = None if strategies is None else [name.strip() for name in strategies.split(",")]
        words = [*([config] if config else []), *(words or [])]
        _print_backtest(backtest.backtest(run, words, strategies=names, seeds=seeds or backtest.SEEDS))
        return
    if config is None:
        raise ConfigError("Give the YAML file of a sweep, or a run to buy again: `alray sweep --backtest RUN`.")
    if strategies is not None or seeds is not None:
        raise ConfigError(
            "`--strategies` and `--seeds` belong to `--backtest`. In a sweep give the words "
            "`sweep.grid={strategy.name: [a, b]}` and `sweep.seeds=N`."
        )
    told = sweeps.load(config, words or ())
    _write_digits(told)
    _print(sweeps.run(told))


def _write_digits(told: sweeps.Sweep) -> None:
    """Write the bundled digits the first time that they are the pool, as `alray run` does."""
    pool = told.campaign.get("pool")
    if digits.POOL in (pool, pool.get("path") if isinstance(pool, dict) else None):
        digits.write(digits.FOLDER)


def _print(found: Finished) -> None:
    outcome = found.outcome
    show.table(table.columns(outcome), table.rows(outcome))
    show.table(*table.summary(outcome))
    for note in table.notes(outcome, found.best):
        show.line(note)
    show.line(f"Written: {', '.join(found.files)}.")
    _refuse_failed(outcome)


def _print_backtest(found: backtest.Backtest) -> None:
    show.table(found.columns(), found.rows())
    for sentence in [*found.cheapest(), found.caveat]:
        show.line(sentence)
    show.line(f"Written: {', '.join([*found.write(), *found.finished.files])}.")
    _refuse_failed(found.finished.outcome)


def _refuse_failed(outcome: Outcome) -> None:
    """Raise RuntimeFailure with the name and the error of each trial that failed, or with those that did not end."""
    if outcome.failed:
        lines = [f"  {one.trial.name}: {one.error}" for one in outcome.failed]
        raise RuntimeFailure(
            "\n".join(
                [
                    f"{len(outcome.failed)} of {len(outcome.results)} trials failed; the others are not touched by it:",
                    *lines,
                    "Put that right, and run the same command again: it goes on with these alone.",
                ]
            )
        )
    if cut := [one.trial.name for one in outcome.results if one.state in ("cut", "not begun")]:
        raise RuntimeFailure(
            f"{len(cut)} of {len(outcome.results)} trials have not ended ({', '.join(cut)}), so what is said above is "
            "not all. Run the same command again: it goes on with these."
        )
