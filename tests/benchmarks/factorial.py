"""What a score buys and what diversity buys: every score with every thinning, one batch, paired by seed.

    python tests/benchmarks/factorial.py WORK FEATURES_FOLDER [--seeds 20] [--initial 500] [--budget 500]
        [--only score|regime]

FEATURES_FOLDER is CIFAR-10's, as `replay.cifar` takes it, or the word `digits` for a quick look. All cells of a seed
begin with the same labels, drawn at random, and the same head; one batch is picked, the head is fitted again (l2 of
`replay.tuned` for each number of labels) and asked for the test rows.

`score`: top-B takes the best of a score; "k-means on p %" is `diverse`, k-means into B clusters of the best p % of the
pool's rows, in regime `central`. `critical_cap` is ALFA-Mix's score without its shortlist and its k-means.
`regime`: the same seeds by coreset and by central k-means. The pool is cut into eight shards, so that the coreset has
eight blocks. A way whose first seed takes more than 20 seconds of the processor by either regime has 6 seeds.

WORK keeps `cells.jsonl`, one line for each cell, and `factorial.md`; cells that are there are not run again. Intervals
are 95 % t-intervals over seeds, each by itself: of many, one in twenty is wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from replay import World, cifar, digits, drawn, one_thread, pick, tuned
from torch import Tensor

from alray.features import from_pool
from alray.models.head import Head
from alray.pool import Pool
from alray.reports import paired_t
from alray.runtime import LocalRuntime
from alray.selection.resident_pool import ResidentPool
from alray.selection.settings import SelectionConfig
from alray.strategies import Given, Strategy, find
from alray.strategies.alfa_mix import AlfaMix
from alray.strategies.base import ScoreStrategy
from alray.strategies.diverse import Diverse
from alray.table import Table

SCORES = ("random", "margin", "entropy", "deepfool", "critical_cap")
TOP, OWN = "top-B", "its own"
THINNINGS = {TOP: 0.0, "k-means on 5 %": 0.05, "k-means on 10 %": 0.1, "k-means on 20 %": 0.2}
"""Share of the pool's rows that the score nominates; none for the best B."""

WAYS = (("margin", "k-means on 20 %"), ("entropy", "k-means on 20 %"), ("alfa_mix", OWN), ("kmeans", OWN))
"""What both regimes are compared on."""

CENTRAL, CORESET = "central", "coreset"
SHARDS, SLOW, FEW_SEEDS, ALIKE = 8, 20.0, 6, 0.5


class CriticalCap(ScoreStrategy):
    """ALFA-Mix's score alone: minus the least cap at which mixing flips a row's class; rows that never flip are last.

    The registry finds what is in alray's own folder: this class has a name, but no other process can ask for it.
    """

    name: Literal["critical_cap"] = "critical_cap"
    needs: ClassVar[frozenset[str]] = AlfaMix.needs

    def prepare(self, given: Given) -> dict[str, Any]:
        return AlfaMix().prepare(given)

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        return AlfaMix().score(rows, prepared)


@dataclass(frozen=True)
class Cell:
    """One batch: with which seed, by which score, thinned out how, by which k-means."""

    seed: int
    score: str
    thinning: str
    regime: str = CENTRAL

    def strategy(self, rows: int, budget: int) -> Strategy:
        """Return what picks it, of a pool of so many rows."""
        base = CriticalCap() if self.score == "critical_cap" else find(self.score)
        share = THINNINGS.get(self.thinning, 0.0)
        return Diverse(base=base, multiple=share * rows / budget) if share else base


@dataclass(frozen=True)
class Outcome:
    """What a cell came to: test accuracy, the rows that k-means had before it, processor seconds of picking."""

    accuracy: float
    shortlist: int | None
    seconds: float


Outcomes = dict[Cell, Outcome]


@dataclass(frozen=True)
class Effect:
    """A mean difference in points and the half width of its 95 % interval over seeds."""

    mean: float
    half: float

    @staticmethod
    def of(difference_S: np.ndarray) -> Effect:
        """Return the effect of paired differences of accuracy."""
        points_S = 100 * np.asarray(difference_S, dtype=np.float64)
        if len(points_S) < 2:
            return Effect(float(points_S.mean()), math.inf)
        spread = float(points_S.std(ddof=1)) / math.sqrt(len(points_S))
        return Effect(float(points_S.mean()), paired_t(points_S).critical * spread)

    @property
    def sure(self) -> bool:
        """Whether zero is outside the interval."""
        return abs(self.mean) > self.half

    def within(self, points: float) -> bool:
        """Return whether the whole interval is at most so many points from zero."""
        return abs(self.mean) + self.half <= points

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.half:.2f}{'*' if self.sure else ''}"


