"""A whole campaign: what its rounds hold, when it stops, when it waits, and what it never does twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import pyarrow.parquet as pq
import pytest
from campaigns import settings

from alray import runtime as runtimes
from alray.campaign import ready, run, status, workplace
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import Round
from alray.errors import LabelsError, LedgerError, ModelError, PoolError, QuarantineError, RunError, TrainingError
from alray.labelling import LABELLERS, Ask, Labeller, Labels, Oracle, read_labels
from alray.strategies import Given, Strategy
from alray.strategies.coreset import CoreSet
from alray.training import FineTune


def ids(folder: Path, pattern: str) -> list[str]:
    return [i for file in sorted(folder.glob(pattern)) for i in pq.read_table(file)["id"].to_pylist()]


def round_json(folder: Path, number: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"rounds/{number:04d}/round.json").read_text())
    return found


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if workers are asked for."""

    def refuse(config: object) -> None:
        raise AssertionError("workers were asked for")

    monkeypatch.setattr(workplace, "open_runtime", refuse)


class Slow(Labeller):
    """A labeller that answers when the test says so, and remembers what it was sent."""

    name: Literal["slow"] = "slow"
    path: str
    sent: ClassVar[list[str]] = []
    open: ClassVar[int] = 0

    def ask(self, asks: Sequence[Ask]) -> None:
        Slow.sent += [ask.request_id for ask in asks]

    def collect(self, asks: Sequence[Ask]) -> Labels:
        return Oracle(path=self.path).collect(list(asks)[: Slow.open])


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, data: Path) -> Iterator[dict[str, str]]:
    monkeypatch.setitem(LABELLERS, "slow", Slow)
    Slow.sent, Slow.open = [], 0
    yield {"name": "slow", "path": f"{data}/oracle.parquet"}


def test_three_rounds_and_their_books(data: Path, tmp_path: Path) -> None:
    done = run(settings(data, tmp_path / "run"))
    assert (done.state, done.rounds, done.labels) == ("done", 3, 21)
    assert [row["labels"] for row in done.per_round] == [12, 6, 3]  # the last is cut to what is left
    assert [row["labels_so_far"] for row in done.per_round] == [12, 18, 21]
    assert done.label_dollars == pytest.approx(2.1)
    assert done.dollars == pytest.approx(sum(row["dollars"] for row in done.per_round)) and done.dollars > 2.1
    assert all(a is not None and 0.4 < a <= 1 for a in done.accuracy)
    folder = tmp_path / "run"
    asked = ids(folder, "asks/*.parquet")
    assert len(set(asked)) == len(asked) == 21 == len(ids(folder, "answers/*.parquet"))
    assert asked == ids(folder, "rounds/*/picks.parquet")
    reasons = [set(pq.read_table(f)["reason"].to_pylist()) for f in sorted(folder.glob("rounds/*/picks.parquet"))]
    assert reasons == [{"initial"}, {"strategy"}, {"strategy"}]
    truth = read_labels(f"{data}/oracle.parquet").mapping()
    labels = read_labels(f"{folder}/rounds/0002/labels.parquet").mapping()
    assert labels == {i: truth[i] for i in asked}


