"""Regimes × strategies × seeds, one process a campaign, and the report on all of them. Run it again to go on.

    python tests/benchmarks/regimes.py WORK --config configs/quickstart.yaml --seeds 5
    python tests/benchmarks/regimes.py WORK --config configs/cifar10.yaml --pool CIFAR --rows 5000 --tests 2000 \\
        --way "standard regime=standard" --way "svpp regime=svpp" \\
        --way "asvp regime=asvp switch=logme_ped budget.control=0.2" key=value …

WORK keeps everything: `data/` (digits, or the first rows of CIFAR's pool and test files), `shared/` (the pre-trained
backbone, made once before any campaign), `features/` (a folder for each campaign), `settings/`, `logs/`, `runs/`, and
at the end `report.md`, `report.json` and `report.csv`. A campaign that is done with the same settings is skipped, one
that was cut is resumed. A way is a name and the settings that make it; words after the options are settings of all.

Runs of `random` go to twice the budget, so that savings can be read without extending a curve. Each point of a curve
has to be what is delivered there: give `training.when=every`. Every campaign embeds the pool for itself, so that its
hours have all that it needs; only the pre-training is in no campaign's, and what it took is said below the tables. For
hours that are to be reported use `--jobs 1` on a machine that does nothing else; else `--nice 10` lets others go first.

Each campaign is a process that imports alray anew: run a grid from a checkout that does not change meanwhile (`git
worktree add`), or its campaigns are not of one code.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import alray
from alray import config, reports, storage
from alray.campaign import Settings, opening
from alray.campaign.ledger import Ledger
from alray.models.backbone import plain
from alray.pool import Pool, digits
from alray.runtime import open_runtime
from alray.training.pretrain import pretrain

WAYS = ("standard regime=standard", "svpp regime=svpp", "asvp regime=asvp switch=logme_ped budget.control=0.2")
STRATEGIES = "random,margin,alfa_mix"
ONE = "import sys, alray; alray.run(alray.load(sys.argv[1]))"
"""What each campaign's process runs, so that one way of starting serves every runtime."""


