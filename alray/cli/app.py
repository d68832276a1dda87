"""The commands in one list, and the one place where an ending becomes an exit code and a sentence.

Exit codes: 0 done, or waiting for labels; 2 the user's mistake; 1 ours, the machine's or the cluster's; 128 and the
number of the signal when stopped by one.
"""

from __future__ import annotations

import signal
import sys
import traceback
from types import FrameType
from typing import NoReturn

import typer

from alray import log
from alray.cli import check, features, pretrain, report, run, select, status, strategies
from alray.errors import AlrayError

app = typer.Typer(
    name="alray",
    help="Which pictures to pay to label next, and what that buys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
COMMANDS = (
    run.run,
    select.select,
    features.features,
    pretrain.pretrain,
    status.status,
    report.report,
    strategies.strategies,
    check.check,
)
for one in COMMANDS:
    app.command()(one)


class Stopped(BaseException):
    """A signal asked the process to end: every `with` on the way out gives back what it holds."""


class Signals:
    """Turns the first SIGINT or SIGTERM into `Stopped`, and remembers it; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def watch(self) -> None:
        """Take both signals over."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._stop)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        self.received = number
        signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)


def main(words: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    log.setup()
    signals = Signals()
    signals.watch()
    try:
        app(words, prog_name="alray")
    except BaseException as error:
        sys.exit(_ending(error, signals.received))
    sys.exit(0)


def _ending(error: BaseException, received: int | None) -> int:
    """Say how a command ended, where it did not say so itself, and return its exit code."""
    if received is None and isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        received = (
            signal.SIGTERM
        )  # Ray puts a handler of its own in place of ours, which exits with the signal's number
    if received is not None:
        # Whatever the error is: what is raised in a signal handler comes out of Ray's compiled code as another one.
        _say(f"Stopped by {signal.Signals(received).name}. The same command goes on from the last finished stage.")
        return 128 + received
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, AlrayError):
        _say(str(error))
        return error.exit_code
    traceback.print_exception(error)
    _say("This is a fault of alray, not of your settings. The same command goes on from the last finished stage.")
    return 1


def _say(text: str) -> None:
    print(f"alray: {text}", file=sys.stderr, flush=True)
