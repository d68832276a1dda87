"""The ledger: append-only files that say what was asked, answered and paid; the source of truth for resume.

Every file is put once and never changed. What is in the ledger happened; whatever is not will be done again. Asks
are written before they are sent, so that a crash in between asks again under the same `request_id`, and an answer is
kept once per ask, so that collecting twice pays once.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from alray import storage
from alray.errors import LabelsError, LedgerError, StoragePathError
from alray.labelling import CANCELLED, LABELLED, SKIPPED, Ask, Labels
from alray.labelling.labels import SCHEMA as LABELS_SCHEMA

ASKS_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("round", pa.int64()),
        ("purpose", pa.string()),
        ("replica", pa.int64()),
        ("request_id", pa.string()),
    ],
    metadata={"schema": "1"},
)


@dataclass(frozen=True)
class Balance:
    """What became of all asks: sent = answered + skipped + cancelled + outstanding."""

    sent: int
    answered: int
    skipped: int
    cancelled: int
    outstanding: int

    @property
    def paid(self) -> int:
        """Labels that cost: answered or skipped."""
        return self.answered + self.skipped

    @property
    def committed(self) -> int:
        """Labels that count against the budget: paid, or asked for and not yet answered."""
        return self.paid + self.outstanding


class Record(dict[str, Any]):
    """An object in a JSON file of the run. A field that it lacks was there once: the file is at fault, not the code."""

    uri = ""

    def __missing__(self, field: str) -> Any:
        raise _corrupt(self.uri, f"it has no `{field}`")


class Ledger:
    """The files of one run. `guard` is called before every commit and raises if this driver may not write."""

    def __init__(self, run: str, *, guard: Callable[[], None] | None = None) -> None:
        self.run = run
        self._guard = guard or _refuse
        self._kept: dict[str, Any] = {}  # files never change, so each is read once

    def uri(self, name: str) -> str:
        """Return the full URI of a file of the run."""
        return storage.join(self.run, *name.split("/"))

    def has(self, name: str) -> bool:
        """Say whether a file of the run exists."""
        return name in self._kept or storage.exists(self.uri(name))

    def files(self, folder: str) -> list[str]:
        """Return the names (folder included) of the files in one folder of the run, hidden ones left out.

        File browsers and network disks leave `.DS_Store` and `.nfs…` anywhere.
        """
        names = [uri.rsplit("/", 1)[1] for uri in storage.list_files(self.uri(folder))]
        return [f"{folder}/{name}" for name in names if not name.startswith(".")]

    # Commits

    def guard(self) -> None:
        """Raise RunError unless this driver may write now; for files that another room writes itself."""
        self._guard()

    def commit(self, name: str, data: bytes) -> None:
        """Put one file, once. Putting the same bytes again is fine; other bytes are a contradiction."""
        self._guard()
        if not storage.put_once(self.uri(name), data) and storage.read_bytes(self.uri(name)) != data:
            raise LedgerError(
                f"{self.uri(name)} exists with other content than what was to be committed; nothing was overwritten. "
                "Did two drivers run without a common lease.json?"
            )

    def commit_json(self, name: str, value: Any) -> None:
        """Put one JSON file, once."""
        self.commit(name, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())

    def note(self, name: str, value: Any) -> None:
        """Put one JSON file for people to read, which nothing depends on: where there is one, that one stays."""
        self._guard()
        data = json.dumps({"schema": 1, **value}, indent=1, sort_keys=True) + "\n"
        storage.put_once(self.uri(name), data.encode())

    def commit_asks(self, asks: Sequence[Ask]) -> None:
        """Write the intent to ask, before anything is sent; one file per round and purpose."""
        first = asks[0]
        rows = [{name: getattr(ask, name) for name in ASKS_SCHEMA.names} for ask in asks]
        data = to_parquet(pa.Table.from_pylist(rows, schema=ASKS_SCHEMA))
        self.commit(f"asks/{first.round:04d}-{first.purpose}.parquet", data)
        self.check()

    def commit_answers(self, round: int, answers: Labels) -> int:
        """Append the answers that are not in the ledger yet; return how many were new."""
        known = {ask.request_id: ask for ask in self.asks()}
        _refuse_strays(answers, known)
        had = set(self.answers().column("request_id"))
        new = Labels.of({r["request_id"]: r for r in answers.rows() if r["request_id"] not in had}.values())
        if len(new):
            number = 1 + sum(f.startswith(f"answers/{round:04d}-") for f in self.files("answers"))
            self.commit(f"answers/{round:04d}-{number:04d}.parquet", new.sorted().to_bytes())
        self.check()
        return len(new)

    def sweep(self) -> None:
        """Remove what drivers that were killed in the middle of a commit left behind on a disk."""
        self._guard()
        root = storage.local_path(self.run)
        if root is None:
            return  # on object storage nothing is left behind
        for folder in ("asks", "answers", "costs", "configs", "pool", "rounds/*"):
            for left in root.glob(f"{folder}/{storage.TEMPORARY}*"):
                left.unlink(missing_ok=True)

    # What the ledger says

    def name(self) -> str:
        """Return the run's own name, which never changes wherever the folder is moved."""
        return str(self.read_json("run.json")["name"])

    def asks(self, round: int | None = None) -> list[Ask]:
        """Return all asks in the order they were made, or those of one round."""
        prefix = "asks/" if round is None else f"asks/{round:04d}-"
        out: list[Ask] = []
        for name in self.files("asks"):
            if name.startswith(prefix):
                out += self._keep(name, self._read_asks)
        return out

    def answers(self, round: int | None = None) -> Labels:
        """Return all answers, or those to the asks of one round."""
        prefix = "answers/" if round is None else f"answers/{round:04d}-"
        names = [f for f in self.files("answers") if f.startswith(prefix)]
        return Labels.concat([self._keep(f, self._read_answers) for f in names])

    def outstanding(self, round: int | None = None) -> list[Ask]:
        """Return the asks that have no answer yet."""
        had = set(self.answers(round).column("request_id"))
        return [ask for ask in self.asks(round) if ask.request_id not in had]

    def balance(self, round: int | None = None) -> Balance:
        """Count what became of the asks, of the run or of one round."""
        answers = self.answers(round)
        return _balance(self.asks(round), answers)

    def check(self) -> Balance:
        """Raise LedgerError unless every ask is unique, every answer has its ask, and the sums agree."""
        answers = self.answers()
        asks = self.asks()  # after the answers, since a driver may be adding to both
        _refuse_repeats([a.request_id for a in asks], self.run, "asked for twice")
        trained = [a.id for a in asks if a.purpose == "train" and a.replica == 0]
        _refuse_repeats(trained, self.run, "asked for in two rounds")
        _refuse_repeats(answers.column("request_id"), self.run, "answered twice")
        strays = set(answers.column("request_id")) - {a.request_id for a in asks}
        if strays:
            rows = [r["id"] for r in answers.rows() if r["request_id"] in strays]
            raise LedgerError(f"The ledger of {self.run} has {len(rows)} answers without an ask, e.g. to `{rows[0]}`.")
        balance = _balance(asks, answers)
        if balance.sent != balance.answered + balance.skipped + balance.cancelled + balance.outstanding:
            raise LedgerError(f"The ledger of {self.run} does not balance: {balance}. Nothing was written.")
        return balance

    # Reading

    def read_json(self, name: str) -> dict[str, Any]:
        """Return one JSON file of the run. Raises LedgerError naming it when it is unreadable or newer."""
        value: dict[str, Any] = self._keep(name, self._read_json)
        return value

    def sha256(self, name: str) -> str:
        """Return the digest of one file of the run."""
        return hashlib.sha256(storage.read_bytes(self.uri(name))).hexdigest()

    def _keep(self, name: str, read: Callable[[str], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = read(name)
        return self._kept[name]

    def _read_json(self, name: str) -> dict[str, Any]:
        def record(pairs: list[tuple[str, Any]]) -> Record:
            made = Record(pairs)
            made.uri = self.uri(name)
            return made

        try:
            value: dict[str, Any] = json.loads(storage.read_bytes(self.uri(name)), object_pairs_hook=record)
            if value["schema"] != 1:
                raise LedgerError(f"{self.uri(name)} has schema {value['schema']}; this alray reads schema 1.")
        except StoragePathError as e:
            raise self._corrupt(name, "it is gone") from e
        except (ValueError, KeyError, TypeError) as e:
            raise self._corrupt(name, e) from e
        return value

    def _read_asks(self, name: str) -> list[Ask]:
        run = self.name()
        rows = self._read_table(name, ASKS_SCHEMA).to_pylist()
        asks = [Ask(run, row["round"], row["id"], row["purpose"], row["replica"]) for row in rows]
        if [a.request_id for a in asks] != [row["request_id"] for row in rows]:
            raise self._corrupt(name, "its request ids do not belong to this run")
        return asks

    def _read_answers(self, name: str) -> Labels:
        return Labels(self._read_table(name, LABELS_SCHEMA))

    def _read_table(self, name: str, schema: pa.Schema) -> pa.Table:
        try:
            file = pa.parquet.ParquetFile(io.BytesIO(storage.read_bytes(self.uri(name))))
            table = file.read(use_threads=False)  # a thread of Arrow's that outlives a short command aborts it
            if (table.schema.metadata or {}).get(b"schema") != b"1":
                raise LedgerError(f"{self.uri(name)} has no schema 1; this alray reads schema 1.")
            return table.select(schema.names).cast(schema)
        except (pa.ArrowException, KeyError) as e:
            raise self._corrupt(name, e) from e

    def _corrupt(self, name: str, why: object) -> LedgerError:
        return _corrupt(self.uri(name), why)


def to_parquet(table: pa.Table) -> bytes:
    """Return the table as the bytes of a Parquet file: the same rows give the same bytes."""
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


def _balance(asks: Sequence[Ask], answers: Labels) -> Balance:
    """Count the two sides apart: what has no answer is found by its request, not by subtraction."""
    status, had = Counter(answers.column("status")), set(answers.column("request_id"))
    outstanding = sum(ask.request_id not in had for ask in asks)
    return Balance(len(asks), status[LABELLED], status[SKIPPED], status[CANCELLED], outstanding)


def _corrupt(uri: str, why: object) -> LedgerError:
    return LedgerError(
        f"{uri} is not readable as what alray wrote there ({why}). Nothing was overwritten: "
        "restore this file from a copy, or start a new run."
    )


def _refuse() -> None:
    raise LedgerError("This ledger was opened to be read; only a driver that holds the lease writes to it.")


def _refuse_repeats(keys: Sequence[str], run: str, what: str) -> None:
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if twice:
        raise LedgerError(f"The ledger of {run} has {len(twice)} rows {what}, e.g. `{twice[0]}`. Nothing was written.")


def _refuse_strays(answers: Labels, known: dict[str, Ask]) -> None:
    for row in answers.rows():
        ask = known.get(row["request_id"] or "")
        if ask is None or ask.id != row["id"]:
            request = row["request_id"]
            raise LabelsError(f"The labeller answered `{row['id']}` (request {request}), which was not asked.")