def test_a_round_says_what_it_used_and_what_it_cost(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    record, ledger = round_json(tmp_path / "run", 1), Ledger(str(tmp_path / "run"))
    numbers = {"forecast.json", "metrics.json", "cost.json"}
    assert set(record["sha256"]) == {"picks.parquet", "labels.parquet", "head.safetensors", *numbers}
    assert record["picks_digest"] == Round(ledger, 1).picks().digest()
    assert (record["model"], record["hardware"]) == ("head", runtimes.LocalRuntime().hardware)
    assert record["answers"] == ["answers/0000-0001.parquet", "answers/0001-0001.parquet"]
    assert set(record["cost"]["stages"]) == {"select", "labels", "fit", "estimate", "test"}
    assert all(stage["seconds"] > 0 and stage["cpu_seconds"] > 0 for stage in record["cost"]["stages"].values())
    assert set(round_json(tmp_path / "run", 0)["cost"]["stages"]) >= {"workers", "features", "load"}
    assert len(record["config"]) == 64


def test_the_same_command_again_changes_nothing_and_asks_for_no_workers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(settings(data, tmp_path / "run"))
    files = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*.*") if p.name not in ("lease.json", "state.json")}
    monkeypatch.setattr(workplace, "open_runtime", None)
    assert run(settings(data, tmp_path / "run")) == first
    after = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*.*") if p.name not in ("lease.json", "state.json")}
    assert after == files


def test_the_run_folder_has_no_say_in_the_picks(data: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        run(settings(data, tmp_path / name))
        digests.append([round_json(tmp_path / name, n)["picks_digest"] for n in range(3)])
    assert digests[0] == digests[1]
    run(settings(data, tmp_path / "c", "seed=1"))
    assert round_json(tmp_path / "c", 0)["picks_digest"] != digests[0][0]


def test_a_raised_budget_goes_on(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    more = run(settings(data, tmp_path / "run", "budget.total=30", "strategy=entropy"))
    assert [row["labels"] for row in more.per_round] == [12, 6, 3, 6, 3]
    assert (tmp_path / "run/configs/0002.yaml").exists()
    assert round_json(tmp_path / "run", 3)["config_file"] == "configs/0002.yaml"
    assert round_json(tmp_path / "run", 3)["config"] != round_json(tmp_path / "run", 2)["config"]


def test_dollars_end_a_campaign(data: Path, tmp_path: Path) -> None:
    done = run(settings(data, tmp_path / "run", budget={"initial": 12, "per_round": 6, "dollars": 1.45}))
    assert [row["labels"] for row in done.per_round] == [12, 2]


def test_a_pool_that_is_used_up_ends_a_campaign(data: Path, tmp_path: Path) -> None:
    done = run(settings(data, tmp_path / "run", budget={"initial": 60, "per_round": 50, "total": 500}))
    assert [row["labels"] for row in done.per_round] == [60, 20]


@pytest.mark.parametrize(("stop", "rounds"), [("stopping.rounds=2", 2), ("stopping.rounds=1", 1)])
def test_stopping_before_the_budget(data: Path, tmp_path: Path, stop: str, rounds: int) -> None:
    assert run(settings(data, tmp_path / "run", stop)).rounds == rounds


def test_given_labels_are_not_paid_for_and_not_picked(data: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.csv"
    truth = read_labels(f"{data}/oracle.parquet").mapping()
    given.write_text("id,label\n" + "".join(f"{i},{truth[i]}\n" for i in list(truth)[:30]))
    budget = {"initial": 0, "per_round": 5, "total": 10}
    done = run(settings(data, tmp_path / "run", budget=budget, labels=str(given)))
    assert [row["labels"] for row in done.per_round] == [0, 5, 5]
    assert not {*ids(tmp_path / "run", "asks/*.parquet")} & {*list(truth)[:30]}
    assert len(read_labels(f"{tmp_path}/run/rounds/0002/labels.parquet")) == 40


def test_held_out_rows_never_train(data: Path, tmp_path: Path) -> None:
    heads = []
    for share in (0.0, 0.3):
        run(settings(data, tmp_path / str(share), f"training.holdout={share}"))
        heads.append(round_json(tmp_path / str(share), 0)["sha256"]["head.safetensors"])
    assert heads[0] != heads[1]


def test_waiting_for_people_holds_no_workers(
    data: Path, tmp_path: Path, slow: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = settings(data, tmp_path / "run", labeller=slow)
    waits = run(now)
    assert (waits.state, waits.outstanding, waits.rounds, waits.labels) == ("waiting", 12, 0, 0)
    assert not ready(str(tmp_path / "run"))
    with monkeypatch.context() as patch:
        patch.setattr(workplace, "open_runtime", None)
        Slow.open = 5
        waits = run(now)
    assert (waits.state, waits.outstanding, waits.labels) == ("waiting", 7, 5)
    Slow.open = 100
    assert ready(str(tmp_path / "run"))
    done = run(now)
    assert (done.state, done.labels) == ("done", 21)
    assert not ready(str(tmp_path / "run"))
    asked = Ledger(str(tmp_path / "run")).asks()
    assert len({ask.request_id for ask in asked}) == 21 == len(set(Slow.sent))


def test_an_answered_ask_is_never_sent_again(data: Path, tmp_path: Path, slow: dict[str, str]) -> None:
    Slow.open = 5
    run(settings(data, tmp_path / "run", labeller=slow))
    had = set(Ledger(str(tmp_path / "run")).answers().column("request_id"))
    assert len(had) == 5
    Slow.sent = []
    run(settings(data, tmp_path / "run", labeller=slow))
    assert len(Slow.sent) == 7 and not had & set(Slow.sent)


def test_a_failure_is_kept_and_answered_without_workers(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise TrainingError("no worker lives")

    monkeypatch.setattr(FineTune, "fits", lambda *_: None)  # a fault that shows in training only
    now = settings(data, tmp_path / "run", "training.recipe=fine_tune")
    with monkeypatch.context() as patch:
        patch.setattr("alray.campaign.delivery.train", fail)
        with pytest.raises(TrainingError):
            run(now)
    failed = status(str(tmp_path / "run"))
    assert (failed.state, failed.message) == ("failed", "no worker lives")
    with monkeypatch.context() as patch:
        patch.setattr(workplace, "open_runtime", None)
        for _ in range(2):
            with pytest.raises(RunError, match=r"(?s)failed before, .*: no worker lives.* delete .*state\.json"):
                run(now)
            assert status(str(tmp_path / "run")) == failed
    (tmp_path / "run/state.json").unlink()
    with pytest.raises(ModelError, match="no pictures"):
        run(now)


def test_a_labeller_that_is_put_right_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = tmp_path / "short.csv"
    oracle.write_text("id,label\np0-000,class-0\n")
    now = settings(data, tmp_path / "run", f"labeller.path={oracle}")
    for _ in range(2):
        with pytest.raises(LabelsError, match=r"has no label for 1[12] of 12 picked ids"):
            run(now)
        assert status(str(tmp_path / "run")).state == "failed"
        monkeypatch.setattr(workplace, "open_runtime", None)
    monkeypatch.undo()
    truth = read_labels(f"{data}/oracle.parquet").mapping()
    oracle.write_text("id,label\n" + "".join(f"{i},{label}\n" for i, label in truth.items()))
    assert run(now).state == "done"


def test_what_can_be_retried_is_not_kept_as_a_failure(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(config: object) -> None:
        raise OSError("the network is down")

    with monkeypatch.context() as patch:
        patch.setattr(workplace, "open_runtime", broken)
        with pytest.raises(OSError, match="network"):
            run(settings(data, tmp_path / "run"))
    assert status(str(tmp_path / "run")).state == "running"
    assert ready(str(tmp_path / "run"))
    done = run(settings(data, tmp_path / "run"))
    assert done.state == "done"
    assert round_json(tmp_path / "run", 0)["cost"]["attempts"] == 2


@pytest.mark.usefixtures("no_workers")
def test_ids_in_pool_and_test_are_refused_before_workers(data: Path, tmp_path: Path) -> None:
    both = {"path": f"{data}/pool-0.parquet", "labels": f"{data}/oracle.parquet"}
    with pytest.raises(PoolError, match="stand in both the pool and the test set"):
        run(settings(data, tmp_path / "run", test=both))


@pytest.mark.usefixtures("no_workers")
def test_labels_of_unknown_rows_are_refused_before_workers(data: Path, tmp_path: Path) -> None:
    (tmp_path / "given.csv").write_text("id,label\nnobody,class-0\n")
    with pytest.raises(LabelsError, match=r"names 1 ids that are not in the pool, e\.g\. nobody"):
        run(settings(data, tmp_path / "run", labels=str(tmp_path / "given.csv")))
    test = {"path": f"{data}/test.parquet", "labels": f"{data}/oracle.parquet"}
    with pytest.raises(LabelsError, match="has no label for 30 of 30 test rows"):
        run(settings(data, tmp_path / "other", test=test))


@pytest.mark.parametrize("key", ["test.labels", "labels"])
@pytest.mark.usefixtures("no_workers")
def test_classes_that_are_not_named_are_refused_before_labels_are_paid_for(
    data: Path, tmp_path: Path, key: str
) -> None:
    given = {"labels": f"{data}/oracle.parquet", "test": None} if key == "labels" else {}
    with pytest.raises(LabelsError, match=rf"`{key}` .* rows of classes that `classes` does not name, .*`class-2`"):
        run(settings(data, tmp_path / "run", classes=["class-0", "class-1"], **given))
    assert ids(tmp_path / "run", "asks/*.parquet") == []


def test_answers_of_classes_that_are_not_named_are_refused(data: Path, tmp_path: Path) -> None:
    said = r"classes that `classes` does not name, e\.g\. `class-2`\. Did you mean .*paid for, in .*/run/answers,"
    with pytest.raises(LabelsError, match=said):
        run(settings(data, tmp_path / "run", classes=["class-0", "class-1"], test=None))


@pytest.mark.usefixtures("no_workers")
def test_a_recipe_that_cannot_train_is_refused_before_labels_are_paid_for(data: Path, tmp_path: Path) -> None:
    last = {"when": "last", "recipe": {"name": "lp_ft"}}
    with pytest.raises(ModelError, match="the pool holds `features` and no pictures"):
        run(settings(data, tmp_path / "run", training=last))
    assert ids(tmp_path / "run", "asks/*.parquet") == []


def test_what_was_refused_before_it_began_is_put_right_in_the_same_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        run(settings(data, tmp_path / "run", training={"recipe": {"name": "fine_tune"}}))
    assert run(settings(data, tmp_path / "run", "seed=1")).state == "done"
    with pytest.raises(RunError, match="`seed`: was 1, is now 0"):
        run(settings(data, tmp_path / "run"))


def test_bad_rows_are_kept_apart_and_too_many_stop_the_run(data: Path, tmp_path: Path) -> None:
    table = pq.read_table(data / "pool-0.parquet")
    features = table["features"].to_pylist()
    features[3] = [float("nan")] * len(features[3])
    pq.write_table(table.set_column(1, "features", [features]), tmp_path / "bad.parquet")
    with pytest.raises(QuarantineError, match="1 of 40 rows"):
        run(settings(data, tmp_path / "no", pool=str(tmp_path / "bad.parquet")))
    pool = {"path": str(tmp_path / "bad.parquet"), "max_quarantine": 0.1}
    budget = {"initial": 30, "per_round": 5, "total": 60}
    done = run(settings(data, tmp_path / "run", pool=pool, budget=budget))
    assert (done.state, done.labels) == ("done", 39)
    assert pq.read_table(tmp_path / "run/quarantine.parquet")["id"].to_pylist() == ["p0-003"]


def test_a_closed_round_that_was_changed_stops_everything(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run"))
    labels = tmp_path / "run/rounds/0001/labels.parquet"
    labels.write_bytes(labels.read_bytes() + b" ")
    with pytest.raises(LedgerError, match=r"rounds/0001/labels\.parquet is not the file that round 1 ended with"):
        run(settings(data, tmp_path / "run", "budget.total=30"))


def test_paid_labels_that_are_gone_stop_everything(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run", "stopping.rounds=2"))
    asked = ids(tmp_path / "run", "asks/*.parquet")
    for folder in ("asks", "answers"):  # a copy that lost them: without them the rows look as if never asked for
        next((tmp_path / "run" / folder).glob("0001-*")).unlink()
    with pytest.raises(LedgerError, match=r"answers/0001-0001\.parquet is missing: its labels are paid for"):
        run(settings(data, tmp_path / "run"))
    assert len(ids(tmp_path / "run", "asks/*.parquet")) == len(asked) - 6
    kept = f"{tmp_path}/run/rounds/0001/labels.parquet"  # as the message says: a new run has them without paying
    done = run(settings(data, tmp_path / "new", f"labels={kept}", "budget.initial=0"))
    assert not set(asked) & set(ids(tmp_path / "new", "asks/*.parquet"))
    assert done.state == "done"


def test_skipped_labels_are_paid_for_and_never_asked_for_again(data: Path, tmp_path: Path) -> None:
    truth = read_labels(f"{data}/oracle.parquet").mapping()
    oracle = tmp_path / "oracle.csv"
    rows = [f"{i},," + "skipped" if n % 3 == 0 else f"{i},{label}," for n, (i, label) in enumerate(truth.items())]
    oracle.write_text("id,label,status\n" + "\n".join(rows) + "\n")
    done = run(settings(data, tmp_path / "run", f"labeller.path={oracle}"))
    assert (done.labels, done.label_dollars) == (21, pytest.approx(2.1))
    balance = Ledger(str(tmp_path / "run")).check()
    assert balance.skipped > 0 and balance.answered + balance.skipped == balance.sent == 21
    assert len(read_labels(f"{tmp_path}/run/rounds/0002/labels.parquet")) == balance.answered


def test_a_strategy_knows_the_rows_that_a_person_skipped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, set[str]] = {}
    before = Strategy.prepare

    def prepare(self: Strategy, given: Given) -> dict[str, Any]:
        seen[given.round] = set() if given.skipped is None else set(given.skipped.ids)
        return before(self, given)

    monkeypatch.setattr(CoreSet, "prepare", prepare)
    names = sorted(read_labels(f"{data}/oracle.parquet").mapping())
    truth = read_labels(f"{data}/oracle.parquet").mapping()
    oracle, given = tmp_path / "oracle.csv", tmp_path / "given.csv"
    rows = [f"{i},,skipped" if n % 3 == 0 else f"{i},{truth[i]},labelled" for n, i in enumerate(names)]
    oracle.write_text("id,label,status\n" + "\n".join(rows) + "\n")
    given.write_text(f"id,label,status\n{names[0]},,skipped\n{names[1]},{truth[names[1]]},labelled\n")
    words = [f"labeller.path={oracle}", f"labels={given}", "strategy.name=coreset"]
    run(settings(data, tmp_path / "run", *words))
    ledger = Ledger(str(tmp_path / "run"))
    for number, skipped in seen.items():
        answered = Labels.concat([ledger.answers(n) for n in range(number)])
        assert skipped == {names[0], *(i for i in answered.ids if names.index(i) % 3 == 0)} != {names[0]}
    assert seen


def test_rows_that_given_labels_skipped_are_never_asked_for_and_cancelled_ones_may_be(
    data: Path, tmp_path: Path
) -> None:
    truth = read_labels(f"{data}/oracle.parquet").mapping()
    names = sorted(truth)
    status = ["labelled"] * 10 + ["skipped"] * 10 + ["cancelled"] * 10
    rows = [f"{i},{truth[i] if s == 'labelled' else ''},{s}" for i, s in zip(names[:30], status, strict=True)]
    given = tmp_path / "given.csv"
    given.write_text("id,label,status\n" + "\n".join(rows) + "\n")
    run(settings(data, tmp_path / "run", f"labels={given}", "budget.total=60", "budget.per_round=60"))
    asked = set(ids(tmp_path / "run", "asks/*.parquet"))
    assert asked == set(names[20:])
