"""Check a campaign, ask the cluster for workers, run the campaign: what a job does on a cluster that grows.

    python start.py CONFIG [key=value …] [--gpus 1] [--patience 1800]

`alray run` works with the GPUs that a cluster has when it is joined, and a cluster that nobody has asked for workers
has none. So workers are asked for and waited for here; but only after `alray check` has found nothing to mend, and not
for a run that is done, has failed for good, or still waits for people. It ends as `alray run` ends, with its exit code.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import alray
from alray.campaign import opening
from alray.campaign.ledger import Ledger
from alray.campaign.status import ready
from alray.cli import app
from alray.runtime.ray_cluster import address_of

LEASE_S = 120.0
"""A driver that went with its pod holds the run for a minute, and a new one then watches it for a third of that."""

POLL_S = 5.0


class Refusal(Exception):
    """There is something to mend, which the message says; `code` is the exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def main(words: list[str] | None = None) -> int:
    """Do all of it; return an exit code where something is to be mended, and end as `alray run` does where not."""
    asked = _parse(words)
    try:
        check(asked.config, asked.settings)
        settings = alray.load(asked.config, asked.settings)
        await_driver(settings.run)
        with workers(settings, asked.gpus, asked.patience):
            app.main(["run", asked.config, *asked.settings])
    except Refusal as refusal:
        _say(str(refusal))
        return refusal.code
    except alray.AlrayError as error:
        _say(str(error))
        return error.exit_code


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Check a campaign, ask for its workers, run it.")
    parser.add_argument("config", metavar="CONFIG", help="YAML file of a campaign")
    parser.add_argument("settings", metavar="key=value", nargs="*", help="settings to change")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs of each of `runtime.workers`")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds to wait for all of them")
    asked = parser.parse_intermixed_args(words)
    for name in ("gpus", "patience"):
        if not 0 <= getattr(asked, name) < float("inf"):
            parser.error(f"--{name} is {getattr(asked, name)}; it must be 0 or more, and finite")
    return asked


def check(config: str, words: list[str]) -> None:
    """Run `alray check` in this pod alone: on Ray it would ask for a worker."""
    command = [sys.executable, "-m", "alray", "check", config, *words, "runtime.name=local"]
    if code := subprocess.run(command).returncode:
        raise Refusal(code, "no worker was asked for: mend what `alray check` says, and submit the job again.")


def await_driver(run: str, wait: Callable[[float], None] = time.sleep) -> None:
    """Wait while a driver holds the run, but not for longer than a lost one can; `alray run` refuses a living one."""
    until = time.monotonic() + LEASE_S
    while time.monotonic() < until:
        try:
            driver = alray.status(run).driver
        except alray.UserError:
            return  # there is no run yet
        if driver is None:
            return
        _say(f"{run} is held by {driver}: waiting until that has been silent for long enough.")
        wait(POLL_S)


@contextmanager
def workers(settings: alray.Settings, gpus: float, patience: float) -> Iterator[None]:
    """Have the cluster keep this campaign's workers, where it needs any; afterwards it may let them go."""
    runtime = settings.runtime
    if runtime.name != "ray" or address_of(runtime) is None:
        yield
        return
    if not gets_further(settings):
        _say(f"{settings.run} would get no further: no worker is asked for.")
        yield
        return
    each = {"CPU": 1.0, **({"GPU": gpus} if gpus else {})}
    try:
        with request(runtime, [each] * runtime.workers) as ray:  # stays in force: a lost worker is replaced
            await_workers(ray.cluster_resources, each, runtime.workers, patience)
        yield
    finally:
        try:
            with request(runtime, []):
                pass  # a cluster that outlives the job shrinks again
        except Exception as error:  # the cluster is gone; how the run ended is what counts
            _say(f"the workers could not be let go: {error}")


@contextmanager
def request(runtime: alray.RuntimeConfig, bundles: list[dict[str, float]]) -> Iterator[Any]:
    """Tell the autoscaler to keep room for `bundles` from now on, this process or not; yield `ray`, joined."""
    with alray.open_runtime(runtime):
        import ray
        from ray.autoscaler.sdk import request_resources

        request_resources(bundles=bundles)
        yield ray


def gets_further(settings: alray.Settings) -> bool:
    """Say whether `alray run` would want workers, as far as the run folder knows."""
    try:
        now = alray.status(settings.run)
    except alray.UserError:
        return True  # there is no run yet
    if ready(settings.run):
        return True
    if now.state in ("done", "failed"):
        last = opening.latest(Ledger(opening.home(settings.run)))
        return last is None or last[1] != settings  # a larger budget takes a run that was done further
    return False


def await_workers(
    resources: Callable[[], Mapping[str, float]],
    each: Mapping[str, float],
    wanted: int,
    patience: float,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Wait until `wanted` workers that take `each` have room in `resources()`.

    After `patience` seconds those that have come must do: the picks do not depend on their number. Raises Refusal where
    none has.
    """
    until, before = time.monotonic() + patience, -1
    while (here := count(resources(), each)) < wanted:
        if here != before:
            _say(f"{here} of {wanted} workers are here ({_words(each)} each).")
            before = here
        if time.monotonic() > until:
            break
        wait(POLL_S)
    if not here:
        raise Refusal(
            1,
            f"no worker came within {patience:g} s: the cluster needs room for {_words(each)}. `kubectl describe pod` "
            "says why one is pending. The same job goes on from where the run is.",
        )
    _say(f"going on with {min(here, wanted)} of {wanted} workers.")  # the cluster may have room for more


def count(resources: Mapping[str, float], each: Mapping[str, float]) -> int:
    """Return how many workers that take `each` have room in `resources`."""
    return int(min(resources.get(name, 0.0) / amount for name, amount in each.items()))


def _words(each: Mapping[str, float]) -> str:
    return ", ".join(f"{amount:g} {name}" for name, amount in each.items())


def _say(text: str) -> None:
    print(f"start: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
