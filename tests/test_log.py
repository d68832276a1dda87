"""A log line says what it is about, is one JSON object where programs read it, and never holds a secret."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from alray import log
from alray.log import Format

Setup = Callable[..., io.StringIO]
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def setup() -> Iterator[Setup]:
    """Return `log.setup`, which then returns what standard error gets; afterwards the log is as it was."""
    root = logging.getLogger("alray")
    before = (root.handlers[:], root.propagate, root.level, log.written_as())
    own = io.StringIO()

    def set_up(*words: Any, **named: Any) -> io.StringIO:
        with redirect_stderr(own):
            log.setup(*words, **named)
        return own

    yield set_up
    root.handlers[:], root.propagate, root.level, log._FORMAT = before
    logging.captureWarnings(False)
    for name in ("py.warnings", "another"):
        logging.getLogger(name).handlers.clear()


@pytest.fixture
def lines(setup: Setup) -> Lines:
    """Log as JSON; return what was logged."""
    own = setup(format=Format.JSON)
    return lambda: [json.loads(line) for line in own.getvalue().splitlines()]


def test_a_json_line_has_time_level_logger_and_message(lines: Lines) -> None:
    logging.getLogger("alray.pool").warning("%d rows\nare odd: “α”", 3)
    [line] = lines()
    assert line.keys() == {"time", "level", "logger", "message"}
    assert (line["level"], line["logger"], line["message"]) == ("WARNING", "alray.pool", "3 rows\nare odd: “α”")
    said = datetime.fromisoformat(line["time"])
    assert line["time"].endswith("Z") and abs(datetime.now(UTC) - said) < timedelta(minutes=5)


def test_a_line_says_what_the_work_at_hand_is_about(lines: Lines) -> None:
    say = logging.getLogger("alray").info
    with log.within(run="runs/a"):
        log.note(round=3)
        say("round")
        with log.within(stage="select", shard=7):
            say("shard")
        say("after")
    say("outside")
    facts = [{k: v for k, v in line.items() if k not in ("time", "level", "logger", "message")} for line in lines()]
    known = {"run": "runs/a", "round": 3}
    assert facts == [known, {**known, "stage": "select", "shard": 7}, known, {}]
    assert log.about() == {}


def test_a_line_that_an_error_ends_is_about_nothing_afterwards(lines: Lines) -> None:
    with pytest.raises(KeyError), log.within(run="runs/a"):
        raise KeyError("x")
    assert log.about() == {}


def test_facts_of_one_line_are_fields_of_it(lines: Lines) -> None:
    with log.within(shard=1):
        logging.getLogger("alray").info("lost", extra={"facts": {"shard": 2, "exit_code": 1}})
    [line] = lines()
    assert (line["shard"], line["exit_code"]) == (2, 1)


def test_an_exception_is_a_field(lines: Lines) -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger("alray").exception("it failed")
    [line] = lines()
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback") and line["exception"].endswith("ValueError: a\nb")


def test_warnings_and_other_libraries_write_the_same_lines(lines: Lines) -> None:
    logging.getLogger("another").addHandler(logging.StreamHandler())
    log.adopt("another")
    logging.getLogger("another").error("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("careful", UserWarning, stacklevel=1)
    theirs, warned = lines()
    assert (theirs["logger"], warned["logger"]) == ("another", "py.warnings")
    assert "careful" in warned["message"]


def test_text_is_the_default_and_as_it_was(setup: Setup) -> None:
    logging.getLogger("alray").handlers.clear()
    written = setup()
    with log.within(run="runs/a"):
        logging.getLogger("alray.pool").info("3 rows")
    setup("WARNING")
    logging.getLogger("alray.pool").info("no more")
    assert re.fullmatch(r"[\d-]+ [\d:,]+ INFO alray.pool: 3 rows\n", written.getvalue())


def test_another_librarys_text_is_left_alone(setup: Setup) -> None:
    setup(format=Format.TEXT)
    theirs = logging.StreamHandler()
    logging.getLogger("another").addHandler(theirs)
    log.adopt("another")
    assert theirs in logging.getLogger("another").handlers


@pytest.mark.parametrize("format", Format)
@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("token 0123456789abcdef refused", "token *** refused"),
        ("key wJalrXUtnFEMI sent", "key *** sent"),
        ("GET s3://AKIA:pa55word@bucket/key failed", "GET s3://***@bucket/key failed"),
        ("Authorization: Bearer abc.def-12==", "Authorization: Bearer ***"),
        ("the token file is /home/a/token", "the token file is /home/a/token"),
        ("a short one stays", "a short one stays"),
    ],
)
def test_a_secret_is_never_written(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, format: Format, said: str, written: str
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/home/a/token")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("MY_PASSWORD", "short")
    written_lines = setup(format=format)
    try:
        raise ValueError(said)
    except ValueError:
        with log.within(stage=said):
            logging.getLogger("alray").exception(said)
    text = written_lines.getvalue()
    for secret in ("0123456789abcdef", "wJalrXUtnFEMI", "pa55word", "abc.def"):
        assert secret not in text
    assert written in text


def test_bars_are_not_drawn_between_json_lines(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(log, "PROGRESS_AFTER_S", -1.0)
    assert list(log.progress(range(3), 3, "scan")) == [0, 1, 2]
    assert lines() == []
