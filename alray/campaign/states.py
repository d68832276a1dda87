"""state.json: how the last command on a run ended; of all it says, only the reason for a failure is not in the ledger.

A failure that cannot be retried is kept, so that a scheduler that starts the command again is refused when it would
ask for workers. What needs none is tried again; that it now works, a change of live settings, or deleting state.json
lifts the refusal.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal, get_args

from alray import gauges, storage
from alray.campaign.ledger import Ledger
from alray.campaign.opening import Opened
from alray.errors import LedgerError, RunError, StorageError, TrainingError, UserError

State = Literal["running", "waiting", "done", "failed"]
FILE = "state.json"
ATTEMPTS = 20


def recorded(ledger: Ledger, opened: Opened, work: Callable[[str | None], tuple[State, str]]) -> State:
    """Run `work(refusal)` and record the state that it returns, with its reason, or its failure.

    `refusal` is why no workers may be asked for, if the last command with these settings failed for good.
    """
    refusal = _refusal(ledger, opened)
    if refusal is None:
        write(ledger, "running", opened)
    try:
        state, message = work(refusal)
    except RunError:
        raise  # refused again, or the lease is lost and another driver says how the run is doing
    except (UserError, TrainingError) as error:
        write(ledger, "failed", opened, message=str(error))
        raise
    write(ledger, state, opened, message=message)
    return state


@contextmanager
def opening(ledger: Ledger, opened: Opened) -> Iterator[None]:
    """Record what the user has to put right before workers are asked for, so that no scheduler starts the run again.

    It refuses nothing: the next command tries the same before all else.
    """
    try:
        yield
    except RunError:
        raise
    except UserError as error:
        if _refusal(ledger, opened) is None:
            write(ledger, "failed", replace(opened, digest=""), message=str(error))
        raise


@contextmanager
def shown() -> Iterator[None]:
    """Show a failure while there still are workers, who pass it on: it is recorded after they were given back."""
    try:
        yield
    except RunError:
        raise
    except (UserError, TrainingError):
        show("failed")
        raise


def show(state: State) -> None:
    """Show a monitoring system what state the campaign is in."""
    gauges.show_one_of("alray_state", "state", get_args(State), state)


def write(ledger: Ledger, state: State, opened: Opened, *, message: str = "") -> None:
    """Replace the state."""
    uri = ledger.uri(FILE)
    value = {"schema": 1, "state": state, "message": message, "config": opened.digest, "file": opened.file}
    data = json.dumps({**value, "at": time.time()}, indent=1).encode()
    for _ in range(ATTEMPTS):
        before = storage.read_if_there(uri)
        ledger.guard()  # in between: what another driver writes after this is not replaced
        if storage.replace_if(uri, data, expected=None if before is None else hashlib.sha256(before).hexdigest()):
            show(state)
            return
    raise StorageError(f"Cannot write {uri}: others write to it all the time.")


def read(ledger: Ledger) -> dict[str, str]:
    """Return the last state, with its message; `running` with none where nothing was written yet."""
    data = storage.read_if_there(ledger.uri(FILE))
    if data is None:
        return {"state": "running", "message": "", "config": "", "file": ""}
    try:
        value = json.loads(data)
        if value["schema"] != 1 or value["state"] not in get_args(State):
            raise ValueError(f"schema {value['schema']!r}, state {value['state']!r}")
        return {name: str(value[name]) for name in ("state", "message", "config", "file")}
    except (ValueError, KeyError, TypeError) as e:
        uri = ledger.uri(FILE)
        raise LedgerError(f"{uri} is unreadable ({e}). Delete it; the next command writes it again.") from e


def _refusal(ledger: Ledger, opened: Opened) -> str | None:
    last = read(ledger)
    if last["state"] != "failed" or (last["config"], last["file"]) != (opened.digest, opened.file):
        return None
    return (
        f"The run {ledger.run} failed before, and would again: {last['message']}\n"
        f"Put that right, delete {ledger.uri(FILE)}, and run the command again."
    )
