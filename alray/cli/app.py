"""The commands in one list, and the one place where an ending becomes an exit code and a sentence.

Exit codes say whether to try again. 0: done, or waiting for labels. 2: the user's mistake, which only a change of
settings or files puts right. 1: ours, the machine's or the cluster's; a retry goes on from the last finished stage, and
one that cannot help is refused with 2 before it asks for workers. 128 and the number of the signal: stopped by one; the
same command goes on.
"""

from __future__ import annotations

import errno
import functools
import inspect
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from alray import log
from alray.cli import check, features, pretrain, report, run, select, status, strategies, sweep
from alray.errors import AlrayError, StorageError
from alray.log import Format

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
    sweep.sweep,
    strategies.strategies,
    check.check,
)
FORMAT_VARIABLE = "ALRAY_LOG_FORMAT"
WRONG_WORDS: Any = typer.BadParameter.__bases__  # of the click that typer brings, or of the one beside it

LogFormat = Annotated[
    Format,
    typer.Option("--log-format", envvar=FORMAT_VARIABLE, help="How the log on standard error is written."),
]


def with_log_format(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with one more option, which every command has: the format of its log."""

    @functools.wraps(command)
    def run(log_format: Format, **words: Any) -> None:
        log.setup(format=log_format)
        command(**words)

    told = inspect.signature(command, eval_str=True).parameters.values()
    kind, text = inspect.Parameter.KEYWORD_ONLY, Format.TEXT
    option = inspect.Parameter("log_format", kind, default=text, annotation=LogFormat)
    run.__signature__ = inspect.Signature([*told, option])  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in [*told, option]}
    del run.__wrapped__  # typer would look at that, past the signature
    return run


for one in COMMANDS:
    app.command()(with_log_format(one))


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
    told = os.environ.get(FORMAT_VARIABLE)  # before the words are read, so that what is wrong with them is said so too
    log.setup(format=Format(told) if told in list(Format) else None)
    signals = Signals()
    signals.watch()
    try:
        code = app(words, prog_name="alray", standalone_mode=False)
    except BaseException as error:
        code = _ending(error, signals.received)
    sys.exit(code or 0)


def _ending(error: BaseException, received: int | None) -> int:
    """Say how a command ended, where it did not say so itself, and return its exit code."""
    if received is None and isinstance(error, SystemExit) and error.code == signal.SIGTERM:
        received = signal.SIGTERM  # Ray's own handler, in place of ours, exits with the signal's number
    if received is not None:
        # Whatever the error is: what is raised in a signal handler comes out of Ray's compiled code as another one.
        text = f"Stopped by {signal.Signals(received).name}. The same command goes on from the last finished stage."
        return _say(text, 128 + received)
    if isinstance(error, WRONG_WORDS):
        return _refuse_words(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, AlrayError):
        return _say(str(_first(error)), error.exit_code)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _say(f"{error}: the disk is full. Make room; the same command goes on.", 1)
    text = "This is a fault of alray, not of your settings. The same command goes on from the last finished stage."
    return _say(text, 1, error)


def _refuse_words(error: Any) -> int:
    """Say what is wrong with the command's words, in a line of the log where that is JSON, and return the exit code."""
    if log.written_as() is Format.JSON:
        return _say(f"{error.format_message()} See `{error.ctx.command_path if error.ctx else 'alray'} --help`.", 2)
    error.show()
    return int(error.exit_code)


def _first(error: AlrayError) -> BaseException:
    """Return the storage error that a command ends with: what it tries to put in order on its way out fails too."""
    found: BaseException = error
    before = error.__context__ if isinstance(error, StorageError) else None
    while before is not None:
        found = before if isinstance(before, StorageError) else found
        before = before.__context__
    return found


def _say(text: str, code: int, fault: BaseException | None = None) -> int:
    """Say why a command ends with this exit code, and where a fault of ours came from; return the code."""
    if log.written_as() is Format.JSON:
        logging.getLogger("alray").error(text, exc_info=fault, extra={"facts": {"exit_code": code}})
        return code
    trace = "" if fault is None else "".join(traceback.format_exception(fault))
    said = f"{log.printable(trace)}alray: {log.printable(text)}"
    print(log.without_secrets(said), file=sys.stderr, flush=True)
    return code
