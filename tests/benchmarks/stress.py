"""Pools with what real ones have too much of: what each strategy pays for junk, copies and wrong answers.

    python tests/benchmarks/stress.py WORK FEATURES_FOLDER [--rows 10000] [--seeds 3] [--rounds 5] [--initial 200]
        [--budget 100] [--price 0.05] [--strategies a,b] [--pools a,b]

FEATURES_FOLDER is CIFAR-10's, as `replay.cifar` takes it. Five pools of `--rows` rows, made once by a fixed seed:

- `plain`: the first rows as they are.
- `long_tail`: class k, in alphabetical order, has 100^(−k/9) times the rows of class 0 (Cui et al., CVPR 2019,
  imbalance 100), taken from all rows of the folder; the test set stays balanced. Recall is that of the last round's
  head and, on the same labels, of one that weighs all classes alike: without, a few rows of a class are never named.
- `jitter`: a fifth of the rows, each five times: itself, and four times with Gaussian noise of 5 % of each
  coordinate's standard deviation. A duplicate is a bought row whose source was bought before, initially too.
- `junk`: 30 % of the rows are replaced. Half of these are mixed, each coordinate that of another row, so that the
  marginals are kept and nothing else is; half are blown out, noise of three standard deviations around zero. A person
  says that there is no class: paid, and not trained on.
- `noise`: 10 % of the answers name a wrong class. The test set is clean.

Every strategy of a seed begins with the same initial labels, drawn at random; their dollars are said apart, and all
others are those of the rounds. Heads are refitted each round with the l2 of `replay.tuned`; `jitter` takes that of
`plain`, since its judges would be copies of rows that were trained on. `margin+min_distance` and
`diverse+min_distance` have `selection.min_distance` set, in every pool, to a distance between that of copies and that
of the nearest rows of `plain`. The strategies of `LIGHTER` do less than by default, so that all takes half an hour of
a core and not more. `core_gcn`, `uncertain_gcn` and `prob_cover` pick from rows drawn anew each round, among which
fewer are copies of each other than in the whole pool.

WORK keeps `cells.jsonl`, one line for each pool, strategy and seed, and `stress.md`. Cells that are there are not
played again; a WORK of other settings is refused. Seconds are of the processor, so that other work does not count.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import prod
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from replay import JUNK, World, cifar, drawn, one_thread, pick, tuned
from scipy.stats import spearmanr

from alray.models.head import Head
from alray.selection.settings import SelectionConfig
from alray.strategies import STRATEGIES, Strategy, find
from alray.training.probe import HeadConfig, fit_head

IMBALANCE, COPIES, JITTER, JUNK_SHARE, BLOWN, WRONG_SHARE = 100, 5, 0.05, 0.3, 3.0, 0.1
POOLS = ("plain", "long_tail", "jitter", "junk", "noise")
MIXED_UP, BLOWN_OUT, WRONG = "mixed", "blown", "wrong"
TAIL, COPIED, RULE = "long_tail", "jitter", "+min_distance"
LIGHTER: dict[str, dict[str, Any]] = {
    "active_ft": {"most": 2000},
    "core_gcn": {"subset": 2000},
    "prob_cover": {"most": 4000},
    "uncertain_gcn": {"subset": 2000},
}
"""Settings other than the defaults, of strategies that train or compare more than a cell has time for."""

Cell = dict[str, Any]
Cells = Mapping[tuple[str, str, int], Cell]


@dataclass(frozen=True)
class Plan:
    """What all cells of a WORK share."""

    features: str
    rows: int
    rounds: int
    initial: int
    budget: int

    @property
    def sizes(self) -> list[int]:
        """How many labels there are when each head is fitted."""
        return [self.initial + round * self.budget for round in range(self.rounds + 1)]

    @property
    def bought(self) -> int:
        """Rows that a strategy buys."""
        return self.rounds * self.budget


@dataclass(frozen=True)
class Stressed:
    """A pool, and of each row whose picture it is and what is wrong with it or with its answer."""

    world: World
    source_N: np.ndarray
    fault_N: np.ndarray

    @property
    def rarest(self) -> str:
        """The last class, which is the rarest of the long tail."""
        return self.world.classes[-1]

    def counts(self, before: Iterable[str], ids: Iterable[str]) -> dict[str, int]:
        """Return what there is among the rows `ids`, bought after the rows `before`."""
        had, rows = self._rows(before), self._rows(ids)
        fresh = set(self.source_N[rows].tolist()) - set(self.source_N[had].tolist())
        faults = {name: int((self.fault_N[rows] == name).sum()) for name in (MIXED_UP, BLOWN_OUT, WRONG)}
        rarest = int((self.world.label_N[rows] == self.rarest).sum())
        return {"rows": len(rows), **faults, "duplicates": len(rows) - len(fresh), "rarest": rarest}

    def _rows(self, ids: Iterable[str]) -> list[int]:
        return [self.world.place[i] for i in ids]


@dataclass(frozen=True)
class Contender:
    """A strategy and the rules that it picks under."""

    strategy: Strategy
    config: SelectionConfig | None = None


@dataclass(frozen=True)
class Distances:
    """Cosine distances: between two copies of a row of `jitter` at most, from a row of `plain` to another at least.

    `chosen` is their geometric mean, as far from the one as from the other by its factor.
    """

    copies: float
    others: float
    chosen: float


def main() -> None:
    args = parse()
    one_thread()
    plan = Plan(str(args.features.resolve()), args.rows, args.rounds, args.initial, args.budget)
    args.work.mkdir(parents=True, exist_ok=True)
    check(args.work / "plan.json", plan)
    worlds = args.work / "worlds"
    every = made(cifar(worlds, args.features), plan.rows, worlds)
    distances = between(every["plain"].world, every["jitter"].world)
    if unknown := set(args.pools) - set(every):
        sys.exit(f"--pools names {', '.join(sorted(unknown))}; there are {', '.join(every)}.")
    pools = {name: every[name] for name in every if name in args.pools}
    asked = contenders(args.strategies, distances.chosen)
    # Judges among copies of rows that were trained on would say that no l2 is needed.
    judges = {name: every["plain" if name == "jitter" else name].world for name in pools}
    l2 = {name: tuned(world, plan.sizes, worlds) for name, world in judges.items()}
    cells = played(args.work / "cells.jsonl", pools, asked, plan, range(args.seeds), l2)
    tables = {pool: Table(cells, list(asked), pool, args.seeds) for pool in pools}
    text = report(tables, pools, plan, args.seeds, args.price, distances)
    (args.work / "stress.md").write_text(text)
    print(text)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("features", type=Path, metavar="FEATURES_FOLDER")
    parser.add_argument("--rows", type=int, default=10_000, help="of each pool")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--initial", type=int, default=200, help="labels drawn at random")
    parser.add_argument("--budget", type=int, default=100, help="labels a round")
    parser.add_argument("--price", type=float, default=0.05, help="dollars a label")
    parser.add_argument("--strategies", type=lambda text: text.split(","), help="else all; random is always there")
    parser.add_argument("--pools", type=lambda text: text.split(","), default=POOLS, help="else all")
    return parser.parse_args()


def check(path: Path, plan: Plan) -> None:
    """Note what a WORK is for; refuse one that has cells of something else."""
    constants = [IMBALANCE, COPIES, JITTER, JUNK_SHARE, BLOWN, WRONG_SHARE]
    asked = {**asdict(plan), "pools": constants, "lighter": LIGHTER}
    if not path.exists():
        path.write_text(json.dumps(asked))
    elif json.loads(path.read_text()) != asked:
        sys.exit(f"{path} says {path.read_text()}, and {json.dumps(asked)} is asked for. Give another WORK.")


def contenders(names: Sequence[str] | None, least: float) -> dict[str, Contender]:
    """Return the strategies asked for, by name, random first."""
    found = {name: Contender(find({"name": name, **LIGHTER.get(name, {})})) for name in STRATEGIES()}
    rule = SelectionConfig(min_distance=least)
    found |= {name + RULE: Contender(found[name].strategy, rule) for name in ("margin", "diverse")}
    if unknown := set(names or ()) - set(found):
        sys.exit(f"--strategies names {', '.join(sorted(unknown))}; there are {', '.join(found)}.")
    return {name: found[name] for name in dict.fromkeys(["random", *(names or found)])}


# The pools


def made(base: World, rows: int, work: Path) -> dict[str, Stressed]:
    """Return the five pools, by name."""
    x_ND, label_N, ids_N = base.features_ND[:rows], base.label_N[:rows], base.ids[:rows]
    sound_N = np.full(rows, "", dtype="<U8")

    def stressed(
        name: str, ids: np.ndarray, features: np.ndarray, label: np.ndarray, source: np.ndarray, fault: np.ndarray
    ) -> Stressed:
        world = World.write(name, work, ids.tolist(), features, label, base.test_TD, base.test_label_T)
        return Stressed(world, source, fault)

    tail = long_tail(base, rows)
    tail_ids = base.ids[tail]
    copy_ids, source_N, copies_ND, copy_label_N = jittered(ids_N, x_ND, label_N, generator("jitter"))
    junk_ND, junk_label_N, junk_N = with_junk(x_ND, label_N, generator("junk"))
    said_N = answered(label_N, base.classes, generator("noise"))
    wrong_N = np.where(said_N == label_N, "", WRONG)
    return {
        "plain": stressed("plain", ids_N, x_ND, label_N, ids_N, sound_N),
        "long_tail": stressed(
            "long_tail", tail_ids, base.features_ND[tail], base.label_N[tail], tail_ids, sound_N[:1].repeat(len(tail))
        ),
        "jitter": stressed("jitter", copy_ids, copies_ND, copy_label_N, source_N, sound_N[:1].repeat(len(copy_ids))),
        "junk": stressed("junk", ids_N, junk_ND, junk_label_N, ids_N, junk_N),
        "noise": stressed("noise", ids_N, x_ND, said_N, ids_N, wrong_N),
    }


def generator(name: str) -> np.random.Generator:
    """Return the generator of a pool: one draw of it, that all seeds share."""
    return np.random.default_rng([2019, POOLS.index(name)])


def long_tail(base: World, rows: int) -> np.ndarray:
    """Return the first rows of each class, as many as its share: about `rows` in all, if the folder has as many."""
    where = [np.flatnonzero(base.label_N == name) for name in base.classes]
    share_C = IMBALANCE ** (-np.arange(len(where)) / (len(where) - 1))
    most = min(min(map(len, where)), rows / share_C.sum())
    return np.sort(np.concatenate([own[: round(most * s)] for own, s in zip(where, share_C, strict=True)]))


def jittered(
    ids_N: np.ndarray, x_ND: np.ndarray, label_N: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, sources, features and answers: all sources, then their copies, as a second export would come."""
    count = len(ids_N) // COPIES
    source_N, own_ND = np.tile(ids_N[:count], COPIES), np.tile(x_ND[:count], (COPIES, 1))
    noise_ND = rng.normal(size=own_ND.shape) * JITTER * x_ND[:count].std(axis=0)
    noise_ND[:count] = 0
    ids = np.array([f"{i}-{n // count}" for n, i in enumerate(source_N)])
    return ids, source_N, (own_ND + noise_ND).astype(np.float32), np.tile(label_N[:count], COPIES)


