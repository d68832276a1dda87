"""What a switch costs against the best round that could have been chosen, and why aligning features helps.

    python tests/benchmarks/regimes.py WORK --config FILE --strategies margin --seeds 5 \\
        --way "never regime=asvp switch=off" --way "always regime=asvp switch=always" \\
        --way "at-100 regime=asvp switch.name=at switch.labels=100" … --way "logme regime=asvp switch=logme_ped"
    python tests/benchmarks/switch_regret.py WORK [--target ACC]

`never` and `logme` must be among the ways, with `training.when=every`, so that each round has the accuracy it would
deliver. Three tables. Regret: labels and dollars to the target, each seed's own, for every way; the best fixed way is
chosen after the fact. Crossing: on the labels of `never`, the first round in which fine-tuning beats LP-FT, against the
round in which the rule fired. Mechanism: of the rows that the strategy picked, the share that a network fine-tuned on
the labels before gets right already, in the same rounds with and without the update; what it knows is money lost.
Fine-tunes that the second and third table need are made here and kept in WORK/tuned.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from alray import reports, storage, training
from alray.campaign import Settings, opening, rounds
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import Round
from alray.labelling import read_labels
from alray.models.backbone import plain
from alray.pool import Pool
from alray.reports import savings
from alray.runtime import LocalRuntime
from alray.training import TrainSet, evaluate

BEFORE, AFTER = "never", "logme"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--target", type=float, help="accuracy; else the highest that every run reaches")
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs: dict[str, dict[int, str]] = defaultdict(dict)
    for folder in sorted((args.work / "runs").iterdir()):
        way, _, seed = folder.name.rsplit("-", 2)
        runs[way][int(seed)] = str(folder)
    found = {"regret": regret(runs, args.target)}
    tuned = {way: {seed: Tuned(run, args.work / "tuned") for seed, run in runs[way].items()} for way in (BEFORE, AFTER)}
    found |= {"crossing": crossing(tuned), "mechanism": mechanism(tuned)}
    storage.write_json(str(args.work / "regret.json"), found)


# Regret


def regret(runs: dict[str, dict[int, str]], target: float | None) -> dict[str, Any]:
    read = {way: {seed: reports.read(run) for seed, run in by_seed.items()} for way, by_seed in runs.items()}
    goal = target or min(run.curve.best for by_seed in read.values() for run in by_seed.values())
    needs = {way: {seed: savings.need(goal, run.curve) for seed, run in s.items()} for way, s in read.items()}
    prices = next(iter(read[BEFORE].values())).prices
    table = {
        way: {
            "labels": mean(need.labels for need in by_seed.values()),
            "dollars": mean(need.dollars(prices) for need in by_seed.values()),
            "compute": mean(need.compute_dollars(prices) for need in by_seed.values()),
            "by_seed": {seed: need.dollars(prices) for seed, need in by_seed.items()},
        }
        for way, by_seed in needs.items()
    }
    best = min((row["dollars"], way) for way, row in table.items() if way.startswith("at"))
    print(f"Regret: accuracy {goal:.4f}, mean of {len(runs[BEFORE])} seeds; best fixed: {best[1]}")
    print(f"{'way':12s} {'labels':>8s} {'compute $':>10s} {'dollars':>8s} {'regret $':>9s}")
    for way, row in sorted(table.items(), key=lambda item: item[1]["dollars"]):
        row["regret"] = row["dollars"] - best[0]
        print(f"{way:12s} {row['labels']:8.1f} {row['compute']:10.4f} {row['dollars']:8.3f} {row['regret']:9.3f}")
    return {"target": goal, "best_fixed": best[1], "ways": table}


# The two others stand on fine-tunes of every round's labels


class Tuned:
    """One run, and a network fine-tuned on the labels of each of its rounds."""

    def __init__(self, run: str, folder: Path) -> None:
        self.ledger, self.folder = Ledger(opening.home(run)), folder
        found = opening.latest(self.ledger)
        assert found is not None
        self.settings: Settings = found[1]
        self.rounds = rounds.closed(self.ledger)
        self.pool = Pool.open(self.settings.pool)
        self.runtime = LocalRuntime()
        self.truth = read_labels(self.settings.labeller.path).mapping()  # type: ignore[attr-defined]

    def network(self, round: Round) -> evaluate.Model:
        """Return the network that the campaign's fine-tuning makes of the round's training rows."""
        labels, held = round.labels().mapping(), self.settings.training.holdout
        train = {i: label for i, label in labels.items() if i in _train(labels, self.settings.seed, held)}
        made = training.run(
            self.settings.training.recipe.alignment(),
            TrainSet(self.pool, list(train), list(train.values()), round.head().classes),
            plain(self.settings.features),
            None,
            self.runtime,
            name=f"{self.ledger.name()}-{round.number:04d}",
            folder=str(self.folder),
            seed=self.settings.seed,
        )
        assert made.checkpoint is not None
        return evaluate.Model.of_checkpoint(made.checkpoint)

    def accuracy(self, round: Round) -> float:
        """Return the network's accuracy on the test rows."""
        assert self.settings.test is not None
        labels = read_labels(self.settings.test.labels).mapping()
        test = Pool.open(self.settings.test.path)
        ids = [str(i) for shard in test.shards for i in shard.ids()]
        rows = TrainSet(test, ids, [labels[i] for i in ids], round.head().classes)
        return float(evaluate.accuracy(self.network(round), rows, self.runtime)["accuracy"])

    def known(self, round: Round) -> float:
        """Return the share of the round's strategy picks that the network of the round before gets right."""
        picks = round.picks()
        ids = [str(i) for i, why in zip(picks.ids, picks.reasons, strict=True) if why == "strategy"]
        rows = TrainSet(self.pool, ids, [self.truth[i] for i in ids], round.head().classes)
        model = self.network(self.rounds[round.number - 1])
        return float(evaluate.accuracy(model, rows, self.runtime)["accuracy"])


