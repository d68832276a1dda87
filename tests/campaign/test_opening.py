"""What may change between two commands on a run, and what may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml
from campaigns import settings

from alray import config
from alray.campaign import opening, run
from alray.campaign.ledger import Ledger
from alray.campaign.status import status
from alray.errors import ConfigError, LedgerError, RunError


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(str(tmp_path / "run"), guard=lambda: None)


def again(ledger: Ledger) -> Ledger:
    return Ledger(ledger.run, guard=lambda: None)


def test_a_run_keeps_its_resolved_settings(data: Path, ledger: Ledger) -> None:
    begun = opening.begin(ledger, settings(data, ledger.run))
    assert begun.file == "config.yaml"
    assert opening.latest(ledger) == ("config.yaml", settings(data, ledger.run))
    assert yaml.safe_load(Path(ledger.uri("config.yaml")).read_text())["training"]["when"] == "every"
    assert opening.begin(again(ledger), settings(data, ledger.run)) == begun


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed=1", "`seed`: was 0, is now 1"),
        ("pool.rows_per_shard=7", "`pool.rows_per_shard`: was 65536, is now 7"),
        ("classes=[a]", "`classes`: was None, is now ['a']"),
        ("features.backbone=vit_b_16", "`features.backbone`: was 'resnet18', is now 'vit_b_16'"),
        ("training.holdout=0.5", "`training.holdout`: was 0.1, is now 0.5"),
        ("training.recipe=auto", "  `training.recipe.name`: was 'linear_probe', is now 'auto'\nSet them back"),
    ],
)
def test_frozen_settings_are_refused_with_the_difference(data: Path, ledger: Ledger, change: str, said: str) -> None:
    opening.begin(ledger, settings(data, ledger.run))
    ledger.commit_json("pool/0001.json", {"schema": 1})  # the pool has been opened
    raw = yaml.safe_load(config.dump(settings(data, ledger.run)))
    changed = config.parse(raw, type(settings(data, ledger.run)), overrides=[change])
    with pytest.raises(RunError) as error:
        opening.begin(again(ledger), changed)
    assert said in str(error.value)
    assert "Set them back, or name a new folder in `run`. What may change: budget, costs" in str(error.value)
    assert ledger.files("configs") == []


def test_live_settings_are_appended(data: Path, ledger: Ledger) -> None:
    first = opening.begin(ledger, settings(data, ledger.run))
    second = opening.begin(again(ledger), settings(data, ledger.run, "budget.total=50", "strategy=entropy"))
    third = opening.begin(again(ledger), settings(data, ledger.run, "budget.total=60", "strategy=entropy"))
    assert [second.file, third.file] == ["configs/0002.yaml", "configs/0003.yaml"]
    assert len({first.digest, second.digest, third.digest}) == 3
    assert opening.begin(again(ledger), settings(data, ledger.run, "budget.total=60", "strategy=entropy")) == third


def test_where_and_on_what_a_run_runs_is_no_part_of_its_hash(data: Path, tmp_path: Path) -> None:
    plain = opening.digest(settings(data, tmp_path / "a"))
    assert plain == opening.digest(settings(data, tmp_path / "b", "runtime.name=ray", "features.path=elsewhere"))
    assert plain != opening.digest(settings(data, tmp_path / "a", "seed=1"))


def test_a_moved_run_goes_on(data: Path, ledger: Ledger, tmp_path: Path) -> None:
    begun = opening.begin(ledger, settings(data, ledger.run))
    Path(ledger.run).rename(tmp_path / "moved")
    moved = Ledger(str(tmp_path / "moved"), guard=lambda: None)
    assert opening.begin(moved, settings(data, tmp_path / "moved")) == begun


def test_unreadable_settings_are_named_and_kept(data: Path, ledger: Ledger) -> None:
    opening.begin(ledger, settings(data, ledger.run))
    file = Path(ledger.uri("config.yaml"))
    for text in ("", "[1, 2", "seed: {}", "nonsense: 1"):
        file.write_text(text)
        with pytest.raises(LedgerError, match=r"config\.yaml is not readable as settings"):
            opening.begin(again(ledger), settings(data, ledger.run))
        assert file.read_text() == text


def test_a_run_without_its_beginning_is_refused(data: Path, ledger: Ledger) -> None:
    opening.begin(ledger, settings(data, ledger.run))
    Path(ledger.uri("run.json")).unlink()
    with pytest.raises(LedgerError, match=r"has a campaign but no run\.json"):
        opening.begin(again(ledger), settings(data, ledger.run))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["runtime.name=ray", "runtime.address=ray://head:10001", "run=runs/x"], "`run` is the relative path 'runs/x'"),
        (["costs.label=0", "budget.dollars=3"], "`budget.dollars` needs the price of a label"),
        (["budget.initial=0"], "the first head needs some"),
        (["classes=[a, b, a]"], "`classes` has a name twice"),
        (["strategy=margn"], "Did you mean `margin`?"),
        (["training.recipe=lpft"], "Did you mean `lp_ft`?"),
        (["labeller=oracel"], "Did you mean `oracle`?"),
        (["regime=proxy"], "regime"),
    ],
)
def test_settings_that_do_not_fit_together(data: Path, tmp_path: Path, overrides: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        settings(data, tmp_path / "run", *overrides)
    assert said in str(error.value)


def test_a_token_that_was_forgotten_is_no_fault_of_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "run"
    monkeypatch.setattr("os.environ", {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH")})
    there = ["runtime.name=ray", "runtime.address=10.0.0.1:6379"]
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"^`runtime.address` is '10.0.0.1:6379', beyond loopback, and RAY_AUTH_"):
            run(settings(data, home, *there))
    assert status(str(home)).state == "failed"
    assert run(settings(data, home)).state == "done"


def test_stored_settings_that_were_tampered_with_are_bounded_too(data: Path, ledger: Ledger) -> None:
    opening.begin(ledger, settings(data, ledger.run))
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    Path(ledger.uri("config.yaml")).write_text("\n".join(lines))
    with pytest.raises(LedgerError, match=r"is not readable as settings that alray wrote.*aliases counted"):
        opening.latest(ledger)
