"""A backtest: the labels that a run has bought, bought again in the order of other strategies.

It answers which strategy would have come to the run's accuracies with fewer of these labels. All begin with the labels
that the run began with, and ask for as many a round as it did; the run itself stands beside them as it bought.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from alray import storage
from alray.campaign import measure, opening, splits
from alray.errors import ConfigError
from alray.features import from_pool
from alray.labelling.cells import shown
from alray.pool import Pool
from alray.reports import Curve, Estimate, Repeats, estimate, savings
from alray.reports.tables import markdown_table
from alray.runtime import LocalRuntime
from alray.sweeps import bought as purchases
from alray.sweeps import sweep as sweeps
from alray.sweeps import table, trial
from alray.sweeps.bought import POOL, START, TEST, Bought
from alray.sweeps.grid import expand
from alray.sweeps.outcome import Configuration
from alray.sweeps.settings import Sweep, read
from alray.sweeps.sweep import Finished
from alray.training import fit_head

SEEDS = 3
STRATEGIES = ("random", "margin", "alfa_mix", "coreset", "badge")
"""Strategies that a run is compared with where none are named, beside its own: chance, doubt, difference, and both."""

LEVELS = 5
"""Accuracies that are compared, at most: from after the run's start to its best."""

AS_BOUGHT = "as bought"

DATA = "data"
"""Folder of the labelled rows and the test rows, within the backtest's."""


@dataclass(frozen=True)
class Line:
    """One strategy: the labels, the start's included, that it takes to each accuracy, with intervals over seeds."""

    strategy: str
    seeds: int
    labels: list[Estimate]


@dataclass(frozen=True)
class Backtest:
    """What came of it: a line for each strategy, the run's own order first.

    `price` is what the run paid for a label on average; `free` labels were there before, and cost nothing.
    """

    run: str
    folder: str
    levels: list[float]
    lines: list[Line]
    price: float
    free: int
    caveat: str
    finished: Finished

    def columns(self) -> list[str]:
        """Return the headings of the table."""
        return ["strategy", "seeds", *(f"labels to {level:.3f}" for level in self.levels), "90 %", "label $"]

    def rows(self) -> list[list[str]]:
        """Return a row a strategy: labels to each accuracy; to the last one with its interval, and in dollars."""
        return [self._row(line) for line in self.lines]

    def _row(self, line: Line) -> list[str]:
        counts = [table.NONE if one.value is None else f"{one.value:,.0f}" for one in line.labels]
        last = line.labels[-1]
        both = table.NONE if last.low is None or last.high is None else f"{last.low:,.0f} … {last.high:,.0f}"
        dollars = (
            table.NONE if last.value is None or not self.price else f"{(last.value - self.free) * self.price:,.2f}"
        )
        return [line.strategy, str(line.seeds), *counts, both, dollars]

    def cheapest(self) -> list[str]:
        """Return a sentence for each accuracy: which strategy takes the fewest of the run's labels to it."""
        said = []
        for n, level in enumerate(self.levels):
            found = [(one.value, line.strategy) for line in self.lines if (one := line.labels[n]).value is not None]
            labels, name = min(found)
            said.append(f"To {level:.3f}: {name}, {labels:,.0f} labels.")
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return the backtest as JSON values."""
        lines = [
            {"strategy": o.strategy, "seeds": o.seeds, "labels": [e.to_dict() for e in o.labels]} for o in self.lines
        ]
        told = {"run": self.run, "levels": self.levels, "lines": lines, "label_price": self.price, "free": self.free}
        return {"schema": 1, **told, "caveat": self.caveat}

    def write(self) -> list[str]:
        """Write the table beside those of the sweep; return its files."""
        texts = {"backtest.md": _markdown(self), "backtest.csv": _csv(self)}
        for name, text in texts.items():
            storage.write_bytes(storage.join(self.folder, name), text.encode())
        storage.write_json(storage.join(self.folder, "backtest.json"), self.to_dict())
        return [storage.join(self.folder, name) for name in [*texts, "backtest.json"]]


def backtest(
    run: str, words: Sequence[str] = (), *, strategies: Sequence[str] | None = None, seeds: int = SEEDS
) -> Backtest:
    """Buy the labels of a run again; words may change the sweep, such as `sweep.folder`, which is `RUN-backtest` else.

    Raises RunError for a run without a choice to look back on, ConfigError for strategies that do not exist.
    """
    bought = purchases.read(run)
    told = plan(bought, run, words, strategies=strategies, seeds=seeds)
    data = storage.join(told.home, DATA)
    expand(told)  # its mistakes are said before anything is written
    purchases.write(bought, data)
    finished = sweeps.run(told)
    own, first = as_bought(bought, data), len(bought.start)
    curves = {AS_BOUGHT: Repeats({bought.settings.seed: own})}
    curves |= {one.name: _repeats(one, first) for one in finished.outcome.configurations if one.done and one.even}
    return Backtest(
        run=bought.run,
        folder=told.config.folder,
        levels=levels(own),
        lines=[_line(name, repeats, levels(own)) for name, repeats in curves.items()],
        price=_price(bought),
        free=bought.free,
        caveat=caveat(bought),
        finished=finished,
    )


def _price(bought: Bought) -> float:
    """Return the dollars of a label that came: those of rows that nobody could label are in them."""
    came = len(bought.start) + sum(map(len, bought.rounds)) - bought.free
    return bought.label_dollars / came if came else 0.0


def plan(bought: Bought, run: str, words: Sequence[str], *, strategies: Sequence[str] | None, seeds: int) -> Sweep:
    """Return the sweep that buys the labels again: a campaign on the features of the rows that the run bought."""
    settings = bought.settings
    own = settings.strategy.name
    asked = list(strategies) if strategies is not None else [own, *(s for s in STRATEGIES if s != own)]
    if not asked or not all(asked):
        raise ConfigError("`--strategies` names none: give names with commas between them, as in `random,margin`.")
    values = {name: {"strategy": _strategy(settings, name)} for name in asked}
    raw = {
        "sweep": {
            "folder": f"{opening.home(run)}-backtest",
            "grid": {"strategy": values},
            "seeds": seeds,
            "runtime": settings.runtime.name,
            "best": None,  # the best order of these labels is no campaign to run
        },
        "campaign": {},
    }
    folder = read(raw, words, source="the backtest").home
    raw["campaign"] = _campaign(bought, storage.join(folder, DATA))
    return read(raw, words, source=f"the backtest of {run}")


def _campaign(bought: Bought, data: str) -> dict[str, Any]:
    told, counts = bought.settings.model_dump(mode="json"), [len(part) for part in bought.rounds]
    test = storage.join(data, TEST)
    same = {name: told[name] for name in ("seed", "classes", "head", "costs", "storage")}
    return {
        **same,
        "pool": storage.join(data, POOL),
        "test": {"path": test, "labels": test},
        "labels": storage.join(data, START),
        "strategy": told["strategy"],
        "selection": {name: told["selection"][name] for name in ("regime", "space")},
        "training": {"holdout": told["training"]["holdout"]},
        "budget": {"initial": 0, "per_round": counts, "total": sum(counts)},
        "labeller": {"name": "oracle", "path": storage.join(data, POOL)},
        "runtime": {"name": "local", "address": told["runtime"]["address"]},
    }


def _strategy(settings: Any, name: str) -> Any:
    """Return a strategy with its defaults, or the run's own as the run had it."""
    own = settings.model_dump(mode="json")["strategy"]
    return own if name == settings.strategy.name else {"name": name}


