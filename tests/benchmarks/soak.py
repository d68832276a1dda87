"""Campaigns on Ray whose workers and drivers are killed at random moments: is any label lost, or paid twice?

    python tests/benchmarks/soak.py FOLDER [--actors 150] [--training 20] [--drivers 20] [--minutes 90] [--seed 0]

Campaigns of several strategies are run one after the other, as processes (`alray run`), until so many shard actors,
training workers and drivers have died of SIGKILL, or the minutes are up; a killed driver's command is started again.
Each campaign's ledger must be that of an undisturbed one: on the local runtime, and where a network is trained on two
workers, on Ray. The first fault ends the soak, and what is known of it is kept in FOLDER/cNNN. FOLDER/campaigns.jsonl
has a line for each campaign that has ended; the same command goes on after the last. FOLDER/summary.json and .md have
the sums.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))
import campaigns
import driving
import killer
from driving import Driver
from killer import DRIVER, Kill, Killer

from alray.campaign.ledger import Ledger
from alray.errors import AlrayError
from alray.pool import digits

TESTS = Path(__file__).parents[1]

WHO = (*killer.KINDS, DRIVER)

PATIENCE_S = 180.0
"""A campaign that commits nothing for so long hangs. Its longest stage takes a tenth of that on a quiet machine."""

PAUSES = {"actor": (0.5, 4.0), "training": (0.5, 8.0)}
"""Seconds between two kills of a kind, from … to."""

LIFE_S = 20.0
"""About as long as a driver lives, where no undisturbed one was timed."""

NO_END = 10_000
"""More losses than any campaign here has: what ends one must be its budget, and never the number of its losses."""

POLL_S, SURVEY_S = 0.05, 0.5
STEPS = ("costs", "configs", "lease.json", "state.json")
"""Files of a run that are written whether or not work goes forward."""


@dataclass(frozen=True)
class Subject:
    """A kind of campaign: its settings, and the most processes of each kind that are killed in one."""

    name: str
    settings: Callable[[Path, Path, int], dict[str, Any]]
    quota: dict[str, int]
    trains: bool = False  # on two workers, who normalise a batch in halves: another network than the local one's
    undisturbed: tuple[str, ...] = ("local", "ray")  # runtimes


def clouds(strategy: str, **selection: str) -> Callable[[Path, Path, int], dict[str, Any]]:
    """Return the settings of eight rounds on 200,000 rows in 25 shards."""

    def settings(data: Path, folder: Path, seed: int) -> dict[str, Any]:
        return {
            "run": str(folder / "run"),
            "seed": seed,
            "pool": {"path": str(data / "clouds/pool.parquet"), "rows_per_shard": 8192},
            "strategy": strategy,
            "selection": selection,
            "budget": {"initial": 30, "per_round": 20, "total": 170},
            "labeller": {"name": "oracle", "path": str(data / "clouds/oracle.parquet")},
            "costs": {"label": 0.1, "cpu_hour": 1.0},
        }

    return settings


def pictures(rounds: int, when: str = "every", **more: Any) -> Callable[[Path, Path, int], dict[str, Any]]:
    """Return the settings of rounds on digits, `every` or the `last` of which trains a network on two workers."""

    def settings(data: Path, folder: Path, seed: int) -> dict[str, Any]:
        where = data / "digits"
        return {
            "run": str(folder / "run"),
            "seed": seed,
            "pool": {"path": str(where / "pool.parquet"), "rows_per_shard": 256},
            "test": {"path": str(where / "test.parquet"), "labels": str(where / "test.parquet")},
            "features": {"backbone": "small_backbone:make", "image_size": 8, "path": str(folder / "features")},
            "strategy": "alfa_mix",
            "selection": {"regime": "coreset"},
            "budget": {"initial": 20, "per_round": 10, "total": 10 * rounds + 10},
            "labeller": {"name": "oracle", "path": str(where / "oracle.parquet")},
            "costs": {"label": 0.1, "cpu_hour": 1.0},
            "training": {"when": when, "recipe": {"name": "fine_tune", "epochs": 4, "max_failures": NO_END}},
            **more,
        }

    return settings


SCANNED = {"actor": 20, DRIVER: 2}
TRAINED = {"actor": 4, "training": 5, DRIVER: 2}
SUBJECTS = [
    Subject("fine_tune", pictures(3), TRAINED, trains=True),
    Subject("alfa_mix", clouds("alfa_mix", regime="coreset"), SCANNED),
    Subject("badge", clouds("badge"), SCANNED),
    Subject("standard", pictures(2, regime="standard"), TRAINED, trains=True, undisturbed=("ray",)),
    Subject("margin", clouds("margin"), SCANNED),
    Subject("coreset", clouds("coreset"), SCANNED),
]


@dataclass
class Ended:
    """What came of one campaign."""

    number: int
    subject: str
    seed: int
    seconds: float
    quiet_s: float | None  # of the undisturbed one, on Ray
    kills: list[dict[str, Any]] = field(default_factory=list)
    lost: int = 0
    twice: int = 0
    hung: int = 0
    digests: str = ""
    faults: list[str] = field(default_factory=list)


class Hung(Exception):
    """Nothing was committed for too long."""


class Soak:
    """Campaigns in a folder, one after the other."""

    def __init__(self, folder: Path, wanted: dict[str, int], *, minutes: float, seed: int = 0) -> None:
        self.folder, self.wanted, self.seed = folder, dict.fromkeys(WHO, 0) | wanted, seed
        self.until = time.monotonic() + 60 * minutes
        self.patience_s, self.pauses, self.subjects, self.life_s = PATIENCE_S, PAUSES, SUBJECTS, LIFE_S
        self.ended = [Ended(**json.loads(line)) for line in self._lines()]
        self._dead: list[Driver] = []  # of the last campaign

    def run(self) -> bool:
        """Run campaigns until enough was killed; return whether it was, and nothing went wrong."""
        write_data(self.folder / "data")
        for subject in self._turns():
            one = self.campaign(len(self.ended), subject)
            self.ended.append(one)
            with (self.folder / "campaigns.jsonl").open("a") as out:
                out.write(json.dumps(asdict(one)) + "\n")
            self.tell()
            if one.faults:
                return False
        return not any(self.missing().values())

    def close(self) -> None:
        """Wait for the end of the last campaign's agents too."""
        self._bury(self._dead)

    def missing(self) -> dict[str, int]:
        """Return how many kills of each kind there still have to be."""
        made = Counter(kill["kind"] for one in self.ended for kill in one.kills)
        return {kind: max(0, count - made[kind]) for kind, count in self.wanted.items()}

    def tell(self) -> None:
        """Print the sums so far, and keep them."""
        text = table(self.ended)
        (self.folder / "summary.md").write_text(text)
        (self.folder / "summary.json").write_text(json.dumps(sums(self.ended), indent=1))
        print(f"\n{text}\nstill to be killed: {self.missing()}", flush=True)

    def _lines(self) -> list[str]:
        file = self.folder / "campaigns.jsonl"
        return file.read_text().splitlines() if file.exists() else []

    def _turns(self) -> Iterator[Subject]:
        """Yield subjects in turn, those in which much of what is missing can be killed."""
        for subject in itertools.cycle(self.subjects):
            most = max(map(self._worth, self.subjects))
            if not most or time.monotonic() > self.until:
                return
            if self._worth(subject) >= most / 2:
                yield subject

    def _worth(self, subject: Subject) -> float:
        missing = self.missing()
        return sum(min(most, missing[kind]) / max(1, self.wanted[kind]) for kind, most in subject.quota.items())

    # One campaign

    def campaign(self, number: int, subject: Subject) -> Ended:
        """Run one campaign to its end, whatever is killed, and hold its ledger against the undisturbed one's."""
        seed = self.seed if subject.trains else self.seed + number
        quiet = self.undisturbed(subject, seed)
        folder = fresh(self.folder / f"c{number:03d}")
        command = self._command(subject, folder, seed, "ray")
        missing = self.missing()
        quota = {kind: min(most, missing[kind]) for kind, most in subject.quota.items()}
        hunter = Killer(folder / "run", quota, self.pauses, f"{self.seed}/{number}")
        one = Ended(number, subject.name, seed, 0.0, quiet["seconds"])
        began, results = time.monotonic(), set[float]()
        try:
            self._lives(command, folder, hunter, quiet["seconds"] or self.life_s, results)
            self._judge(one, folder / "run", quiet, trains=subject.trains)
        except Hung as fault:
            one.hung = 1
            one.faults.append(str(fault))
        except AssertionError as fault:
            one.faults.append(str(fault))
        one.seconds = round(time.monotonic() - began, 1)
        one.kills = [{**asdict(kill), "result_s": after(kill, results)} for kill in hunter.kills]
        if not one.faults:
            shutil.rmtree(folder)
        return one

    def _lives(self, command: Path, folder: Path, hunter: Killer, seconds: float, results: set[float]) -> None:
        """Start the command, and again whenever its driver was killed."""
        before, self._dead = self._dead, []
        for life in range(NO_END):
            log = folder / f"log-{life:02d}"
            with driving.driver(command, log) as one:
                hunter.attend(one, seconds)
                killed = self._watch(one, hunter, folder, results)
            one.started |= hunter.seen
            one.outlive(self.patience_s, but=killer.AGENTS)
            self._dead.append(one)
            if not killed:
                break
        self._bury(before)

    def _watch(self, one: Driver, hunter: Killer, folder: Path, results: set[float]) -> bool:
        """Return whether the driver was killed, once it has ended."""
        surveyed, moved = 0.0, time.time()
        while one.process.poll() is None:
            if time.monotonic() > self.until:
                hunter.quota = {}
            if hunter.tick(one):
                return True
            if time.monotonic() - surveyed > SURVEY_S:
                surveyed, before = time.monotonic(), len(results)
                commits = survey(folder, results)
                if len(results) > before:
                    hunter.went_on()
                moved = max(moved, *commits, 0.0)
                if time.time() - moved > self.patience_s:
                    stage = killer.stage_of(folder / "run", one.pid)
                    dump(one, folder / "dump")
                    raise Hung(f"nothing was committed in {self.patience_s:g} s, in {stage}; see {folder}/dump")
            time.sleep(POLL_S)
        survey(folder, results)
        assert one.process.returncode == 0, f"the driver exited with {one.process.returncode}; see {one.log}"
        return False

    def _judge(self, one: Ended, run: Path, quiet: dict[str, Any], *, trains: bool) -> None:
        """Count what is lost and paid twice in the files; then hold the ledger against the undisturbed one's."""
        wanted, asked, answered = quiet["ledger"], ids(run / "asks"), ids(run / "answers")
        one.lost = len({*wanted["asks"], *asked} - set(answered))
        one.twice = sum(n - 1 for n in [*asked.values(), *answered.values()])
        if one.lost or one.twice:
            one.faults.append(f"{one.lost} labels lost, {one.twice} asked for or paid twice")
        try:
            found = plain(campaigns.ledger(run))
            balance = Ledger(str(run)).check()
        except AlrayError as fault:
            one.faults.append(str(fault))
            return
        one.digests = " ".join(record["picks_digest"][:8] for record in found["rounds"])
        if balance.sent != balance.answered + balance.skipped + balance.outstanding:
            one.faults.append(f"the ledger does not balance: {balance}")
        one.faults += [
            f"`{name}` is not what it is where nothing is killed"
            for name in differences(found, wanted, untrained=trains and quiet["runtime"] == "local")
        ]

    def _bury(self, dead: Sequence[Driver]) -> None:
        """Wait until nothing at all is left of these drivers: their agents take a minute."""
        for one in dead:
            one.outlive()

    # What it is held against

    def undisturbed(self, subject: Subject, seed: int) -> dict[str, Any]:
        """Return the ledger of an undisturbed campaign, and the seconds of one on Ray; each is run once and kept."""
        file = self.folder / "undisturbed" / f"{subject.name}-{seed}.json"
        if not file.exists():
            known = sorted(file.parent.glob(f"{subject.name}-*.json"))
            made = self._undisturbed(subject, seed, subject.undisturbed if not known else subject.undisturbed[:1])
            if known and made["seconds"] is None:
                made["seconds"] = json.loads(known[0].read_text())["seconds"]
            file.write_text(json.dumps(made))
        found: dict[str, Any] = json.loads(file.read_text())
        return found

    def _undisturbed(self, subject: Subject, seed: int, runtimes: Sequence[str]) -> dict[str, Any]:
        """Run it on these runtimes, and refuse if their ledgers differ in what must be the same."""
        made: dict[str, Any] = {}
        for runtime in runtimes:
            folder = fresh(self.folder / "undisturbed" / f"{subject.name}-{seed}-{runtime}")
            with driving.driver(self._command(subject, folder, seed, runtime), folder / "log") as one:
                seconds = one.finish()
            found = plain(campaigns.ledger(folder / "run"))
            assert found["state"] == "done" and len(set(found["answers"])) == len(found["asks"]), found["state"]
            differ = differences(found, made["ledger"], untrained=subject.trains) if made else []
            assert not differ, f"{subject.name}: local and Ray, both undisturbed, differ in {differ}"
            made = {"ledger": found, "runtime": runtime, "seconds": round(seconds, 1) if runtime == "ray" else None}
            shutil.rmtree(folder)
        return made

    def _command(self, subject: Subject, folder: Path, seed: int, runtime: str) -> Path:
        path = folder / "campaign.yaml"
        raw = subject.settings(self.folder / "data", folder, seed)
        raw["runtime"] = {"name": runtime, "workers": 2, "max_restarts": NO_END}
        path.write_text(yaml.safe_dump(raw))
        return path