def _train(labels: dict[str, str], seed: int, share: float) -> set[str]:
    from alray.campaign.splits import split

    return set(split(labels, seed, share).train)


def crossing(tuned: dict[str, dict[int, Tuned]]) -> dict[str, Any]:
    print("\nCrossing: labels at which fine-tuning first beats LP-FT (on never's labels), and at which the rule fired")
    out = {}
    for seed, run in tuned[BEFORE].items():
        fine = [run.accuracy(round) for round in run.rounds]
        lp_ft = [round.json(rounds.RECORD)["accuracy"] for round in run.rounds]
        labels = [len(round.labels()) for round in run.rounds]
        first = next((n for n, a, b in zip(labels, fine, lp_ft, strict=True) if a > b), None)
        fired = [len(r.labels()) for r in tuned[AFTER][seed].rounds if r.json(rounds.SWITCH)["fire"]]
        out[seed] = {"labels": labels, "fine_tune": fine, "lp_ft": lp_ft, "first": first, "fired": fired}
        print(f"seed {seed}: first {first}, fired {fired}; FT − LP-FT", end=" ")
        print(" ".join(f"{a - b:+.3f}" for a, b in zip(fine, lp_ft, strict=True)), flush=True)
    return out


def mechanism(tuned: dict[str, dict[int, Tuned]]) -> dict[str, Any]:
    """Compare the same rounds of the same seeds: a later network knows more of any picks."""
    print("\nMechanism: share of the proxy's picks that a fine-tuned network gets right already, in the same rounds")
    shares = {way: {seed: known(run) for seed, run in by_seed.items()} for way, by_seed in tuned.items()}
    sides: dict[str, list[tuple[float, float]]] = {"before": [], "after": []}
    for seed, run in tuned[AFTER].items():
        updated = [r.number for r in run.rounds if r.has(rounds.ALIGNED) and r.json(rounds.ALIGNED)["accepted"]]
        for number, share in shares[AFTER][seed].items():
            side = "after" if updated and number > updated[0] else "before"
            sides[side].append((shares[BEFORE][seed][number], share))
    for side, pairs in sides.items():
        if pairs:
            old, new = (mean(pair[i] for pair in pairs) for i in (0, 1))
            fewer = sum(b < a for a, b in pairs)
            print(f"{side:7s} the update, {len(pairs)} rounds: {BEFORE} {old:.3f}, {AFTER} {new:.3f}; lower in {fewer}")
    return {"shares": shares, "pairs": sides}


def known(run: Tuned) -> dict[int, float]:
    """Return the share of every round but the first."""
    return {round.number: run.known(round) for round in run.rounds[1:]}


if __name__ == "__main__":
    main()
