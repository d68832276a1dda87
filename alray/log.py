"""One logger a module, one progress line, and stage timings that a program can read."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

PROGRESS_AFTER_S = 2.0
"""A bar appears only on work that has already taken this long."""


def setup(level: str = "INFO") -> None:
    """Send alray's log to standard error, once; calling it again only changes the level."""
    root = logging.getLogger("alray")
    root.setLevel(level)
    if not root.handlers:
        handler: logging.Handler
        if sys.stderr.isatty():
            handler = RichHandler(console=Console(stderr=True), show_path=False)
        else:
            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root.addHandler(handler)
        root.propagate = False


@contextmanager
def stage(logger: logging.Logger, name: str) -> Iterator[None]:
    """Log one line when a stage starts and one when it ends, with its seconds."""
    start = time.perf_counter()
    logger.info("%s …", name)
    yield
    logger.info("%s: %.1f s", name, time.perf_counter() - start)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield `items`, with a bar on standard error once two seconds have passed (terminals only)."""
    start, bar, task = time.perf_counter(), None, None
    try:
        for done, item in enumerate(items, start=1):
            yield item
            if bar is None and sys.stderr.isatty() and time.perf_counter() - start > PROGRESS_AFTER_S:
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
