"""`alray sweep`: the table and the files at its end, its exit codes, and a backtest with its caveat."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from alray import storage
from alray.pool import digits
from alray.sweeps import trial

Alray = Callable[..., tuple[int, str, str]]


@pytest.fixture
def config(campaign: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the file of a sweep of two trials in this process."""
    monkeypatch.setattr(storage, "_sync", lambda path: None)  # nothing here outlives its process
    grid = "{strategy.name: [margin, random]}"
    text = f"sweep: {{folder: {tmp_path}/sweep, runtime: local, grid: {grid}}}\ncampaign: {campaign}\n"
    (tmp_path / "sweep.yaml").write_text(text)
    return str(tmp_path / "sweep.yaml")


def test_a_sweep_ends_with_its_table_and_its_files(config: str, tmp_path: Path, alray: Alray) -> None:
    code, out, err = alray("sweep", config, "campaign.budget.total=20")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    trials = [row for row in rows if "done" in row and row[0].startswith(("margin-seed=0-", "random-seed=0-"))]
    assert [row[1:6] for row in trials] == [[name, "0", "done", "2", "20"] for name in ("margin", "random")]
    assert [row[:4] for row in rows if row[:1] in (["margin"], ["random"])] == [
        ["margin", "1", "1", "20"],
        ["random", "1", "1", "20"],
    ]
    assert "Best: " in out and f"{tmp_path}/sweep/best.yaml" in out
    assert alray("run", f"{tmp_path}/sweep/best.yaml")[0] == 0
    assert alray("sweep", config, "campaign.budget.total=20")[:2] == (0, out)  # and nothing is run again


def test_a_changed_sweep_is_refused(config: str, alray: Alray) -> None:
    words = ["campaign.budget.total=10", "campaign.budget.initial=5", "campaign.budget.per_round=5"]
    assert alray("sweep", config, *words)[0] == 0
    code, out, err = alray("sweep", config, *words, "sweep.seeds=2")
    assert (code, out) == (2, "")
    assert "was begun with other settings" in err and "`sweep.seeds`: was [0], is now [0, 1]" in err


def test_a_failed_trial_is_named_and_the_command_exits_1(config: str, alray: Alray) -> None:
    grid = "sweep.grid={way: {good: {strategy.name: random}, bad: {strategy: {name: isal, params: all_weights}}}}"
    code, out, err = alray("sweep", config, grid, "campaign.budget.total=20")
    assert code == 1
    assert "Best: good" in out and "failed" in out
    assert err.splitlines()[-3].startswith("alray: 1 of 2 trials failed; the others are not touched by it:")
    assert err.splitlines()[-2].startswith("  bad-seed=0-") and "pictures" in err.splitlines()[-2]


def test_trials_that_have_not_ended_are_named_and_the_command_exits_1(
    config: str, alray: Alray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "drive", lambda given, report: None)  # as where another driver has them
    code, _, err = alray("sweep", config, "campaign.budget.total=20")
    assert code == 1 and "alray: 2 of 2 trials have not ended (margin-seed=0-" in err
    assert "Run the same command again: it goes on with these." in err


def test_a_backtest_prints_its_table_and_its_caveat(campaign: str, alray: Alray, config: str, tmp_path: Path) -> None:
    alray("run", campaign)
    code, out, err = alray("sweep", "--backtest", f"{tmp_path}/run", "--strategies", "margin, random", "--seeds", "1")
    assert code == 0, err
    rows = [line.split() for line in out.splitlines()]
    assert [row[:2] for row in rows if row[:1] in (["as"], ["margin"], ["random"])] == [
        ["as", "bought"],
        ["margin", "1"],
        ["random", "1"],
    ]
    assert "What this can tell: in which order these 30 labels would have been worth most." in out
    assert "those are 150 of its 180" in out and f"{tmp_path}/run-backtest/backtest.md" in out


def test_what_makes_no_sweep_is_the_users_mistake(campaign: str, config: str, alray: Alray) -> None:
    assert alray("sweep")[::2] == (
        2,
        "alray: Give the YAML file of a sweep, or a run to buy again: `alray sweep --backtest RUN`.\n",
    )
    assert "`--strategies` and `--seeds` belong to `--backtest`" in alray("sweep", config, "--seeds", "2")[2]
    code, _, err = alray("sweep", campaign)
    assert code == 2 and "sweep: missing" in err
    code, _, err = alray("sweep", config, "campaign.strategy.name=marign", "sweep.grid={}")
    assert code == 2 and "marign" in err and "Traceback" not in err


def test_the_bundled_digits_are_written_where_they_are_the_pool(
    config: str, alray: Alray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    alray("sweep", config, f"campaign.pool={digits.POOL}", "campaign.strategy.name=marign", "sweep.grid={}")
    assert (tmp_path / digits.POOL).exists()
