"""How a run is doing: read from its folder alone, without its lease."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from alray import storage
from alray.campaign import costs, lease, opening, rounds, states
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import ALIGNED, FORECAST, SWITCH, Round
from alray.campaign.settings import Settings
from alray.errors import RunError, UserError
from alray.labelling import Ask

SUMS = (
    "dollars",
    "label_dollars",
    "compute_dollars",
    "sampling_dollars",
    "sampling_seconds",
    "sampling_cpu_seconds",
    "sampling_gpu_seconds",
    "startup_seconds",
)
"""Numbers of a row that are added up in the totals."""


@dataclass(frozen=True)
class Status:
    """Totals of a run, and a row per finished round. `labels` are those paid for; dollars include compute.

    In a row, `labels`, `dollars` and `seconds` are the round's own, `labels_so_far` all up to it; `accuracy` is None
    where nothing was tested. Sampling is what chooses the rows to label (`costs.SAMPLING`); start-up is no part of it.
    `switches` are the decisions of the rounds that took one, `forecast` is that of the last round, None without one.
    """

    run: str
    state: states.State
    rounds: int
    labels: int
    dollars: float
    label_dollars: float
    accuracy: list[float | None]
    per_round: list[dict[str, Any]]
    outstanding: int = 0
    driver: str | None = None
    message: str = ""
    compute_dollars: float = 0.0
    sampling_dollars: float = 0.0
    sampling_seconds: float = 0.0
    sampling_cpu_seconds: float = 0.0
    sampling_gpu_seconds: float = 0.0
    startup_seconds: float = 0.0
    switches: list[dict[str, Any]] = field(default_factory=list)
    forecast: dict[str, Any] | None = None
    schema: int = field(default=1)

    def to_dict(self) -> dict[str, Any]:
        """Return what `alray status --json` prints."""
        return asdict(self)


def status(run: str) -> Status:
    """Return how the run in this folder is doing. Raises RunError where there is none."""
    ledger = _existing(run)
    holder = lease.read_lease(ledger.uri("lease.json"))
    driving = holder is not None and lease.alive(holder)
    last = states.read(ledger)
    balance = ledger.check()
    done = rounds.closed(ledger)
    per_round = _rows(done)
    return Status(
        run=ledger.run,
        state="running" if driving else last["state"],  # type: ignore[arg-type]
        rounds=len(done),
        labels=balance.paid,
        accuracy=[row["accuracy"] for row in per_round],
        per_round=per_round,
        outstanding=balance.outstanding,
        driver=holder.sentence() if holder is not None and driving else None,
        message=last["message"],
        switches=[_decision(one) for one in done if one.has(SWITCH)],
        forecast=done[-1].json(FORECAST) if done and done[-1].has(FORECAST) else None,
        **{name: round(sum(row[name] for row in per_round), 6) for name in SUMS},
    )


def _decision(round: Round) -> dict[str, Any]:
    """Return a round's switch.json, and in `came_of_it` what its alignment ended with; None where there was none."""
    came_of_it = round.json(ALIGNED)["reason"] if round.has(ALIGNED) else None
    return {**round.json(SWITCH), "round": round.number, "came_of_it": came_of_it}


def ready(run: str) -> bool:
    """Say whether running the command again would get further now: what a scheduler polls (decision 15)."""
    now = status(run)
    if now.driver is not None or now.state == "done":
        return False
    if now.state == "running":
        return True  # its driver died
    ledger = _existing(run)
    asks, found = ledger.outstanding(), opening.latest(ledger)
    if now.state == "failed":
        with suppress(UserError):  # the labeller's mistake, if it was one, is still there
            return found is not None and bool(asks) and _answered(found[1], asks)
        return False
    return found is None or _answered(found[1], asks)


def _answered(settings: Settings, asks: Sequence[Ask]) -> bool:
    storage.configure(settings.storage.endpoint, settings.storage.region)
    answered = set(settings.labeller.collect(asks).column("request_id"))
    return all(ask.request_id in answered for ask in asks)


def _existing(run: str) -> Ledger:
    ledger = Ledger(opening.home(run))
    if not ledger.has("run.json"):
        raise RunError(f"There is no run in {run}: it has no run.json. Give the folder that `run:` names.")
    return ledger


def _rows(done: list[Round]) -> list[dict[str, Any]]:
    rows, so_far = [], 0
    for one in done:
        record, cost = one.json(rounds.RECORD), one.json(rounds.COST)
        so_far += cost["labels"]
        rows.append(
            {
                "round": one.number,
                "labels": cost["labels"],
                "labels_so_far": so_far,
                "accuracy": record["accuracy"],
                "dollars": cost["dollars"],
                "label_dollars": cost["label_dollars"],
                "seconds": cost["seconds"],
                "model": record["model"],
                **_compute(cost),
            }
        )
    return rows


def _compute(cost: dict[str, Any]) -> dict[str, float]:
    """Return what a round's machines cost; an older alray's cost.json has the stages, and not their sums."""
    sampling = cost.get("sampling") or costs.part(cost, costs.SAMPLING).to_dict()
    startup = cost.get("startup") or costs.part(cost, costs.STARTUP).to_dict()
    return {
        "compute_dollars": cost["compute"]["dollars"],
        "startup_seconds": startup["seconds"],
        **{f"sampling_{name}": value for name, value in sampling.items()},
    }
