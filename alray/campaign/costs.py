"""What a round costs: its labels, and wall seconds per stage times what is held, priced, crashed attempts included.

A stage is one file when it starts and one when it ends. An attempt that dies leaves its start behind; the next
driver settles it up to the dead driver's last heartbeat.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from alray import gauges
from alray.campaign.ledger import Ledger
from alray.campaign.prices import CostsConfig, label_dollars
from alray.log import within
from alray.runtime import Resources

__all__ = [
    "SAMPLING",
    "STARTUP",
    "CostsConfig",
    "Meter",
    "Spent",
    "committed_dollars",
    "label_dollars",
    "part",
    "records",
    "settle",
    "summary",
]

HOUR_S = 3600.0

SAMPLING = ("features", "load", "select", "evidence", "align", "fit")
"""Stages that choose which rows to label: their sum is the sampling time that the ASVP paper compares (§2.9).

What is delivered in the end (`train`, `test`), what every regime pays alike (`pretrain`, `labels`) and the start of the
workers are not among them.
"""

STARTUP = ("workers",)
"""Stages in which workers are started and nothing is computed."""


@dataclass(frozen=True)
class Spent:
    """Seconds and dollars of some work."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    gpu_seconds: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            self.gpu_seconds + other.gpu_seconds,
            self.dollars + other.dollars,
        )

    @staticmethod
    def of(record: dict[str, Any], prices: CostsConfig) -> Spent:
        """Price one closed stage."""
        cpu, gpu = record["seconds"] * record["cpus"], record["seconds"] * record["gpus"]
        dollars = cpu / HOUR_S * prices.cpu_hour + gpu / HOUR_S * prices.gpu_hour
        return Spent(record["seconds"], cpu, gpu, dollars)

    @staticmethod
    def read(values: Mapping[str, float]) -> Spent:
        """Return what `to_dict` made."""
        return Spent(values["seconds"], values["cpu_seconds"], values["gpu_seconds"], values["dollars"])

    def to_dict(self) -> dict[str, float]:
        """Return the numbers, rounded to what a clock can tell (dollars to a millionth)."""
        return {
            "seconds": round(self.seconds, 3),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "gpu_seconds": round(self.gpu_seconds, 3),
            "dollars": round(self.dollars, 6),
        }


class Meter:
    """Times the stages of one attempt and writes one cost record each into the ledger."""

    def __init__(self, ledger: Ledger, attempt: int, resources: Callable[[], Resources]) -> None:
        self._ledger, self._attempt, self._resources = ledger, attempt, resources
        self._count = 0

    @contextmanager
    def stage(self, name: str, round: int) -> Iterator[None]:
        """Time the block; its cost is recorded whether it succeeds or raises."""
        self._count += 1
        record = {
            "schema": 1,
            "stage": name,
            "round": round,
            "attempt": self._attempt,
            "started": time.time(),
            **self._holds(),
        }
        stem = f"a{self._attempt:04d}-{self._count:04d}-{round:04d}-{name}"
        self._ledger.commit_json(f"costs/{stem}.start.json", record)
        begin = time.perf_counter()
        crashed = True
        try:
            with within(round=round, stage=name):
                yield
            crashed = False
        finally:
            seconds = time.perf_counter() - begin
            record |= {"seconds": seconds, "crashed": crashed, **self._holds()}  # a start ends with what it started
            self._ledger.commit_json(f"costs/{stem}.json", record)
            gauges.add("alray_stage_seconds", seconds, stage=name)

    def _holds(self) -> dict[str, float]:
        held = self._resources()
        return {"cpus": held.cpus, "gpus": held.gpus}


def settle(ledger: Ledger, attempt: int, beats: dict[str, float]) -> None:
    """Close what earlier attempts started and did not end, at their last heartbeat (`beats`, by attempt number)."""
    files = set(ledger.files("costs"))
    for start in sorted(f for f in files if f.endswith(".start.json")):
        end = start.removesuffix(".start.json") + ".json"
        record = ledger.read_json(start)
        if end in files or record["attempt"] >= attempt:
            continue
        last = beats.get(str(record["attempt"]), record["started"])
        ledger.commit_json(end, {**record, "seconds": max(0.0, last - record["started"]), "crashed": True})


def records(ledger: Ledger, round: int) -> dict[str, dict[str, Any]]:
    """Return the closed cost records of one round, by file name."""
    names = [f for f in ledger.files("costs") if not f.endswith(".start.json")]
    mine = [f for f in names if f.split("-")[2] == f"{round:04d}"]
    return {f: ledger.read_json(f) for f in sorted(mine)}


def summary(
    closed: dict[str, dict[str, Any]], prices: CostsConfig, *, labels: int, label_dollars: float | None = None
) -> dict[str, Any]:
    """Return the cost of a round: per stage, in all, sampling and start-up apart, labels and their dollars.

    `label_dollars` is the price of the round's answers; without it each of the `labels` costs `prices.label`.
    """
    stages: dict[str, Spent] = defaultdict(Spent)
    for record in closed.values():
        stages[record["stage"]] += Spent.of(record, prices)
    crashed = _total(Spent.of(r, prices) for r in closed.values() if r["crashed"])
    total, sampling = _total(stages.values()), _total(stages[name] for name in SAMPLING if name in stages)
    paid = labels * prices.label if label_dollars is None else label_dollars
    return {
        "schema": 1,
        "stages": {name: spent.to_dict() for name, spent in stages.items()},
        "compute": total.to_dict(),
        "sampling": sampling.to_dict(),
        "startup": _total(stages[name] for name in STARTUP if name in stages).to_dict(),
        "crashed": crashed.to_dict(),
        "labels": labels,
        "label_dollars": round(paid, 6),
        "compute_dollars": round(total.dollars, 6),
        "sampling_dollars": round(sampling.dollars, 6),
        "dollars": round(paid + total.dollars, 6),
        "seconds": round(total.seconds, 3),
        "attempts": len({r["attempt"] for r in closed.values()}),
        "prices": prices.model_dump(),
        "files": sorted(closed),
    }


def part(cost: Mapping[str, Any], names: Sequence[str]) -> Spent:
    """Return what the stages of these names cost, of a round's `summary`; also of one from before sampling was said."""
    return _total(Spent.read(cost["stages"][name]) for name in names if name in cost["stages"])


def committed_dollars(ledger: Ledger, closed: Sequence[Mapping[str, Any]], prices: CostsConfig) -> float:
    """Return the label dollars that are spent or promised, which is what a budget has to count.

    `closed` are the summaries of the rounds that are done, in order: their labels cost what they say, whatever is
    charged today. Answers of the open round have their price; what is asked for has the dearest that an answer can.
    """
    answers = ledger.answers(len(closed))
    billed = sum(cost["labels"] for cost in closed)
    promised = ledger.balance().committed - billed - len(answers.paid_ids())
    bills = sum(cost["label_dollars"] for cost in closed)
    return float(bills + label_dollars(answers, prices) + promised * prices.dearest)


def _total(parts: Iterable[Spent]) -> Spent:
    out = Spent()
    for one in parts:
        out += one
    return out
