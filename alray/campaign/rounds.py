"""A round's folder: its pieces in the order in which they are committed, and round.json, whose existence means done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from alray import storage
from alray.campaign.ledger import Ledger
from alray.errors import LedgerError
from alray.labelling import Labels, read_labels
from alray.models import Head
from alray.selection import Picks

T = TypeVar("T")

PICKS, SELECTION, LABELS, HEAD = "picks.parquet", "selection.json", "labels.parquet", "head.safetensors"
SWITCH, TRIAL, ALIGNED = "switch.json", "trial.json", "aligned.json"
FORECAST, TRAINED, METRICS, COST, RECORD = "forecast.json", "trained.json", "metrics.json", "cost.json", "round.json"
HASHED = (PICKS, LABELS, SWITCH, TRIAL, ALIGNED, HEAD, FORECAST, TRAINED, METRICS, COST)
"""Files whose sha256 is in round.json."""

RANDOM = ("initial", "control")
"""Reasons of picks that were drawn at random."""


@dataclass(frozen=True)
class Round:
    """The files of one round of a run."""

    ledger: Ledger
    number: int

    def name(self, piece: str) -> str:
        """Return the name of a piece within the run."""
        return f"rounds/{self.number:04d}/{piece}"

    def uri(self, piece: str) -> str:
        """Return the full URI of a piece."""
        return self.ledger.uri(self.name(piece))

    def has(self, piece: str) -> bool:
        """Say whether a piece is committed."""
        return self.ledger.has(self.name(piece))

    def commit(self, piece: str, value: bytes | Mapping[str, Any]) -> None:
        """Put a piece, once."""
        if isinstance(value, bytes):
            self.ledger.commit(self.name(piece), value)
        else:
            self.ledger.commit_json(self.name(piece), dict(value))

    def json(self, piece: str) -> dict[str, Any]:
        """Return a JSON piece."""
        return self.ledger.read_json(self.name(piece))

    def commit_picks(self, picks: Picks) -> None:
        """Put the picks; from here on the round asks for these rows and no others."""
        self.ledger.commit(self.name(PICKS), picks.to_bytes())

    def picks(self) -> Picks:
        """Return the committed picks."""
        return self._read(PICKS, Picks.read)

    def labels(self) -> Labels:
        """Return the labelled rows that the round's model was trained or held out on."""
        return self._read(LABELS, read_labels)

    def head(self) -> Head:
        """Return the round's head."""
        return self._read(HEAD, Head.load)

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of each hashed piece that the round has."""
        return {piece: self.ledger.sha256(self.name(piece)) for piece in HASHED if self.has(piece)}

    def verify(self) -> None:
        """Raise LedgerError if a piece is not what round.json says it was, or answers that it stands on are gone."""
        record = self.json(RECORD)
        for name in record["answers"]:
            if not self.ledger.has(name):
                raise LedgerError(
                    f"{self.ledger.uri(name)} is missing: its labels are paid for, and round {self.number} was trained "
                    "on them. Nothing was asked for again: restore it from a copy, or start a new run whose `labels` "
                    f"are {self.uri(LABELS)}."
                )
        for piece, expected in record["sha256"].items():
            if not storage.exists(self.uri(piece)) or self.ledger.sha256(self.name(piece)) != expected:
                raise LedgerError(
                    f"{self.uri(piece)} is not the file that round {self.number} ended with (sha256 {expected[:12]}…). "
                    "Nothing was overwritten: restore it from a copy, or start a new run."
                )

    def _read(self, piece: str, read: Callable[[str], T]) -> T:
        try:
            return read(self.uri(piece))
        except Exception as e:  # whatever a reader raises on bytes that are not its own
            raise LedgerError(
                f"{self.uri(piece)} is not readable as what alray wrote there ({e}). Nothing was overwritten: "
                "restore this file from a copy, or start a new run."
            ) from e


def drawn(ledger: Ledger, upto: int) -> dict[str, int]:
    """Return the round of every row that was drawn at random up to round `upto`: no others stand for the pool.

    Round 0 is drawn from the whole pool, a control arm from a part of it that the strategy does not pick in: from what
    a strategy has left over, which is the easier part, an accuracy would be counted too high.
    """
    found: dict[str, int] = {}
    for number in range(upto + 1):
        round = Round(ledger, number)
        if round.has(PICKS):
            picks = round.picks()
            reasons = zip(picks.ids, picks.reasons, strict=True)
            found |= {str(i): number for i, reason in reasons if reason in RANDOM}
    return found


def aligned(ledger: Ledger, upto: int) -> tuple[int, str] | None:
    """Return the last round up to `upto` whose alignment was accepted, and its checkpoint; None before the first."""
    for number in range(upto, -1, -1):
        round = Round(ledger, number)
        if round.has(ALIGNED) and (made := round.json(ALIGNED))["accepted"]:
            return number, storage.join(round.uri(made["folder"]), made["checkpoint"])
    return None


def seen(ledger: Ledger, upto: int, train: Collection[str]) -> set[str]:
    """Return which of the rows that train are known to the backbone in force in round `upto`.

    A pre-trained backbone has seen no label. A fine-tuned one has seen those that trained in the round that made it.
    """
    made = aligned(ledger, upto)
    return set() if made is None else set(Round(ledger, made[0]).labels().mapping()) & set(train)


def unseen(ledger: Ledger, upto: int, train: Collection[str], labelled: Iterable[str]) -> list[str]:
    """Return which labelled rows were drawn at random and are new to the backbone in force in round `upto`."""
    known, random = seen(ledger, upto, train), drawn(ledger, upto)
    return [i for i in labelled if i in random and i not in known]


def closed(ledger: Ledger) -> list[Round]:
    """Return the rounds that are done, in order."""
    out: list[Round] = []
    while (round := Round(ledger, len(out))).has(RECORD):
        out.append(round)
    return out


def verify(ledger: Ledger) -> None:
    """Check the balance of the ledger and every closed round's files, before anything is added to them."""
    ledger.check()
    for round in closed(ledger):
        round.verify()
