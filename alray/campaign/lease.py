"""One driver a run: a lease file with a heartbeat and a fencing number, taken by compare-and-swap.

The lease says who drives (host, pid, since when). A dead process of this machine is replaced at once; one that runs
elsewhere only after it has been silent for its time to live. Each driver gets a higher fencing number, and asks
`check()` before every commit, so that a driver that slept through its own replacement writes nothing more.
"""

from __future__ import annotations

import contextvars
import hashlib
import json
import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alray import storage
from alray.errors import LedgerError, RunError, StorageError

log = logging.getLogger(__name__)

TTL_S = 60.0
LONGEST_TTL_S = 86_400.0
LAST_TIME = 2.0**33  # in the year 2242: what stands beyond was not written by a clock
BEATS_PER_TTL = 6
ATTEMPTS = 20


@dataclass(frozen=True)
class Holder:
    """What lease.json says. Times are seconds since 1970; `beats` has the last heartbeat of every earlier driver."""

    host: str
    place: str  # machine and process namespace: where `pid` means something
    pid: int
    started: str  # of the process, so that a reused pid is not taken for it
    since: float
    heartbeat: float
    ttl: float
    fence: int
    released: bool = False
    beats: dict[str, float] = field(default_factory=dict)
    schema: int = 1

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    def sentence(self) -> str:
        """Who drives, in words."""
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.since))
        return f"pid {self.pid} on {self.host} since {since}"


class Lease:
    """The right to write to a run, held between `__enter__` and `__exit__`.

    Raises RunError when another driver is alive.
    """

    def __init__(self, uri: str, *, ttl: float = TTL_S) -> None:
        self._uri, self._ttl = uri, ttl
        self._stop = threading.Event()
        self._swap = threading.Lock()
        self._lost: str | None = None
        self._thread: threading.Thread | None = None
        self.holder = _me(ttl)

    def __enter__(self) -> Self:
        self.holder = _acquire(self._uri, self.holder)
        beat = contextvars.copy_context().run  # its log lines are about this run
        self._thread = threading.Thread(target=beat, args=(self._beat,), name="alray-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._lost is None:
            self._release(error)

    def _release(self, error: BaseException | None) -> None:
        try:
            self._renew(replace(self.holder, heartbeat=time.time(), released=True))
        except StorageError as failed:
            if error is None:
                raise
            log.warning("The lease of %s could not be given back: %s", _run_of(self._uri), failed)

    @property
    def fence(self) -> int:
        """This driver's number: higher than every earlier driver's of this run."""
        return self.holder.fence

    def check(self) -> None:
        """Raise RunError if another driver has taken over; called before every commit."""
        if self._lost is None:
            self._compare(read_lease(self._uri))
        if self._lost is not None:
            raise RunError(
                f"This driver has lost the run {_run_of(self._uri)}: {self._lost}. Nothing more is written from here; "
                "watch it with `alray status`."
            )

    def _beat(self) -> None:
        while not self._stop.wait(self._ttl / BEATS_PER_TTL):
            try:
                self._renew(replace(self.holder, heartbeat=time.time()))
            except Exception as e:  # whatever it is: a heart that stops lets another driver in
                log.warning("The heartbeat of %s could not be written; trying again. %s", self._uri, e)

    def _renew(self, new: Holder) -> None:
        """Swap our own lease for `new`; find out that we have lost it if it is not ours any more."""
        with self._swap:
            found, mark = _read(self._uri)
            self._compare(found)
            if self._lost is None and storage.replace_if(self._uri, new.to_bytes(), expected=mark):
                self.holder = new

    def _compare(self, found: Holder | None) -> None:
        if found is None:
            self._lost = "its lease.json is gone"
        elif found.fence != self.fence:
            self._lost = f"{found.sentence()} drives it now"


def read_lease(uri: str) -> Holder | None:
    """Return what the lease file says, or None where there is none. Raises LedgerError when it is unreadable."""
    return _read(uri)[0]


def _read(uri: str) -> tuple[Holder | None, str | None]:
    """Return the holder and the digest of the file that says so, for compare-and-swap."""
    data = storage.read_if_there(uri)
    if data is None:
        return None, None
    try:
        raw: dict[str, Any] = json.loads(data)
        if raw["schema"] != 1:
            raise LedgerError(f"{uri} has schema {raw['schema']}; this alray reads schema 1. Update alray.")
        return _sound(Holder(**raw)), hashlib.sha256(data).hexdigest()
    except (ValueError, KeyError, TypeError) as e:
        raise LedgerError(
            f"{uri} is not a lease that alray wrote ({e}). If no driver runs, delete this file and run again."
        ) from e


def _sound(holder: Holder) -> Holder:
    """Return a holder whose numbers can be ones; raise ValueError or TypeError for others."""
    times = {"since": holder.since, "heartbeat": holder.heartbeat, **holder.beats}
    for name, value in times.items():
        if not 0 <= float(value) <= LAST_TIME or isinstance(value, str):
            raise ValueError(f"the time {name!r} is {value!r}")
    if isinstance(holder.fence, str) or holder.fence < 1 or not 0 < holder.ttl <= LONGEST_TTL_S:
        raise ValueError(f"fence {holder.fence!r}, ttl {holder.ttl!r}")
    return holder


def alive(holder: Holder, now: Callable[[], float] = time.time) -> bool:
    """Say whether this driver may still be writing: by its process where that can be seen, else by its heartbeat."""
    if holder.released:
        return False
    if holder.place == _place():
        return _process_started(holder.pid) == holder.started
    return abs(now() - holder.heartbeat) < holder.ttl  # far ahead is no sign of life: then it is watched (`_silent`)


def _acquire(uri: str, me: Holder) -> Holder:
    for _ in range(ATTEMPTS):
        found, mark = _read(uri)
        if found is None:
            mine = replace(me, fence=1)
            if storage.put_once(uri, mine.to_bytes()):
                return mine
            continue
        if alive(found) or not _silent(uri, found):
            raise RunError(
                f"The run {_run_of(uri)} has a driver already: {found.sentence()}. "
                "Wait for it, or stop it first; the same command then goes on where it stopped."
            )
        beats = {**found.beats, str(found.fence): found.heartbeat}
        mine = replace(me, fence=found.fence + 1, beats=beats)
        if storage.replace_if(uri, mine.to_bytes(), expected=mark):
            if not found.released:
                log.warning("Taking over %s from %s, which is gone.", _run_of(uri), found.sentence())
            return mine
    raise RunError(f"The run {_run_of(uri)} is being opened by many drivers at once. Start one.")


def _silent(uri: str, found: Holder) -> bool:
    """Clocks of two machines differ: before taking over from elsewhere, watch for two beats whether it writes."""
    if found.released or found.place == _place():
        return True
    time.sleep(2 * found.ttl / BEATS_PER_TTL)
    now = read_lease(uri)
    return now is not None and now.fence == found.fence and now.heartbeat == found.heartbeat


def _run_of(uri: str) -> str:
    return uri.rsplit("/", 1)[0]


def _me(ttl: float) -> Holder:
    now, pid = time.time(), os.getpid()
    return Holder(
        host=socket.gethostname(),
        place=_place(),
        pid=pid,
        started=_process_started(pid) or "",
        since=now,
        heartbeat=now,
        ttl=ttl,
        fence=0,
    )


def _place() -> str:
    """Name the machine's boot and the process namespace: the same pid elsewhere is another process."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def _process_started(pid: int) -> str | None:
    """Return when a process started, in the system's own words, or None if it does not run (or is a zombie)."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None
