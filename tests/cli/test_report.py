"""`alray report` on small real campaigns, from their folders to its tables and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from campaigns import settings, write_pool

from alray import campaign

Alray = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run margin and random with two seeds, random to twice the budget."""
    folder = tmp_path_factory.mktemp("report")
    write_pool(folder)
    for seed in (0, 1):
        for strategy, total in (("margin", 24), ("random", 42)):
            words = [f"seed={seed}", f"strategy={strategy}", f"budget.total={total}"]
            campaign.run(settings(folder, folder / f"runs/{strategy}-{seed}", *words))
    return str(folder / "runs")


def test_the_tables_of_real_campaigns(runs: str, alray: Alray) -> None:
    code, out, err = alray("report", runs, "--target", "0.66")
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    accuracy = [line[:2] for line in lines if line[:1] == ["svpp/margin"] and len(line) > 5 and "." in line[2]]
    assert [labels for _, labels in accuracy[:3]] == ["12", "18", "24"]
    for part in ("Hours", "Accuracy at each budget", "What an accuracy of 0.66 took", "What it saved at 0.66",
                 "price of a core-hour", "Who beats whom", "At $0.1 a label, $1 a core-hour"):  # fmt: skip
        assert part in out
    assert "there are no runs of the regime `standard`, so no overall cost reduction" in out
    assert "where the reference is flat, those of its labels that are nearest" in out
    assert "Intervals are over seeds only: what all seeds share is in no interval, as one pre-trained backbone" in out


def test_json_has_what_the_statuses_have(runs: str, alray: Alray) -> None:
    code, out, err = alray("report", f"{runs}/margin-*", f"{runs}/random-*", "--json", "--target", "0.66")
    assert code == 0, err
    found = json.loads(out)
    assert [(g["group"], g["seeds"]) for g in found["groups"]] == [("svpp/margin", [0, 1]), ("svpp/random", [0, 1])]
    told = [campaign.status(f"{runs}/margin-{seed}").accuracy for seed in (0, 1)]
    mean = [row["accuracy"] for row in found["budgets"] if row["group"] == "svpp/margin"]
    assert mean == pytest.approx([(a + b) / 2 for a, b in zip(*told, strict=True)])
    margin = found["targets"][0]
    assert margin["reference"] == "svpp/random" and margin["baseline"] is None
    assert margin["dollars"]["value"] == pytest.approx(0.1 * margin["labels"]["value"] + margin["hours"]["cpu"])


def test_files_by_their_suffix(runs: str, alray: Alray, tmp_path: Path) -> None:
    for suffix, start in (("json", '{\n "schema": 1'), ("csv", "table,group"), ("md", "# What the campaigns saved")):
        code, out, err = alray("report", runs, "--out", str(tmp_path / f"r.{suffix}"))
        assert code == 0, err
        assert out.endswith(f"Written to {tmp_path}/r.{suffix}.\n")
        assert (tmp_path / f"r.{suffix}").read_text().startswith(start)
    code, _, err = alray("report", runs, "--out", str(tmp_path / "r.txt"))
    assert code == 2 and "the format follows the suffix; expected .json, .csv, .md" in err


def test_prices_put_on_afresh(runs: str, alray: Alray) -> None:
    words = ("--label-price", "2", "--cpu-hour", "0", "--gpu-hour", "0", "--target", "0.66", "--json")
    found = json.loads(alray("report", runs, *words)[1])
    assert found["prices"] == {"label": 2.0, "cpu_hour": 0.0, "gpu_hour": 0.0, "as_paid": False}
    assert all(row["compute_dollars"] == 0 for row in found["targets"])
    hours = json.loads(alray("report", runs, "--cpu-hour", "0", "--target", "0.66", "--json")[1])
    assert hours["prices"] == {"label": 0.1, "cpu_hour": 0.0, "gpu_hour": 0.0, "as_paid": True}


def test_one_run_alone_is_a_report_too(runs: str, alray: Alray) -> None:
    code, out, err = alray("report", f"{runs}/margin-0")
    assert code == 0, err
    assert "there are no runs of the strategy `random`, so no savings in labels" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{runs}/none",), "There is no run in"),
        (("{runs}", "--reference", "badge"), "No run belongs to `--reference badge`."),
        (("{runs}", "--baseline", "standard"), "No run belongs to `--baseline standard`."),
        (("{runs}", "--target", "60"), "The target is 60; expected an accuracy above 0 and up to 1"),
        (("{runs}", "--label-price", "-1"), "--label-price"),
        (("{runs}", "--cpu-hour", "inf"), "--cpu-hour"),
    ],
)
def test_mistakes_are_the_users_and_said(runs: str, alray: Alray, words: tuple[str, ...], said: str) -> None:
    code, out, err = alray("report", *(word.format(runs=runs) for word in words))
    assert (code, out) == (2, "")
    assert said in err and "Traceback" not in err


def test_a_target_that_nobody_reaches_is_no_mistake(runs: str, alray: Alray) -> None:
    code, out, _ = alray("report", runs, "--target", "0.999")
    assert code == 0
    assert "not reached" in out and "No curve has 0.999 between its first and its last budget" in out
