"""Endings: an exit code and one sentence on standard error, without a traceback unless it is our fault."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from alray.cli import app
from alray.errors import AlrayError, ConfigError, StorageError

Alray = Callable[..., tuple[int, str, str]]


def raising(error: BaseException) -> Callable[..., None]:
    def command(*args: object, **kwargs: object) -> None:
        raise error

    return command


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("`seed` is 'x'."), 2, "alray: `seed` is 'x'.\n"),
        (StorageError("s3://b/k refused."), 1, "alray: s3://b/k refused.\n"),
        (AlrayError("odd"), 1, "alray: odd\n"),
    ],
)
def test_an_error_raised_on_purpose_is_its_message_alone(
    monkeypatch: pytest.MonkeyPatch, alray: Alray, error: AlrayError, code: int, said: str
) -> None:
    monkeypatch.setattr(app, "app", raising(error))
    assert alray("run") == (code, "", said)


def test_an_unexpected_error_shows_where_it_came_from(monkeypatch: pytest.MonkeyPatch, alray: Alray) -> None:
    monkeypatch.setattr(app, "app", raising(KeyError("lost")))
    code, _, err = alray("run")
    assert code == 1
    assert "Traceback" in err and "KeyError: 'lost'" in err
    assert err.endswith("alray: This is a fault of alray, not of your settings. The same command goes on from the "
                        "last finished stage.\n")  # fmt: skip


def test_a_termination_says_that_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch, alray: Alray) -> None:
    monkeypatch.setattr(app, "app", raising(SystemExit(15)))  # as Ray's own handler ends a process
    said = "alray: Stopped by SIGTERM. The same command goes on from the last finished stage.\n"
    assert alray("run") == (143, "", said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_told_even_where_it_comes_out_as_another_error(
    monkeypatch: pytest.MonkeyPatch, alray: Alray, number: signal.Signals
) -> None:
    def command(*args: object, **kwargs: object) -> None:
        try:
            signal.raise_signal(number)
        except app.Stopped as stopped:
            raise SystemError("returned a result with an exception set") from stopped

    monkeypatch.setattr(app, "app", command)
    said = f"alray: Stopped by {number.name}. The same command goes on from the last finished stage.\n"
    assert alray("run") == (128 + number, "", said)


@pytest.mark.parametrize("words", [["rnu"], ["run"], ["select", "--budget", "x"], ["status"]])
def test_words_that_are_no_command_are_the_users_mistake(alray: Alray, words: list[str]) -> None:
    code, _, err = alray(*words)
    assert code == 2
    assert err and "Traceback" not in err


def test_a_mistake_in_the_words_is_a_line_of_json_where_the_log_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALRAY_LOG_FORMAT", "json")
    for words, said in ((["run"], "Missing argument 'CONFIG'"), (["status", "--josn", "x"], "No such option")):
        ended = subprocess.run([sys.executable, "-m", "alray", *words], capture_output=True, text=True, check=False)
        line = json.loads(ended.stderr)
        assert ended.returncode == line["exit_code"] == 2 and said in line["message"]
        assert line["message"].endswith(f" See `alray {words[0]} --help`.")


def test_help_names_every_command(alray: Alray) -> None:
    code, out, _ = alray("--help")
    assert code == 0
    assert all(name in out for name in ("run", "select", "features", "status", "check"))


def test_a_real_signal_unwinds_the_process() -> None:
    code = (
        "import time\nfrom alray.cli import app\n"
        "def hang(*args, **kwargs):\n"
        "    try:\n        print('ready', flush=True); time.sleep(60)\n"
        "    finally:\n        print('gave back', flush=True)\n"
        "app.app = hang\napp.main([])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "gave back\n")
    assert "Stopped by SIGINT" in err


def test_the_module_is_the_same_door() -> None:
    out = subprocess.run(
        [sys.executable, "-m", "alray", "--help"], capture_output=True, text=True, env=os.environ.copy()
    )
    assert out.returncode == 0 and "Usage: alray" in out.stdout