@dataclass(frozen=True)
class Campaign:
    """One cell of the grid: its name, and the settings it is to be run with."""

    name: str
    settings: Settings

    def done(self) -> bool:
        """Say whether it was run to its end with these settings."""
        ledger = Ledger(opening.home(self.settings.run))
        found = opening.latest(ledger) if ledger.has("run.json") else None
        return found is not None and found[1] == self.settings and alray.status(self.settings.run).state == "done"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that campaigns are stopped too
    args = parse()
    work: Path = args.work.resolve()
    data = write_data(work / "data", args.pool, args.rows, args.tests)
    shared = common(args, data)
    prepared = prepare(work / "shared", args.config, shared)
    campaigns = list(grid(args, work, [*shared, *prepared["words"]]))
    failed = run_all(work, campaigns, args)
    finish(work, [c for c in campaigns if c.name not in failed], args.target, prepared)
    if failed:
        sys.exit(f"{len(failed)} of {len(campaigns)} campaigns failed: {', '.join(failed)}. See {work}/logs.")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("words", nargs="*", metavar="key=value", help="settings of every campaign")
    parser.add_argument("--config", required=True, help="YAML that every campaign begins with")
    parser.add_argument("--pool", type=Path, help="folder of pool-*.parquet, test.parquet, oracle.parquet; else digits")
    parser.add_argument("--rows", type=int, help="first rows of the pool to use; else all")
    parser.add_argument("--tests", type=int, help="first test rows to use; else all")
    parser.add_argument("--way", action="append", dest="ways", metavar='"NAME key=value …"', help=f"else {WAYS}")
    parser.add_argument("--strategies", default=STRATEGIES)
    parser.add_argument("--random-ways", help="names of the ways that random is run in; else all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="campaigns at a time")
    parser.add_argument("--threads", type=int, default=1, help="OMP_NUM_THREADS of each")
    parser.add_argument("--nice", type=int, default=0, help="how far each gives way to other processes, 0 to 19")
    parser.add_argument("--runtime", default="local", choices=["local", "ray"])
    parser.add_argument("--target", type=float, help="accuracy of the report; else the highest that all reach")
    return parser.parse_intermixed_args()


# What all campaigns share


def write_data(folder: Path, pool: Path | None, rows: int | None, tests: int | None) -> Path:
    """Write pool, test and oracle files once; refuse a folder that was written from other rows."""
    asked = {"pool": str(pool.resolve()) if pool else "digits", "rows": rows, "tests": tests}
    note = folder / "data.json"
    if note.exists():
        if json.loads(note.read_text()) != asked:
            sys.exit(f"{folder} holds {note.read_text().strip()}, and {asked} is asked for. Give another WORK.")
        return folder
    source = pool
    if source is None:
        digits.write(str(folder / "digits"))
        source = folder / "digits"
    chosen = first(sorted(source.glob("pool*.parquet")), rows)
    ids = set(chosen["id"].to_pylist())
    oracle = pq.read_table(source / "oracle.parquet")
    oracle = oracle.filter(pa.array([i in ids for i in oracle["id"].to_pylist()]))
    tables = {"oracle": oracle, "test": first([source / "test.parquet"], tests), "pool": chosen}
    for name, table in tables.items():
        storage.write_parquet(str(folder / f"{name}.parquet"), table)
    storage.write_json(str(note), asked)
    return folder


def first(files: Sequence[Path], rows: int | None) -> pa.Table:
    """Return the first rows of these files; stop if there are fewer."""
    found: list[pa.Table] = []
    for file in files:
        if rows is None or sum(map(len, found)) < rows:
            found.append(pq.read_table(file))
    if not found or (rows is not None and sum(map(len, found)) < rows):
        sys.exit(f"{[str(f) for f in files]} have {sum(map(len, found))} rows, fewer than the {rows} asked for.")
    return pa.concat_tables(found).slice(0, rows)


def common(args: argparse.Namespace, data: Path) -> list[str]:
    """Return the settings of every campaign, as words; the user's come last and win, but for where features are."""
    test = {"path": f"{data}/test.parquet", "labels": f"{data}/test.parquet"}
    return [
        f"pool.path={data}/pool.parquet",
        f"test={json.dumps(test)}",
        f"labeller={json.dumps({'name': 'oracle', 'path': f'{data}/oracle.parquet'})}",
        f"runtime.name={args.runtime}",
        *args.words,
    ]


def prepare(folder: Path, base: str, words: Sequence[str]) -> dict[str, Any]:
    """Pre-train the backbone where `pretrain` is set, once for all campaigns.

    Returns the words that make every campaign start from that backbone, and the seconds that it took.
    """
    settings = config.load(base, [f"features.path={folder}", *words, f"run={folder}/none"], Settings)
    if settings.pretrain is None:
        return {"words": [], "seconds": {}}
    note = folder / "prepared.json"
    key = {"features": settings.features.model_dump(), "pretrain": settings.pretrain.model_dump()}
    if note.exists() and (found := json.loads(note.read_text()))["key"] == key:
        return dict(found)
    own = settings.pretrain.beside(settings.features.path)
    with open_runtime(settings.runtime) as runtime:
        pool, start = Pool.open(settings.pool), time.perf_counter()
        made = pretrain(own, pool, plain(settings.features), runtime, seed=settings.seed)
        seconds = {"pre-training": time.perf_counter() - start}
    prepared = {"key": key, "words": ["pretrain=null", f"features.weights={made.checkpoint}"], "seconds": seconds}
    storage.write_json(str(note), prepared)
    return prepared


# The grid


def grid(args: argparse.Namespace, work: Path, words: Sequence[str]) -> Iterator[Campaign]:
    """Yield all campaigns, seed by seed, so that a cut grid has whole seeds."""
    ways = {name: own for name, *own in map(shlex.split, args.ways or WAYS)}
    with_random = set(args.random_ways.split(",")) if args.random_ways else set(ways)
    if unknown := with_random - set(ways):
        sys.exit(f"--random-ways names {', '.join(sorted(unknown))}; the ways are {', '.join(ways)}.")
    for seed in range(args.seeds):
        for way, own in ways.items():
            for strategy in args.strategies.split(","):
                if strategy == "random" and way not in with_random:
                    continue
                name = f"{way}-{strategy}-{seed}"
                mine = [f"strategy.name={strategy}", f"seed={seed}", f"run={work}/runs/{name}"]
                told = [*words, *own, *mine, f"features.path={work}/features/{name}"]
                yield Campaign(name, doubled(config.load(args.config, told, Settings), strategy))


def doubled(settings: Settings, strategy: str) -> Settings:
    """Return the settings with twice the budget for random: beyond its curve no saving is defined."""
    total = settings.budget.total
    if total is None:
        sys.exit("The budget has no `total`: give `budget.total`, so that every campaign has the same budgets.")
    if strategy != "random":
        return settings
    return settings.model_copy(update={"budget": settings.budget.model_copy(update={"total": 2 * total})})


# Running


def run_all(work: Path, campaigns: Sequence[Campaign], args: argparse.Namespace) -> list[str]:
    """Run what is not done, at most `args.jobs` at a time; return the names of those that failed."""
    todo = [c for c in campaigns if not c.done()]
    print(f"{len(campaigns)} campaigns, {len(campaigns) - len(todo)} done before", flush=True)
    waiting, failed = [*reversed(todo)], list[str]()
    running: dict[subprocess.Popen[bytes], tuple[Campaign, float]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < args.jobs:
                campaign = waiting.pop()
                running[start(work, campaign, args.threads, args.nice)] = campaign, time.monotonic()
            time.sleep(0.2)
            for process in [p for p in running if p.poll() is not None]:
                campaign, since = running.pop(process)
                if process.returncode:
                    failed.append(campaign.name)
                ended = "FAILED" if process.returncode else ending(campaign)
                print(f"{campaign.name:32s} {time.monotonic() - since:8.1f} s  {ended}", flush=True)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    return failed


def start(work: Path, campaign: Campaign, threads: int, nice: int) -> subprocess.Popen[bytes]:
    """Start one campaign in a process of its own; what it says goes to its log."""
    told = work / f"settings/{campaign.name}.yaml"
    storage.write_bytes(str(told), config.dump(campaign.settings).encode())
    log = work / f"logs/{campaign.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    command = ["nice", "-n", str(nice), sys.executable, "-c", ONE, str(told)]
    with log.open("ab") as out:
        return subprocess.Popen(command[3:] if not nice else command, stdout=out, stderr=out, env=env)


def ending(campaign: Campaign) -> str:
    """Return one line on how a campaign ended."""
    status = alray.status(campaign.settings.run)
    accuracy = [f"{a:.3f}" for a in status.accuracy if a is not None]
    return f"{status.state}, {status.labels} labels, accuracy {' '.join(accuracy)}"


# The report


def finish(work: Path, campaigns: Sequence[Campaign], target: float | None, prepared: dict[str, Any]) -> None:
    """Write the report on the campaigns that are done, and print its tables."""
    if not campaigns:
        return
    found = reports.report(reports.group([reports.read(c.settings.run) for c in campaigns]), target=target)
    took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in prepared["seconds"].items())
    text = reports.markdown(found)
    if took:
        text += f"\nMade once for all campaigns, and in no hours and no interval above: {took}.\n"
    storage.write_bytes(str(work / "report.md"), text.encode())
    storage.write_bytes(str(work / "report.csv"), reports.to_csv(found).encode())
    storage.write_json(str(work / "report.json"), found.to_dict())
    print(text)


if __name__ == "__main__":
    main()