def with_junk(
    x_ND: np.ndarray, label_N: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, answers and faults with a share of the rows replaced by junk of two kinds, half each."""
    places = rng.permutation(len(x_ND))[: round(JUNK_SHARE * len(x_ND))]
    mixed, blown = np.array_split(places, 2)
    x, label, fault_N = x_ND.copy(), label_N.astype("<U16"), np.full(len(x_ND), "", dtype="<U8")
    x[mixed] = rng.permuted(x_ND, axis=0)[: len(mixed)]
    x[blown] = rng.normal(size=(len(blown), x.shape[1])) * BLOWN * x_ND.std(axis=0)
    label[places], fault_N[mixed], fault_N[blown] = JUNK, MIXED_UP, BLOWN_OUT
    return x, label, fault_N


def answered(label_N: np.ndarray, classes: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """Return the answers of somebody who names another class, any of them, for a share of the rows."""
    places = rng.permutation(len(label_N))[: round(WRONG_SHARE * len(label_N))]
    number_N = np.searchsorted(classes, label_N)
    number_N[places] += rng.integers(1, len(classes), len(places))
    return np.array(classes)[number_N % len(classes)]


def between(plain: World, jitter: World) -> Distances:
    """Return the distance below which rows are copies; it is told from copies that one has made oneself."""
    copies_KND = unit(jitter.features_ND).reshape(COPIES, -1, jitter.features_ND.shape[1])
    pairs = [(a, b) for a in range(COPIES) for b in range(a)]
    copies = max(float((1 - (copies_KND[a] * copies_KND[b]).sum(axis=1)).max()) for a, b in pairs)
    units_ND, others = unit(plain.features_ND), np.inf
    for start in range(0, len(units_ND), 1000):
        near_MN = units_ND[start : start + 1000] @ units_ND.T
        np.fill_diagonal(near_MN[:, start:], -1)
        others = min(others, float(1 - near_MN.max()))
    if copies >= others:
        sys.exit(f"Copies are up to {copies:.4f} apart and other rows {others:.4f}: no distance tells them apart.")
    return Distances(copies, others, round((copies * others) ** 0.5, 4))


def unit(rows_ND: np.ndarray) -> np.ndarray:
    """Return rows of length one."""
    return np.asarray(rows_ND / np.linalg.norm(rows_ND, axis=1, keepdims=True))


# The cells


def played(
    path: Path,
    pools: Mapping[str, Stressed],
    asked: Mapping[str, Contender],
    plan: Plan,
    seeds: Iterable[int],
    l2: Mapping[str, Mapping[int, float]],
) -> Cells:
    """Play what is not there yet, seed by seed, so that a cut run has whole seeds; return all cells."""
    cells = known(path)
    with path.open("a") as out:
        for seed in seeds:
            for pool, stressed in pools.items():
                for name in asked:
                    if (pool, name, seed) in cells:
                        continue
                    cell = play(stressed, asked[name], seed, plan, l2[pool])
                    cell = {"pool": pool, "strategy": name, "seed": seed, **cell}
                    cells[pool, name, seed] = cell
                    out.write(json.dumps(cell) + "\n")
                    out.flush()
                    seconds, last = cell["seconds"], cell["accuracy"][-1]
                    print(f"{pool:10s} {name:22s} {seed} {seconds:7.1f} s  {last:.3f}", flush=True)
    return cells


def known(path: Path) -> dict[tuple[str, str, int], Cell]:
    """Return the cells that are there; a last line that was cut is taken out of the file."""
    text = path.read_text() if path.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole)
    cells = [json.loads(line) for line in whole.splitlines()]
    return {(cell["pool"], cell["strategy"], cell["seed"]): cell for cell in cells}


def play(stressed: Stressed, contender: Contender, seed: int, plan: Plan, l2: Mapping[int, float]) -> Cell:
    """Return what one strategy bought in one pool, and how good the head of each round is."""
    start, world = time.process_time(), stressed.world
    first = drawn(world, plan.initial, seed)
    answers, accuracy, filled = world.answers(first), list[float](), 0
    with world.resident() as resident:
        for round, size in enumerate(plan.sizes):
            head = world.fit(answers, l2[size])
            accuracy.append(world.accuracy(head))
            if round < plan.rounds:
                how: dict[str, Any] = {"budget": plan.budget, "seed": seed, "round": round + 1, "l2": l2[size]}
                found = pick(resident, contender.strategy, answers, head, config=contender.config, **how)
                if len(found.picks) < plan.budget:
                    sys.exit(f"{contender.strategy.name} found {len(found.picks)} rows to pick. Give more --rows.")
                filled += found.report["filled"]
                answers |= world.answers([str(i) for i in found.picks.ids])
    fair = even(world, answers, l2[plan.sizes[-1]])
    return {
        "initial": stressed.counts([], first),
        "bought": stressed.counts(first, set(answers) - set(first)),
        "filled": filled,
        "accuracy": accuracy,
        "recall": recalls(world, head),
        "even_recall": recalls(world, fair),
        "seconds": time.process_time() - start,
    }


def even(world: World, answers: Mapping[str, str], l2: float) -> Head:
    """Return the head of these labels to which every class weighs the same."""
    ids = sorted(i for i, label in answers.items() if label != JUNK)
    rows_MD = world.features_ND[[world.place[i] for i in ids]]
    config = HeadConfig(l2=l2, class_weights="balanced")
    return fit_head(config, rows_MD, [answers[i] for i in ids], world.classes, 0)


def recalls(world: World, head: Head) -> list[float]:
    """Return the share of each class's test rows that the head names."""
    right_T = world.predicted(head) == world.test_label_T
    return [float(right_T[world.test_label_T == name].mean()) for name in world.classes]


# The report


@dataclass(frozen=True)
class Column:
    """One number of a cell, as a table shows it: `spent` says that less of it is better."""

    name: str
    of: Callable[[Cell], float]
    spent: bool = True


class Table:
    """The cells of one pool, strategy by strategy, with random to be held against."""

    def __init__(self, cells: Cells, names: Sequence[str], pool: str, seeds: int) -> None:
        self.by = {name: [cells[pool, name, seed] for seed in range(seeds)] for name in names}

    def mean(self, name: str, of: Callable[[Cell], float]) -> float:
        return mean(map(of, self.by[name]))

    def against(self, name: str, of: Callable[[Cell], float]) -> list[float]:
        """Return each seed's difference to random."""
        return [of(a) - of(b) for a, b in zip(self.by[name], self.by["random"], strict=True)]

    def worse(self, name: str, column: Column) -> str:
        """Return a mark where a strategy is worse than random: ▲ in the mean, ▲▲ in every seed."""
        sign = 1 if column.spent else -1
        by_seed = [sign * d for d in self.against(name, column.of)]
        return "▲▲" if min(by_seed) > 0 else "▲" if mean(by_seed) > 0 else ""

    def ranked(self, column: Column) -> list[str]:
        """Return the strategies, the best first."""
        sign = 1 if column.spent else -1
        return sorted(self.by, key=lambda name: (sign * self.mean(name, column.of), name))


def bought(what: str, cell: Cell) -> float:
    """Return how many rows of a kind were bought after the initial labels."""
    return float(cell["bought"][what])


ACCURACY = Column("accuracy", lambda cell: cell["accuracy"][-1], spent=False)
RECALL = Column("recall", lambda cell: cell["recall"][-1], spent=False)
EVEN = Column("recall, even", lambda cell: cell["even_recall"][-1], spent=False)
HALF = Column("rarer half, even", lambda cell: mean(cell["even_recall"][len(cell["even_recall"]) // 2 :]), spent=False)
SPENT = {
    "junk": Column("junk", lambda cell: bought(MIXED_UP, cell) + bought(BLOWN_OUT, cell)),
    "jitter": Column("duplicates", partial(bought, "duplicates")),
    "noise": Column("wrong labels", partial(bought, WRONG)),
}


def report(
    tables: Mapping[str, Table],
    pools: Mapping[str, Stressed],
    plan: Plan,
    seeds: int,
    price: float,
    distances: Distances,
) -> str:
    """Return the tables and what they say."""
    seconds = sum(cell["seconds"] for table in tables.values() for own in table.by.values() for cell in own)
    return "\n\n".join(
        [
            "# Stress: junk, copies, wrong answers and a rare class",
            " ".join(setting(plan, seeds, price, distances, seconds)),
            *(spent_table(pool, tables[pool], plan, price) for pool in SPENT if pool in tables),
            *(tail_table(table, pools[pool]) for pool, table in tables.items() if pool == TAIL),
            accuracy_table(tables),
            "## What they say",
            "\n".join(f"- {line}" for line in said(tables, plan, price)) + "\n",
        ]
    )


def setting(plan: Plan, seeds: int, price: float, distances: Distances, seconds: float) -> Iterator[str]:
    """Yield sentences on what was played."""
    first, rounds = price * plan.initial, price * plan.bought
    yield f"{plan.rows} rows a pool, {seeds} seeds, {plan.initial} initial labels and {plan.rounds} rounds of"
    yield f"{plan.budget} at ${price:g} a label: ${first:.2f} and ${rounds:.2f} a run. Dollars are those of the rounds."
    yield "▲ marks what is worse than random in the mean, ▲▲ in every seed; differences are means over seeds"
    yield f"(least … most). `{RULE[1:]}` is {distances.chosen:g}: copies in `jitter` are at most {distances.copies:.4f}"
    yield f"apart, other rows at least {distances.others:.4f}, and it is their geometric mean. Other than by default:"
    yield "; ".join(f"`{name}` {json.dumps(settings)}" for name, settings in LIGHTER.items())
    yield f"(all cells took {seconds:.0f} s of the processor)."


def spent_table(pool: str, table: Table, plan: Plan, price: float) -> str:
    """Return what a pool's faults cost each strategy, the least first."""
    column = SPENT[pool]
    random = table.mean("random", column.of)
    columns = ["strategy", f"$ on {column.name}", "of the bought", "× random's"]
    kinds = {"of it mixed": MIXED_UP, "of it blown out": BLOWN_OUT} if pool == "junk" else {}
    rows = []
    for name in table.ranked(column):
        count = table.mean(name, column.of)
        own = [f"{price * table.mean(name, partial(bought, kind)):.2f}" for kind in kinds.values()]
        share = [f"{price * count:.2f}", f"{count / plan.bought:.1%}", f"{count / random:.2f}" if random else "–"]
        rows.append([name, *share, *own, difference(table, name, ACCURACY), table.worse(name, column)])
    paid = mean(column.of({"bought": cell["initial"]}) for cell in table.by["random"])
    note = f"The initial labels cost ${price * paid:.2f} more on {column.name}, alike for all; a blind draw would pay "
    note += f"${price * blind(pool, plan):.2f} in the rounds."
    return f"## `{pool}`: dollars on {column.name}\n\n{note}\n\n" + grid(
        [*columns, *kinds, "accuracy − random's", ""], rows
    )


def blind(pool: str, plan: Plan) -> float:
    """Return how many rows of a pool's fault a draw from the whole pool has in the rounds, on average."""
    if pool != COPIED:
        return plan.bought * {"junk": JUNK_SHARE, "noise": WRONG_SHARE}[pool]
    sources = plan.rows // COPIES

    def found(drawn: int) -> float:
        missed = [(COPIES * sources - drawn - k) / (COPIES * sources - k) for k in range(COPIES)]
        return sources * (1 - prod(missed))

    return plan.bought - (found(plan.initial + plan.bought) - found(plan.initial))


def tail_table(table: Table, stressed: Stressed) -> str:
    """Return what each strategy finds of the rarest class, the highest recall first."""
    there = int((stressed.world.label_N == stressed.rarest).sum())
    first = mean(cell["initial"]["rarest"] for cell in table.by["random"])
    shown = [RECALL, EVEN, HALF]
    rows = [
        [
            name,
            f"{table.mean(name, partial(bought, 'rarest')):.1f}",
            *(f"{table.mean(name, column.of):.3f}" for column in shown),
            difference(table, name, HALF),
            difference(table, name, ACCURACY),
            table.worse(name, HALF),
        ]
        for name in table.ranked(EVEN)
    ]
    after = ["rarer half − random's", "accuracy − random's", ""]
    text = (
        f"The pool has {there} rows of `{stressed.rarest}` among {len(stressed.world.ids)}; {first:.1f} of the initial "
    )
    text += "labels name it. Recall is of the last round's head and of one to which every class weighs the same (even)."
    columns = ["strategy", "bought", *(column.name for column in shown), *after]
    return f"## `{TAIL}`: recall of the rarest class\n\n{text}\n\n" + grid(columns, rows)


def accuracy_table(tables: Mapping[str, Table]) -> str:
    """Return the last accuracy in each pool, by the mean difference to random."""

    def gain(name: str) -> float:
        return mean(mean(table.against(name, ACCURACY.of)) for table in tables.values())

    names = sorted(next(iter(tables.values())).by, key=lambda name: (-gain(name), name))
    rows = []
    for name in names:
        shown = [
            f"{t.mean(name, ACCURACY.of):.3f} ({100 * mean(t.against(name, ACCURACY.of)):+.1f})"
            for t in tables.values()
        ]
        seconds = mean(table.mean(name, lambda cell: cell["seconds"]) for table in tables.values())
        rows.append([name, *shown, f"{100 * gain(name):+.1f}", f"{seconds:.1f}"])
    title = "## Accuracy at the end (points over random's)"
    return f"{title}\n\n" + grid(["strategy", *tables, "mean", "seconds a cell"], rows)


def difference(table: Table, name: str, column: Column) -> str:
    """Return the difference to random in points, with its least and most of all seeds."""
    by_seed = [100 * d for d in table.against(name, column.of)]
    return f"{mean(by_seed):+.1f} ({min(by_seed):+.1f} … {max(by_seed):+.1f})" if name != "random" else "–"


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def said(tables: Mapping[str, Table], plan: Plan, price: float) -> Iterator[str]:
    """Yield what can be read off the tables."""
    spent = {pool: column for pool, column in SPENT.items() if pool in tables}
    for pool in spent:
        yield spending(pool, tables[pool], plan, price)
    copied = tables[COPIED].by if COPIED in tables else {}
    for name in copied:
        if name.endswith(RULE) and name.removesuffix(RULE) in copied:
            yield with_rule(tables, name, price)
    if TAIL in tables:
        yield rarest(tables[TAIL])
    yield "Accuracy: " + "; ".join(scores_against(pool, table) for pool, table in tables.items()) + "."
    shown = ", ".join(f"{pool} {correlation(tables[pool], column):+.2f}" for pool, column in spent.items())
    if shown:
        yield f"Rank correlation, over strategies, of the dollars on a pool's fault with the last accuracy: {shown}."
    yield from filled_up(tables)


def rarest(table: Table) -> str:
    """Return who finds the rarest class."""
    most = sorted(table.by, key=lambda name: (-table.mean(name, partial(bought, "rarest")), name))
    found = [f"{name} {table.mean(name, partial(bought, 'rarest')):.1f}" for name in (*most[:3], most[-1], "random")]
    best = max(table.mean(name, RECALL.of) for name in table.by)
    order = [f"{name} {table.mean(name, EVEN.of):.3f}" for name in (*table.ranked(EVEN)[:3], "random")]
    half = [f"{name} {table.mean(name, HALF.of):.3f}" for name in (*table.ranked(HALF)[:3], "random")]
    below = [name for name in table.by if table.worse(name, HALF) == "▲▲"]
    return (
        f"Rarest class: rows bought {', '.join(found)}; recall at most {best:.3f}, of an even head {', '.join(order)}; "
        f"of the rarer half {', '.join(half)}, below random in every seed: {', '.join(below) or 'none'}."
    )


def scores_against(pool: str, table: Table) -> str:
    """Return how many strategies are better and worse than random in every seed of a pool, and the best."""
    others = [name for name in table.by if name != "random"]
    above = sum(min(table.against(name, ACCURACY.of)) > 0 for name in others)
    below = sum(max(table.against(name, ACCURACY.of)) < 0 for name in others)
    best = table.ranked(ACCURACY)[0]
    gain = 100 * mean(table.against(best, ACCURACY.of))
    counts = f"{above} of {len(others)} beat random in every seed and {below} lose"
    return f"in `{pool}` {counts}, the best is {best} ({gain:+.1f})"


def correlation(table: Table, column: Column) -> float:
    """Return Spearman's correlation of what is spent with the accuracy."""
    pairs = [(table.mean(name, column.of), table.mean(name, ACCURACY.of)) for name in table.by]
    return float(spearmanr(*zip(*pairs, strict=True)).statistic) if len(pairs) > 2 else float("nan")


def filled_up(tables: Mapping[str, Table]) -> Iterator[str]:
    """Yield who left how much of the budget to a random draw, where anybody did."""
    most = {
        name: max((table.mean(name, lambda cell: cell["filled"]), pool) for pool, table in tables.items())
        for name in next(iter(tables.values())).by
    }
    shown = [f"{name} {count:.0f} in `{pool}`" for name, (count, pool) in most.items() if count]
    if shown:
        yield f"Rows a run that a strategy left to a random draw, at most: {', '.join(shown)}."


def spending(pool: str, table: Table, plan: Plan, price: float) -> str:
    """Return who pays more than random for a pool's fault, and who the most and the least."""
    column = SPENT[pool]
    order = table.ranked(column)
    more = [name for name in order if table.worse(name, column) == "▲▲"]
    shown = [(name, table.mean(name, column.of)) for name in (order[0], "random", order[-1])]
    texts = [f"{name} ${price * count:.2f} ({count / plan.bought:.1%})" for name, count in shown]
    return (
        f"`{pool}`: on {column.name} the least, random and the most are {', '.join(texts)}; more than random in every "
        f"seed: {', '.join(more) or 'none'}."
    )


def with_rule(tables: Mapping[str, Table], name: str, price: float) -> str:
    """Return what the rule against near-duplicates changes for one strategy."""
    table, bare, column = tables[COPIED], name.removesuffix(RULE), SPENT[COPIED]
    cost = [price * table.mean(each, column.of) for each in (bare, name)]
    gain = 100 * (table.mean(name, ACCURACY.of) - table.mean(bare, ACCURACY.of))
    same = sum(
        a["bought"] == b["bought"] and a["accuracy"] == b["accuracy"]
        for pool, own in tables.items()
        if pool != COPIED
        for a, b in zip(own.by[bare], own.by[name], strict=True)
    )
    cells = sum(len(own.by[name]) for pool, own in tables.items() if pool != COPIED)
    return (
        f"`{name}`: duplicates cost ${cost[1]:.2f} and not ${cost[0]:.2f}, accuracy in `{COPIED}` {gain:+.1f} points; "
        f"in the other pools {same} of {cells} runs are as without the rule."
    )


if __name__ == "__main__":
    main()
