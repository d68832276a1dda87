"""Run a command the way a shell does, without starting a process for each."""

from __future__ import annotations

import io
import signal
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from typing import NamedTuple

import pytest

from alray.cli import app


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def alray() -> Iterator[Callable[..., Ended]]:
    """Return a function that runs `alray` with the given words."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(*words: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
            app.main([*words])
        return Ended(ended.value.code, out.getvalue(), err.getvalue())  # type: ignore[arg-type]

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)