# What is found in files and processes


def write_data(folder: Path) -> None:
    """Write the digits, and a Gaussian mixture of ten classes, each once."""
    if not (folder / "digits/pool.parquet").exists():
        digits.write(str(folder / "digits"))
    if (folder / "clouds/oracle.parquet").exists():
        return
    (folder / "clouds").mkdir(parents=True, exist_ok=True)
    rng, rows, dim = np.random.default_rng(0), 200_000, 64
    label_N = rng.integers(0, 10, rows)
    x_ND = (rng.normal(size=(10, dim))[label_N] + rng.normal(size=(rows, dim))).astype(np.float16)
    features = pa.FixedSizeListArray.from_arrays(pa.array(x_ND.ravel()), dim)
    ids = [f"row-{n:06d}" for n in range(rows)]
    pool = pa.table({"id": ids, "features": features})
    pq.write_table(pool, folder / "clouds/pool.parquet", row_group_size=8192)
    oracle = pa.table({"id": ids, "label": [f"class-{c}" for c in label_N]})
    pq.write_table(oracle, folder / "clouds/oracle.parquet")


def fresh(folder: Path) -> Path:
    """Return an empty folder of this name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def ids(folder: Path) -> Counter[str]:
    """Return the ids in all files of asks, or of answers, and how often each is there."""
    return Counter(id for file in folder.glob("*.parquet") for id in pq.read_table(file)["id"].to_pylist())


def survey(folder: Path, results: set[float]) -> list[float]:
    """Return when each file of a campaign was committed, heartbeats apart; add those that are results."""
    commits = []
    for top in ("run", "features"):
        for where, _, names in os.walk(folder / top):
            for file in (Path(where) / name for name in names):
                try:
                    at = file.stat().st_mtime
                except FileNotFoundError:  # an old checkpoint
                    continue
                step = file.relative_to(folder / top).parts[0]
                if step != "lease.json":
                    commits.append(at)
                if step not in STEPS:
                    results.add(at)
    return commits


def after(kill: Kill, results: set[float]) -> float | None:
    """Return the seconds from a kill to the next result; None where there was none to come."""
    later = [at for at in results if at > kill.time]
    return round(min(later) - kill.time, 2) if later else None


def dump(one: Driver, folder: Path) -> None:
    """Keep what the processes of a driver are at, and Ray's logs; then end the driver."""
    folder.mkdir(exist_ok=True)
    lines, sessions = [], set()
    for pid in [one.pid, *driving.family(one.pid)]:
        told = driving.command(pid)
        sessions |= {word for word in told.replace("=", " ").split() if "/session_2" in word}
        lines.append(f"{pid} {driving.state_of(pid)} {_read(Path(f'/proc/{pid}/wchan'))} {told[:300]}")
    (folder / "processes.txt").write_text("\n".join(lines))
    for logs in {Path(one.partition("/session_2")[0]) / f"session_2{_session(one)}/logs" for one in sessions}:
        shutil.copytree(logs, folder / logs.parent.name, dirs_exist_ok=True)
    one.process.kill()
    one.process.wait()


