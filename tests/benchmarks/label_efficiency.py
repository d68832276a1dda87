"""Which strategy needs fewer labels: accuracy by round, and the win matrix, on digits and on CIFAR-10's features.

    python tests/benchmarks/label_efficiency.py WORK [FEATURES] [--seeds 5] [--rounds 10] [--strategies a,b]

FEATURES is a folder like `cifar10/features512`; without it, digits alone. All strategies of a seed begin with the same
labels, drawn at random, and have the same head: multinomial regression with the l2 that is best for that many random
labels (`replay.tuned`). The GCN looks at 2,000 rows of its own (10,000 in its paper). WORK keeps one line for each
strategy and seed (`curves.jsonl`); run it again to go on. It writes `efficiency.md` (accuracy by labels, paired
differences to random with 95 % intervals, labels for random's last accuracy, the win matrix with both conventions),
`wins.svg` and `curves.svg` (matplotlib, in the extra `bench`).

The win matrix counts a round when paired t over the seeds is significant at 5 %, as the papers do: ddof 1 is the test
at its level, ddof 0 the convention of the published code, which is 6.8 % at five seeds. At eleven strategies and two
data sets many cells are tested: read rows and columns, not single cells.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import replay
from replay import World
from scipy import stats

from alray.reports import beaten, win_matrix
from alray.selection.resident_pool import ResidentPool
from alray.strategies import find

STRATEGIES = {
    "random": {},
    "entropy": {},
    "margin": {},
    "bald": {},
    "coreset": {},
    "badge": {},
    "cdal": {},
    "deepfool": {},
    "core_gcn": {"subset": 2000},
    "isal": {},
    "alfa_mix": {},
    "diverse": {"base": "margin"},
}
"""The eleven that the papers compare, and margin thinned out by k-means, which none of them has."""

ROUNDS = {"digits": (20, 20), "cifar10": (200, 200)}
"""Of each data set: first labels, and labels of a round."""


@dataclass(frozen=True)
class Curve:
    """Accuracy after each round by one strategy with one seed, and the seconds that its selections took."""

    data: str
    strategy: str
    seed: int
    accuracy_R: tuple[float, ...]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("features", type=Path, nargs="?")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    args = parser.parse_args()
    replay.one_thread()
    names = args.strategies.split(",")
    worlds = [replay.digits(args.work / "worlds")]
    worlds += [replay.cifar(args.work / "worlds", args.features)] if args.features else []
    log = args.work / "curves.jsonl"
    for world in worlds:
        fill(world, names, args, log)
    wanted = {(world.name, name, seed) for world in worlds for name in names for seed in range(args.seeds)}
    curves = [curve for key, curve in read(log, args.rounds).items() if key in wanted]
    text = "\n\n".join(page(curves, world.name, names, args.rounds) for world in worlds)
    text += "\n\n" + wins_page(args.work, [matrix(curves, world.name, names) for world in worlds])
    (args.work / "efficiency.md").write_text(text + "\n")
    draw_curves(args.work / "curves.svg", curves, [world.name for world in worlds], names)
    print(text)


# Playing


def fill(world: World, names: Sequence[str], args: argparse.Namespace, log: Path) -> None:
    """Play every strategy and seed that the log has not."""
    first, budget = ROUNDS[world.name]
    l2s = replay.tuned(world, [first + budget * n for n in range(args.rounds + 1)], log.parent / "worlds")
    done = read(log, args.rounds)
    with world.resident() as resident:
        for seed in range(args.seeds):
            for name in names:
                if (world.name, name, seed) not in done:
                    curve = play(world, resident, name, seed, l2s, args.rounds)
                    with log.open("a") as file:
                        file.write(json.dumps(vars(curve)) + "\n")
                    print(f"{world.name} {name} {seed}: {curve.accuracy_R[-1]:.4f}, {curve.seconds:.1f} s", flush=True)


def play(world: World, pool: ResidentPool, name: str, seed: int, l2s: Mapping[int, float], rounds: int) -> Curve:
    """Return one strategy's curve."""
    first, budget = ROUNDS[world.name]
    strategy, spent = find({"name": name, **STRATEGIES.get(name, {})}), 0.0
    known = world.answers(replay.drawn(world, first, seed))
    head = world.fit(known, l2s[first])
    accuracy = [world.accuracy(head)]
    for n in range(1, rounds + 1):
        start = time.perf_counter()
        l2 = l2s[len(known)]
        found = replay.pick(pool, strategy, known, head, budget=budget, seed=seed, round=n, l2=l2)
        spent += time.perf_counter() - start
        known = {**known, **world.answers(found.picks.ids.tolist())}
        assert len(known) == first + n * budget, "every round buys a whole batch of new rows"
        head = world.fit(known, l2s[len(known)])
        accuracy.append(world.accuracy(head))
    return Curve(world.name, name, seed, tuple(accuracy), round(spent, 2))


def read(log: Path, rounds: int) -> dict[tuple[str, str, int], Curve]:
    """Return the curves of this many rounds that the log has."""
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    curves = [Curve(**{**line, "accuracy_R": tuple(line["accuracy_R"])}) for line in lines]
    return {(c.data, c.strategy, c.seed): c for c in curves if len(c.accuracy_R) == rounds + 1}


# Reading