def main() -> None:
    args = parse()
    one_thread()
    world = digits(args.work) if str(args.features) == "digits" else cifar(args.work, args.features)
    log, setting = args.work / "cells.jsonl", {"world": world.name, "initial": args.initial, "budget": args.budget}
    done = read(log, setting)
    run(world, wanted(args, done), done, log, setting, args.work)
    parts = [score_page(world, done, args)] if args.only != "regime" else []
    parts += [regime_page(done, args)] if args.only != "score" else []
    text = "\n\n".join(parts)
    (args.work / "factorial.md").write_text(text + "\n")
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("features", type=Path, metavar="FEATURES_FOLDER")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--initial", type=int, default=500, help="labels drawn at random before the batch")
    parser.add_argument("--budget", type=int, default=500, help="rows of the batch")
    parser.add_argument("--only", choices=["score", "regime"])
    return parser.parse_args()


# Running


def wanted(args: argparse.Namespace, done: Outcomes) -> Iterator[Cell]:
    """Yield the cells to have, seed by seed, so that a run that is cut has whole seeds. `done` grows meanwhile."""
    for seed in range(args.seeds):
        if args.only != "regime":
            yield from (Cell(seed, score, thinning) for score in SCORES for thinning in THINNINGS)
        if args.only != "score":
            for way in WAYS:
                if seed < FEW_SEEDS or not slow(done, way):
                    yield from (Cell(seed, *way, regime) for regime in (CENTRAL, CORESET))


def slow(done: Outcomes, way: tuple[str, str]) -> bool:
    """Return whether the first seed of a way took too long for all seeds, by either regime."""
    first = [done.get(Cell(0, *way, regime)) for regime in (CENTRAL, CORESET)]
    return any(outcome is not None and outcome.seconds > SLOW for outcome in first)


def run(world: World, cells: Iterator[Cell], done: Outcomes, log: Path, setting: Mapping[str, Any], work: Path) -> None:
    """Run the cells that are not done yet; each goes into `done` and into the log."""
    initial, budget = setting["initial"], setting["budget"]
    l2s = tuned(world, [initial, initial + budget], work)
    seed, known, head = -1, {}, None
    with resident(world) as pool, log.open("a") as file:
        for cell in cells:
            if cell in done:
                continue
            if cell.seed != seed or head is None:
                seed, known = cell.seed, world.answers(drawn(world, initial, cell.seed))
                head = world.fit(known, l2s[initial])
            done[cell] = outcome = play(world, pool, cell, known, head, budget, l2s)
            file.write(json.dumps({**setting, **asdict(cell), **asdict(outcome)}) + "\n")
            file.flush()
            print(*asdict(cell).values(), f"{100 * outcome.accuracy:.2f} %, {outcome.seconds:.1f} s", flush=True)


def resident(world: World) -> ResidentPool:
    """Return the pool in several shards: of a single one the coreset would make a single block."""
    pool = Pool.open(world.path, rows_per_shard=math.ceil(len(world.ids) / SHARDS))
    return ResidentPool(from_pool(pool), LocalRuntime())


def play(
    world: World,
    pool: ResidentPool,
    cell: Cell,
    known: Mapping[str, str],
    head: Head,
    budget: int,
    l2s: Mapping[int, float],
) -> Outcome:
    """Pick one batch, and return what it makes of the head."""
    strategy, config = cell.strategy(len(world.ids), budget), SelectionConfig(regime=cell.regime)
    start = time.process_time()  # other work on the machine does not count
    found = pick(pool, strategy, known, head, budget=budget, seed=cell.seed, round=0, l2=l2s[len(known)], config=config)
    seconds = time.process_time() - start
    both = {**known, **world.answers(found.picks.ids.tolist())}
    assert len(both) == len(known) + budget and not found.report["filled"], "a batch is whole, new, and all chosen"
    accuracy = world.accuracy(world.fit(both, l2s[len(both)]))
    return Outcome(accuracy, found.report.get("shortlist"), round(seconds, 2))


def read(log: Path, setting: Mapping[str, Any]) -> Outcomes:
    """Return the cells of this setting; a last line that a kill cut short is taken off the log."""
    if not log.exists():
        return {}
    written = log.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if whole != written:
        log.write_bytes(whole)
    lines = [json.loads(line) for line in whole.splitlines()]
    ours = [line for line in lines if all(line[key] == value for key, value in setting.items())]
    return {
        Cell(*(line[key] for key in Cell.__dataclass_fields__)): Outcome(
            *(line[key] for key in Outcome.__dataclass_fields__)
        )
        for line in ours
    }


# Reading


