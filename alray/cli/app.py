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
from alray.cli import check, features, run, select, status
from alray.errors import AlrayError

app = typer.Typer(
    name="alray",
    help="Which pictures to pay to label next, and what that buys.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (run.run, select.select, features.features, status.status, check.check):
    app.command()(command)


class Stopped(BaseException):
    """A signal asked the process to end: every `with` on the way out gives back what it holds."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(words: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    log.setup()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    sys.exit(_ending(words))


def _ending(words: list[str] | None) -> int:
    try:
        app(words, prog_name="alray")
    except AlrayError as error:
        _say(str(error))
        return error.exit_code
    except Stopped as stopped:
        return _stopped(stopped.number)
    except SystemExit as ended:
        # Ray puts its own SIGTERM handler in place of ours, which exits with the number of the signal.
        return _stopped(signal.SIGTERM) if ended.code == signal.SIGTERM else _code(ended)
    except Exception:
        traceback.print_exc()
        _say("This is a fault of alray, not of your settings. The same command goes on from the last finished stage.")
        return 1
    return 0


def _code(ended: SystemExit) -> int:
    return ended.code if isinstance(ended.code, int) else int(ended.code is not None)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
    raise Stopped(number)


def _stopped(number: int) -> int:
    _say(f"Stopped by {signal.Signals(number).name}. The same command goes on from the last finished stage.")
    return 128 + number


def _say(text: str) -> None:
    print(f"alray: {text}", file=sys.stderr, flush=True)
