"""One logger a module, one progress line, and lines that say which run, round, stage and shard they are about.

Text is for people; `json` writes one object a line for programs. What a line is about is kept beside the thread that
writes it: a campaign says which run and round it is at, a stage its name, a worker its shard.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PROGRESS_AFTER_S = 2.0
"""A bar appears only on work that has already taken this long."""

SECRET = re.compile(r"(TOKEN|SECRET|PASSWORD|ACCESS_KEY|API_KEY)$")
"""Names of environment variables whose values never stand in a log."""

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Control characters but tab and line feed, marks that have no width or turn text round, and half characters."""

SECRET_LENGTH = 8
"""A shorter value is no secret, and may be a part of any word."""


class Format(StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


# What a line is about


_ABOUT: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039  # never changed in place


def about() -> dict[str, Any]:
    """Return what the lines of this thread are about: run, round, stage, shard, where they are known."""
    return dict(_ABOUT.get())


@contextmanager
def within(**facts: Any) -> Iterator[None]:
    """Let the lines of the block be about these facts too."""
    before = _ABOUT.set({**_ABOUT.get(), **facts})
    try:
        yield
    finally:
        _ABOUT.reset(before)


def note(**facts: Any) -> None:
    """Let the lines from here to the end of the enclosing `within` be about these facts too."""
    _ABOUT.set({**_ABOUT.get(), **facts})


# How a line is written


class Lines(logging.Formatter):
    """Lines for people: a message is one line, whatever names stand in it."""

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message.replace("\n", "\\n"))
        return super().formatMessage(record)


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, what it is about, and an exception if there is one.

    A record's `extra={"facts": {…}}` are fields of their own.
    """

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **about(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: _clean(value) for key, value in line.items()}, default=lambda value: _clean(str(value)))


def printable(text: str) -> str:
    """Return the text with what a terminal acts on, or hides, written out: escapes, returns, turns of direction.

    Names come from other people's files. Line breaks stay, and what follows one is indented, so that it cannot pass for
    a line of its own.
    """
    shown = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return re.sub(r"\n(?=\S)", "\n  ", shown)


def without_secrets(text: str) -> str:
    """Return the text without credentials in URIs, bearer tokens, and values of variables such as RAY_AUTH_TOKEN."""
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= SECRET_LENGTH:
            text = text.replace(value, "***")
    text = re.sub(r"(?i)\b(bearer) +[\w.~+/-]+=*", r"\1 ***", text)
    return re.sub(r"://[^/\s@]+@", "://***@", text)


def _clean(value: Any) -> Any:
    return without_secrets(value) if isinstance(value, str) else value


# Where lines go


_FORMAT = Format.TEXT


def setup(level: str = "INFO", format: Format | None = None) -> None:
    """Send alray's log to standard error, in this format; calling it again changes the level, and a format given."""
    global _FORMAT
    root = logging.getLogger("alray")
    root.setLevel(level)
    root.propagate = False
    if format is None and root.handlers:
        return
    _FORMAT = Format(format or _FORMAT)
    root.handlers[:] = [_handler(_FORMAT)]
    logging.captureWarnings(_FORMAT is Format.JSON)
    if _FORMAT is Format.JSON:
        adopt("py.warnings")


def written_as() -> Format:
    """Return the format that `setup` was last told."""
    return _FORMAT


def adopt(name: str) -> None:
    """Let another library's logger write as alray's does, where that is JSON."""
    if _FORMAT is Format.JSON:
        other = logging.getLogger(name)
        other.handlers[:] = logging.getLogger("alray").handlers
        other.propagate = False


def _handler(format: Format) -> logging.Handler:
    if format is Format.JSON:
        handler: logging.Handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
    elif sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False)
        handler.setFormatter(Lines("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    return handler


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, with a bar on standard error once two seconds have passed (terminals only)."""
    start, bar, task = time.perf_counter(), None, None
    try:
        for done, item in enumerate(items, start=1):
            yield item
            if bar is None and _has_bars() and time.perf_counter() - start > PROGRESS_AFTER_S:
                bar = Progress(
                    TextColumn("{task.description}"),
                    BarColumn(),
                    MofNCompleteColumn(),
                    TimeRemainingColumn(),
                    console=Console(stderr=True),
                    transient=True,
                )
                bar.start()
                task = bar.add_task(what, total=total)
            if bar is not None and task is not None:
                bar.update(task, completed=done)
    finally:
        if bar is not None:
            bar.stop()


def _has_bars() -> bool:
    return _FORMAT is Format.TEXT and sys.stderr.isatty()