def _session(word: str) -> str:
    return word.partition("/session_2")[2].partition("/")[0]


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return "?"


# What is said of it


def plain(ledger: dict[str, Any]) -> dict[str, Any]:
    """Return a ledger as it is after it was kept in a file."""
    found: dict[str, Any] = json.loads(json.dumps(ledger))
    return found


def differences(found: dict[str, Any], wanted: dict[str, Any], *, untrained: bool = False) -> list[str]:
    """Return which parts of two ledgers differ; `untrained`: whatever the accuracy of the trained networks is."""

    def text(ledger: dict[str, Any], name: str) -> str:
        value = ledger.get(name)
        if untrained and name == "rounds":
            value = [{**record, "accuracy": None} for record in ledger[name]]
        return json.dumps(value, sort_keys=True)  # NaN is like NaN

    return [name for name in sorted({*found, *wanted}) if text(found, name) != text(wanted, name)]


def sums(ended: Sequence[Ended]) -> dict[str, Any]:
    """Return the sums of all campaigns."""
    kills = [kill for one in ended for kill in one.kills]
    per_kill = [(one.seconds - one.quiet_s) / len(one.kills) for one in ended if one.kills and one.quiet_s]
    return {
        "campaigns": len(ended),
        "kills": Counter(kill["kind"] for kill in kills),
        "lost": sum(one.lost for one in ended),
        "twice": sum(one.twice for one in ended),
        "hung": sum(one.hung for one in ended),
        "faults": [f"c{one.number:03d}: {fault}" for one in ended for fault in one.faults],
        "seconds": round(sum(one.seconds for one in ended), 1),
        "lost_s_per_kill": {"mean": _mean(per_kill), "max": round(max(per_kill, default=0.0), 1)},
        "by_kind": {kind: _of_kind([k for k in kills if k["kind"] == kind]) for kind in WHO},
    }