def score_page(world: World, done: Outcomes, args: argparse.Namespace) -> str:
    """Return the factorial's tables and what they say."""
    accuracy_KTS = np.array(
        [[[done[Cell(s, k, t)].accuracy for s in range(args.seeds)] for t in THINNINGS] for k in SCORES]
    )
    base_S = accuracy_KTS[0, 0]
    intro = (
        f"{world.name}: {args.initial} labels at random, then one batch of {args.budget}; {args.seeds} seeds. Accuracy "
        f"in %, differences in points, ± half of the 95 % interval over seeds, * where zero is outside."
    )
    first = [
        [name, *(f"{100 * cell_S.mean():.2f} ({Effect.of(cell_S - base_S)})" for cell_S in row_TS)]
        for name, row_TS in zip(SCORES, accuracy_KTS, strict=True)
    ]
    first[0][1] = f"{100 * base_S.mean():.2f}"
    own = [
        [name, *(str(Effect.of(cell_S - row_TS[0])) for cell_S in row_TS[1:])]
        for name, row_TS in zip(SCORES, accuracy_KTS, strict=True)
    ]
    by_score, by_thinning = main_effects(accuracy_KTS)
    mains = [[f"score: {name}", "random's", str(effect)] for name, effect in by_score.items()]
    mains += [[f"thinning: {name}", TOP, str(effect)] for name, effect in by_thinning.items()]
    parts = ["### Score × thinning", intro]
    parts += [table(["score", *(f"{t} (− random/{TOP})" for t in THINNINGS)], first)]
    parts += ["Main effects: a score over all thinnings, a thinning over all scores, paired by seed."]
    parts += [table(["mean of", "less", "points"], mains), reading(by_score, by_thinning)]
    parts += [f"Each score thinned out, less its own {TOP}.", table(["score", *list(THINNINGS)[1:]], own)]
    return "\n\n".join(parts)


def main_effects(accuracy_KTS: np.ndarray) -> tuple[dict[str, Effect], dict[str, Effect]]:
    """Return what each score buys against random's, and what each thinning buys against top-B."""
    score_KS, thinning_TS = accuracy_KTS.mean(axis=1), accuracy_KTS.mean(axis=0)
    by_score = {name: Effect.of(score_KS[k] - score_KS[0]) for k, name in enumerate(SCORES) if k}
    by_thinning = {name: Effect.of(thinning_TS[t] - thinning_TS[0]) for t, name in enumerate(THINNINGS) if t}
    return by_score, by_thinning


def reading(by_score: Mapping[str, Effect], by_thinning: Mapping[str, Effect]) -> str:
    """Return one line that the numbers make."""
    said = [f"{most('score', by_score, 'random')}; {most('thinning', by_thinning, TOP)}."]
    unsure = [name for name, effect in {**by_score, **by_thinning}.items() if not effect.sure]
    worse = [name for name, effect in {**by_score, **by_thinning}.items() if effect.sure and effect.mean < 0]
    said += [f"Not told from zero: {', '.join(unsure)}."] if unsure else []
    said += [f"Below zero: {', '.join(worse)}."] if worse else []
    return " ".join(["Reading:", *said])


def most(kind: str, effects: Mapping[str, Effect], base: str) -> str:
    """Return which of these buys the most, in words."""
    name, best = max(effects.items(), key=lambda item: item[1].mean)
    low, high = best.mean - best.half, best.mean + best.half
    return f"the {kind} with the most over {base} is {name}, {best.mean:+.2f} points ({low:+.2f} … {high:+.2f})"


def regime_page(done: Outcomes, args: argparse.Namespace) -> str:
    """Return the table of coreset against central."""
    head = ["picked by", "seeds", "rows before k-means", "central %", "coreset %", "coreset − central"]
    head += [f"interval within ± {ALIKE} points", "s central", "s coreset"]
    rows = [regime_row(done, way, args.seeds) for way in WAYS]
    few = [way[0] for way in WAYS if slow(done, way) and args.seeds > FEW_SEEDS]
    notes = [f"{SHARDS} shards, so {SHARDS} blocks of the coreset; median processor seconds of picking a batch."]
    if few:
        said = f"{FEW_SEEDS} seeds of {', '.join(few)}, whose first seed took more than {SLOW:.0f} s by a regime"
        notes.append(f"Only {said}: their intervals are wider for it.")
    return "\n\n".join(["### Coreset against central k-means", " ".join(notes), table(head, rows)])


def regime_row(done: Outcomes, way: tuple[str, str], seeds: int) -> list[str]:
    """Return one way's row, of the seeds that have both regimes."""
    pairs = [[done.get(Cell(seed, *way, regime)) for regime in (CENTRAL, CORESET)] for seed in range(seeds)]
    both = [(central, coreset) for central, coreset in pairs if central is not None and coreset is not None]
    accuracy_S2 = np.array([[outcome.accuracy for outcome in pair] for pair in both])
    effect = Effect.of(accuracy_S2[:, 1] - accuracy_S2[:, 0])
    sizes = sorted(outcome.shortlist or 0 for pair in both for outcome in pair)
    shown = f"{sizes[0]:,}" if sizes[0] == sizes[-1] else f"{sizes[0]:,} … {sizes[-1]:,}"
    name = way[0] if way[1] == OWN else f"{way[0]}, {way[1]}"
    means = [f"{100 * value:.2f}" for value in accuracy_S2.mean(axis=0)]
    seconds = [f"{np.median([pair[n].seconds for pair in both]):.1f}" for n in (0, 1)]
    return [name, str(len(both)), shown, *means, str(effect), "yes" if effect.within(ALIKE) else "no", *seconds]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


if __name__ == "__main__":
    main()
