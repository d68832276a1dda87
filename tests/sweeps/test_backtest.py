"""A run's labels bought again: its own curve is met exactly, no strategy sees more than it bought, all begin alike."""

from __future__ import annotations

import json
from pathlib import Path

import campaigns
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alray import campaign
from alray.errors import ConfigError, RunError
from alray.labelling import read_labels
from alray.reports import Curve
from alray.sweeps import backtest as backtests
from alray.sweeps import bought
from alray.sweeps.backtest import Backtest, as_bought, backtest, levels
from alray.sweeps.grid import expand

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a campaign of four rounds, in whose second the pool was still larger than what it buys."""
    folder = tmp_path_factory.mktemp("backtest") / "run"
    campaign.run(campaigns.settings(data, folder, "budget.total=27"))
    return folder


@pytest.fixture(scope="module")
def found(run: Path) -> Backtest:
    """Buy its labels again."""
    made = backtest(str(run), strategies=["margin", "random"], seeds=2)
    made.write()
    return made


def test_the_runs_own_order_gives_the_runs_own_curve(run: Path, found: Backtest) -> None:
    own = as_bought(bought.read(str(run)), f"{run}-backtest/data")
    status = campaign.status(str(run))
    assert own.labels_P.tolist() == [row["labels_so_far"] for row in status.per_round] == [12, 18, 24, 27]
    assert own.accuracy_P.tolist() == status.accuracy
    assert found.lines[0].strategy == "as bought"
    assert [one.value for one in found.lines[0].labels] == [own.labels_for(level) for level in found.levels]


def test_no_strategy_sees_a_row_that_was_not_bought(run: Path, found: Backtest) -> None:
    answers = {i for f in run.glob("answers/*.parquet") for i in pq.read_table(f)["id"].to_pylist()}
    pool = pq.read_table(f"{run}-backtest/data/pool.parquet")
    assert set(pool["id"].to_pylist()) == answers and len(answers) == 27
    first = set(pq.read_table(run / "rounds/0000/picks.parquet")["id"].to_pylist())
    for result in found.finished.outcome.results:
        folder = Path(result.trial.settings.run)
        picked = [set(pq.read_table(f)["id"].to_pylist()) for f in sorted(folder.glob("rounds/*/picks.parquet"))]
        assert [len(ids) for ids in picked] == [6, 6, 3] and set().union(*picked) == answers - first
        assert [r["labels_used"] for r in result.reports] == [0, 6, 12, 15]
    ends = {r.reports[-1]["accuracy"] for r in found.finished.outcome.results if r.trial.seed == 0}
    assert ends == {campaign.status(str(run)).accuracy[-1]}  # all meet where everything is bought


def test_the_replayed_labels_are_the_runs(run: Path, found: Backtest) -> None:
    answers = read_labels(f"{run}-backtest/data/pool.parquet").mapping()
    assert answers == {
        i: label for f in run.glob("answers/*.parquet") for i, label in read_labels(str(f)).mapping().items()
    }


def test_it_says_what_it_can_and_cannot_tell(run: Path, found: Backtest) -> None:
    stored = json.loads(Path(f"{run}-backtest/backtest.json").read_text())
    assert stored["caveat"] == found.caveat and found.caveat in Path(f"{run}-backtest/backtest.md").read_text()
    assert "these 27 labels" in found.caveat and "those are 53 of its 80" in found.caveat
    assert "most of the 27 were picked by margin" in found.caveat
    assert [line["strategy"] for line in stored["lines"]] == ["as bought", "margin", "random"]
    assert len(found.cheapest()) == len(found.levels)
    assert not Path(f"{run}-backtest/best.yaml").exists()  # an order of these labels is no campaign to run
    cells = {row[0]: row for row in found.rows()}
    last = found.lines[0].labels[-1].value
    assert last is not None and cells["as bought"][-1] == f"{last * 0.1:.2f}"


def test_again_is_the_same_and_runs_nothing(run: Path, found: Backtest) -> None:
    stamps = {f: f.stat().st_mtime_ns for f in Path(f"{run}-backtest/runs").rglob("round.json")}
    assert len(stamps) == 16
    again = backtest(str(run), strategies=["margin", "random"], seeds=2)
    assert again.rows() == found.rows()
    assert {f: f.stat().st_mtime_ns for f in stamps} == stamps


def test_a_run_that_went_on_needs_a_new_folder(run: Path, data: Path, found: Backtest, tmp_path: Path) -> None:
    other = tmp_path / "run"
    campaign.run(campaigns.settings(data, other, "budget.total=21"))
    with pytest.raises(
        RunError, match=r"holds what .*/run had bought when it was written, .* Name a new folder: `sweep"
    ):
        backtest(
            str(other),
            [f"sweep.folder={run}-backtest", "sweep.runtime=local"],
            strategies=["margin", "random"],
            seeds=2,
        )


def test_given_labels_are_there_from_the_start_and_cost_nothing(run: Path, data: Path, tmp_path: Path) -> None:
    given = str(run / "rounds/0000/labels.parquet")
    more = {"labels": given, "budget": {"initial": 6, "per_round": 6, "total": 12}}
    campaign.run(campaigns.settings(data, tmp_path / "given", **more))
    found = bought.read(str(tmp_path / "given"))
    assert (found.free, len(found.start), [len(part) for part in found.rounds]) == (12, 18, [6])
    assert found.label_dollars == pytest.approx(1.2)


def test_features_are_those_that_the_run_began_with(data: Path, tmp_path: Path) -> None:
    """A network that was fine-tuned on the labels knows the answers."""
    told = campaigns.regime_settings(data, tmp_path / "run", regime="asvp", switch={"at": 15, "guard": "none"})
    campaign.run(told)
    records = [json.loads(f.read_text()) for f in sorted((tmp_path / "run").glob("rounds/*/round.json"))]
    assert any(record["aligned"] for record in records)
    purchase = bought.read(str(tmp_path / "run"))
    bought.write(purchase, str(tmp_path / "data"))
    table = pq.read_table(tmp_path / "data/pool.parquet")
    rows = dict(zip(table["id"].to_pylist(), table["features"].to_pylist(), strict=True))
    first = min((tmp_path / "run-features").glob("*/shard-*.arrow"), key=lambda file: file.stat().st_mtime_ns)
    made = pa.ipc.open_file(pa.memory_map(str(first))).read_all()
    known = dict(zip(made["id"].to_pylist(), made["features"].to_pylist(), strict=True))
    assert len(rows) == len(purchase.labels) and rows == {i: known[i] for i in rows}


def test_levels_rise_from_after_the_start_to_the_best() -> None:
    labels, accuracy = list(range(10, 90, 10)), [0.5, 0.6, 0.55, 0.7, 0.8, 0.8, 0.85, 0.9]
    found = levels(Curve.of(labels, accuracy))
    assert len(found) == 5 and found == sorted(set(found)) and found[-1] == 0.9 and found[0] > 0.5
    assert np.allclose(levels(Curve.of([1, 2], [0.5, 0.4])), [0.45])


def test_what_cannot_be_looked_back_on_is_refused(run: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no run in none: it has no settings"):
        backtest("none")
    with pytest.raises(ConfigError, match=r"marign.*Did you mean `margin`"):
        backtest(str(run), [f"sweep.folder={tmp_path}/x"], strategies=["marign"])
    assert not (tmp_path / "x").exists()
    with pytest.raises(ConfigError, match=r"`--strategies` names none: give names with commas"):
        backtest(str(run), strategies=[""])
    untested = campaigns.settings(data, tmp_path / "untested", test=None)
    campaign.run(untested, after_round=lambda number: False)
    with pytest.raises(RunError, match=r"has no test rows, so nothing can be said"):
        backtest(str(tmp_path / "untested"))
    campaign.run(campaigns.settings(data, tmp_path / "short"), after_round=lambda number: False)
    with pytest.raises(RunError, match=r"has finished 1 rounds, and its strategy has bought no label"):
        backtest(str(tmp_path / "short"))


def test_a_label_costs_what_came_for_the_money() -> None:
    """Two of three rows that were paid for have a label; a third of what stands in the table was given."""
    purchase = bought.Bought("r", None, {"a": "x", "b": "x"}, ({"c": "y"},), 1, 80, 0.6)  # type: ignore[arg-type]
    assert backtests._price(purchase) == pytest.approx(0.3)


def test_its_own_strategy_keeps_its_parameters(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = campaigns.settings(data, tmp_path / "run", strategy={"name": "alfa_mix", "cap_step": 0.1})
    purchase = bought.Bought("r", settings, {"a": "x"}, ({"b": "y"},), 0, 80, 0.2)
    told = backtests.plan(purchase, str(tmp_path / "run"), [], strategies=None, seeds=1)
    strategies = {t.configuration: t.settings.strategy for t in expand(told)}
    assert list(strategies) == ["alfa_mix", "random", "margin", "coreset", "badge"]
    (tmp_path / "run").mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path / "run")
    assert backtests.plan(purchase, ".", [], strategies=None, seeds=1).home == told.home == f"{tmp_path}/run-backtest"
    assert strategies["alfa_mix"] == settings.strategy