def _of_kind(kills: Sequence[dict[str, Any]]) -> dict[str, Any]:
    waits = [kill["result_s"] for kill in kills if kill["result_s"] is not None]
    return {
        "kills": len(kills),
        "stages": Counter(kill["stage"] for kill in kills),
        "doing": Counter(_deed(kill["doing"]) for kill in kills),
        "result_s": {"mean": _mean(waits), "max": round(max(waits, default=0.0), 1)},
    }


def _deed(doing: str) -> str:
    """Return what a worker did, of Ray's name for it: `ray::Host` waits for its next call."""
    return doing.partition("::")[2].partition(" ")[0] if "::" in doing else doing


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 1) if len(values) else 0.0


def table(ended: Sequence[Ended]) -> str:
    """Return the sums in words."""
    all = sums(ended)
    lines = [
        f"{all['campaigns']} campaigns, {sum(all['kills'].values())} kills in {all['seconds'] / 60:.1f} minutes: "
        f"{all['lost']} labels lost, {all['twice']} paid twice, {all['hung']} hung; "
        f"{all['lost_s_per_kill']['mean']} s lost per kill, at most {all['lost_s_per_kill']['max']} in a campaign.",
        *(f"FAULT {fault}" for fault in all["faults"]),
        "",
        "| killed | times | in the stage | while at | seconds to the next result, mean | max |",
        "|---|---|---|---|---|---|",
    ]
    for kind, one in all["by_kind"].items():
        waits = one["result_s"]
        cells = [kind, one["kills"], _counts(one["stages"]), _counts(one["doing"]), waits["mean"], waits["max"]]
        lines.append(_row(cells))
    head = ["campaign", "seed", "actors", "training", "drivers", "seconds", "undisturbed", "lost, twice, hung", "picks"]
    lines += ["", _row(head), "|" + "---|" * len(head)]
    for c in ended:
        kinds = Counter(kill["kind"] for kill in c.kills)
        counts = [kinds[kind] for kind in WHO]
        faults = f"{c.lost}, {c.twice}, {c.hung}"
        lines.append(_row([c.subject, c.seed, *counts, c.seconds, c.quiet_s or "–", faults, c.digests]))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[Any]) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def main() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that a driver is ended too
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--actors", type=int, default=150)
    parser.add_argument("--training", type=int, default=20)
    parser.add_argument("--drivers", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=90.0, help="after these nothing is killed any more")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    where = [sys.executable, "-c", "import alray; print(alray.__file__)"]
    print(f"drivers run {subprocess.run(where, capture_output=True, text=True, check=True).stdout}", flush=True)
    wanted = {"actor": args.actors, "training": args.training, DRIVER: args.drivers}
    args.folder.mkdir(parents=True, exist_ok=True)
    one = Soak(args.folder.absolute(), wanted, minutes=args.minutes, seed=args.seed)
    good = one.run()
    one.close()
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