# What is compared


def as_bought(bought: Bought, data: str) -> Curve:
    """Return the run's own curve by the same measure: a head on its first labels, and on those of each round after."""
    settings, rows = bought.settings, storage.read_parquet(storage.join(data, POOL))
    features = dict(zip(rows["id"].to_pylist(), _matrix(rows), strict=True))
    test = from_pool(Pool.open(storage.join(data, TEST)))
    truth = storage.read_parquet(storage.join(data, TEST), ["id", "label"])
    answers = dict(zip(truth["id"].to_pylist(), truth["label"].to_pylist(), strict=True))
    points: dict[int, float] = {}
    for labels in purchases.known(bought.rounds, bought.start):
        train = splits.split(labels, settings.seed, settings.training.holdout).train
        ids = [i for i in train if i in features]
        classes = settings.classes or sorted(set(labels.values()))
        x_MD = np.stack([features[i] for i in ids]).astype(np.float32)
        head = fit_head(settings.head, x_MD, [train[i] for i in ids], classes, settings.seed)
        points[len(labels)] = measure.head_metrics(head, test, answers, LocalRuntime())["accuracy"]
    return Curve.of(list(points), list(points.values()))


def levels(own: Curve) -> list[float]:
    """Return the accuracies that are compared: of the run's rising curve after its start, its best the last."""
    rising = np.unique(own.fitted_P[1:])
    at = np.unique(np.linspace(0, len(rising) - 1, LEVELS).round().astype(int))
    return [float(one) for one in rising[at]]


def _repeats(one: Configuration, start: int) -> Repeats:
    curves = {}
    for result in one.results:
        at = {start + report[trial.LABELS]: report[trial.ACCURACY] for report in result.reports}
        curves[result.trial.seed] = Curve.of(list(at), list(at.values()))
    return Repeats(curves)


def _line(name: str, repeats: Repeats, wanted: Sequence[float]) -> Line:
    found = [estimate(partial(savings.labels_for, level), repeats) for level in wanted]
    return Line(name, len(repeats.by_seed), found)


def caveat(bought: Bought) -> str:
    """Return what a backtest can and cannot tell, with this one's numbers."""
    rows = len(bought.labels)
    return (
        f"What this can tell: in which order these {rows:,} labels would have been worth most. What it cannot: no "
        f"strategy could choose a row that the run did not buy, and those are {bought.pool_rows - rows:,} of its "
        f"{bought.pool_rows:,}; most of the {rows:,} were picked by {bought.settings.strategy.name}, so what another "
        "strategy would have found is unknown, and all meet where everything is bought. Accuracies are of a head "
        "on the features that the run began with, and not of fine-tuned networks; a difference within the intervals is "
        "none."
    )


# Written


def _markdown(found: Backtest) -> str:
    parts = [f"# Backtest of {found.run}", markdown_table(found.columns(), found.rows())]
    return "\n\n".join([*parts, *found.cheapest(), found.caveat]) + "\n"


def _csv(found: Backtest) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["strategy", "seeds", "accuracy", "labels", "low", "high", "why"])
    for line in found.lines:
        for level, one in zip(found.levels, line.labels, strict=True):
            writer.writerow(map(shown, [line.strategy, line.seeds, level, one.value, one.low, one.high, one.why]))
    return out.getvalue()


def _matrix(rows: pa.Table) -> np.ndarray:
    flat = rows["features"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(rows.num_rows, -1))