def matrix(curves: Sequence[Curve], data: str, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return each strategy's accuracies in one data set, [rounds + 1, seeds]."""
    found: dict[str, np.ndarray] = {}
    for name in names:
        own = sorted((c for c in curves if c.data == data and c.strategy == name), key=lambda c: c.seed)
        found[name] = np.array([c.accuracy_R for c in own]).T
    return found


def interval(difference_S: np.ndarray) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % t-interval."""
    count = len(difference_S)
    half = stats.t.ppf(0.975, count - 1) * difference_S.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
    return float(difference_S.mean()), float(half)


def page(curves: Sequence[Curve], data: str, names: Sequence[str], rounds: int) -> str:
    """Return a data set's table, the strategy with the most area under its curve first."""
    first, budget = ROUNDS[data]
    cells = matrix(curves, data, names)
    shown = sorted({1, 2, 4, rounds // 2, rounds} & set(range(1, rounds + 1)))
    head = ["strategy", *(f"{first + budget * n}" for n in shown), "mean of rounds − random", "at the end − random"]
    head += ["labels for random's last accuracy", "seconds a round"]
    lines = [f"### {data}", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name in sorted(names, key=lambda name: -cells[name][1:].mean()):
        scores_RS, base_RS = cells[name], cells["random"]
        row = [name, *(f"{100 * scores_RS[n].mean():.1f}" for n in shown)]
        for difference_S in ((scores_RS - base_RS)[1:].mean(axis=0), (scores_RS - base_RS)[-1]):
            middle, half = interval(100 * difference_S)
            row.append("–" if name == "random" else f"{middle:+.2f} ± {half:.2f}{'*' if abs(middle) > half else ''}")
        row.append(labels_for(scores_RS.mean(axis=1), float(base_RS[-1].mean()), first, budget))
        seconds = [c.seconds / rounds for c in curves if c.data == data and c.strategy == name]
        lines.append("| " + " | ".join([*row, f"{np.median(seconds):.2f}"]) + " |")
    seeds = cells["random"].shape[1]
    return "\n".join(
        [*lines, "", f"{seeds} seeds; in points, ± half of the 95 % interval over seeds, * zero is outside."]
    )


def labels_for(mean_R: np.ndarray, target: float, first: int, budget: int) -> str:
    """Return the labels at which the isotonic mean curve first meets the target, on the line between two rounds."""
    rising_R = np.maximum.accumulate(mean_R)
    if rising_R[-1] < target:
        return f"> {first + budget * (len(mean_R) - 1)}"
    n = int(np.argmax(rising_R >= target))
    if n == 0:
        return str(first)
    part = (target - rising_R[n - 1]) / (rising_R[n] - rising_R[n - 1])
    return f"{first + budget * (n - 1 + part):.0f}"


def wins_page(work: Path, settings: Sequence[Mapping[str, np.ndarray]]) -> str:
    """Return the win matrices as tables, and draw them; the first round, drawn at random for all, is left out."""
    parts = []
    cells = [{name: scores_RS[1:] for name, scores_RS in setting.items()} for setting in settings]
    for ddof in (1, 0):
        names, wins_KK = win_matrix(cells, ddof=ddof)
        order = np.argsort(beaten(wins_KK), kind="stable")
        names, wins_KK = [names[k] for k in order], wins_KK[np.ix_(order, order)]
        title = f"Wins of the row over the column, ddof {ddof}, at most {len(settings)} a cell"
        lines = [f"### {title}", "", "| | " + " | ".join(names) + " | wins |", "|" + "---|" * (len(names) + 2)]
        lines += [
            f"| {name} | " + " | ".join(f"{wins:.1f}" if k != n else "" for k, wins in enumerate(wins_KK[n]))
            + f" | {wins_KK[n].sum():.1f} |"
            for n, name in enumerate(names)
        ]  # fmt: skip
        lines.append("| **is beaten** | " + " | ".join(f"**{share:.2f}**" for share in beaten(wins_KK)) + " | |")
        parts.append("\n".join(lines))
        if ddof == 1:
            draw_wins(work / "wins.svg", names, wins_KK, title, len(settings))
    return "\n\n".join(parts)


# Drawing


def draw_wins(path: Path, names: Sequence[str], wins_KK: np.ndarray, title: str, most: int) -> None:
    """Draw the win matrix, with how often each is beaten below it."""
    import matplotlib.pyplot as plt

    shown_KK = np.vstack([wins_KK, beaten(wins_KK)])
    figure, axes = plt.subplots(figsize=(8, 8), layout="constrained")
    axes.imshow(shown_KK, cmap="Blues", vmin=0, vmax=1.4 * most)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names) + 1), [*names, "is beaten"])
    axes.axhline(len(names) - 0.5, color="black")
    for (row, column), value in np.ndenumerate(shown_KK):
        if row != column:
            axes.text(column, row, f"{value:.2f}" if row == len(names) else f"{value:.1f}", ha="center", va="center")
    axes.set_title(title)
    figure.savefig(path)


def draw_curves(path: Path, curves: Sequence[Curve], datas: Sequence[str], names: Sequence[str]) -> None:
    """Draw for each data set the mean accuracy less random's, in points, by labels."""
    import matplotlib.pyplot as plt

    figure, plots = plt.subplots(1, len(datas), figsize=(7 * len(datas), 4.5), layout="constrained", squeeze=False)
    colours = plt.colormaps["tab20"]
    for axes, data in zip(plots[0], datas, strict=True):
        cells, (first, budget) = matrix(curves, data, names), ROUNDS[data]
        for name in sorted(names, key=lambda name: -cells[name][-1].mean()):
            mean_R = 100 * (cells[name] - cells["random"]).mean(axis=1)
            labels_R = first + budget * np.arange(len(mean_R))
            axes.plot(labels_R, mean_R, label=name, color=colours(list(names).index(name) % 20), marker=".")
        axes.set(title=data, xlabel="labels", ylabel="accuracy less random's, points")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
