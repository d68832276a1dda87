"""What the ledger refuses, what it keeps once, and what it says when a file is not what alray wrote."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alray.campaign.ledger import Balance, Ledger
from alray.errors import LabelsError, LedgerError, RunError
from alray.labelling import Ask, Labels


def nothing() -> None:
    """A guard that lets everything pass."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    out = Ledger(str(tmp_path / "run"), guard=nothing)
    out.commit_json("run.json", {"schema": 1, "name": "r"})
    return out


def again(ledger: Ledger) -> Ledger:
    return Ledger(ledger.run, guard=nothing)


def asks(*ids: str, round: int = 0) -> list[Ask]:
    return [Ask("r", round, i) for i in ids]


def answers(*given: Ask, status: str = "labelled") -> Labels:
    return Labels.of(
        {"id": a.id, "label": "x", "status": status, "request_id": a.request_id, "round": a.round} for a in given
    )


def test_the_balance_follows_every_step(ledger: Ledger) -> None:
    first = asks("a", "b", "c", "d")
    ledger.commit_asks(first)
    assert ledger.balance() == Balance(4, 0, 0, 0, 4)
    assert ledger.commit_answers(0, answers(*first[:2])) == 2
    assert ledger.commit_answers(0, answers(first[2], status="skipped")) == 1
    assert ledger.balance() == Balance(4, 2, 1, 0, 1)
    assert [a.id for a in ledger.outstanding()] == ["d"]
    ledger.commit_answers(0, answers(first[3], status="cancelled"))
    assert ledger.check() == Balance(4, 2, 1, 1, 0) == again(ledger).check()
    assert (ledger.balance().paid, ledger.balance().committed) == (3, 3)


def test_an_answer_collected_again_is_kept_once(ledger: Ledger) -> None:
    first = asks("a", "b")
    ledger.commit_asks(first)
    assert ledger.commit_answers(0, answers(first[0])) == 1
    assert ledger.commit_answers(0, answers(first[0])) == 0
    assert ledger.commit_answers(0, answers(*first, *first)) == 1
    assert sorted(again(ledger).answers().ids) == ["a", "b"]
    assert len(ledger.files("answers")) == 2


def test_asks_committed_again_are_one_entry_and_other_asks_are_refused(ledger: Ledger) -> None:
    ledger.commit_asks(asks("a"))
    ledger.commit_asks(asks("a"))
    assert len(again(ledger).asks()) == 1
    with pytest.raises(LedgerError, match="exists with other content"):
        ledger.commit_asks(asks("b"))
    assert [a.id for a in again(ledger).asks()] == ["a"]


def test_an_id_asked_for_in_two_rounds_is_a_contradiction(ledger: Ledger) -> None:
    ledger.commit_asks(asks("a", "b"))
    with pytest.raises(LedgerError, match=r"has 1 rows asked for in two rounds, e\.g\. `b`"):
        ledger.commit_asks(asks("b", "c", round=1))


def test_a_labeller_that_answers_what_was_not_asked_is_refused(ledger: Ledger) -> None:
    ledger.commit_asks(asks("a"))
    with pytest.raises(LabelsError, match="answered `z`"):
        ledger.commit_answers(0, answers(*asks("z")))
    assert ledger.files("answers") == []


def test_a_violated_balance_is_found(ledger: Ledger) -> None:
    first = asks("a", "b")
    ledger.commit_asks(first)
    ledger.commit("answers/0000-0001.parquet", answers(first[0]).to_bytes())
    ledger.commit("answers/0000-0002.parquet", answers(first[0]).to_bytes())
    with pytest.raises(LedgerError, match="has 1 rows answered twice"):
        again(ledger).check()


def test_an_answer_without_an_ask_is_found(ledger: Ledger) -> None:
    ledger.commit("answers/0000-0001.parquet", answers(*asks("a")).to_bytes())
    with pytest.raises(LedgerError, match=r"has 1 answers without an ask, e\.g\. to `a`"):
        ledger.check()


@pytest.mark.parametrize("name", ["asks/0000-train.parquet", "answers/0000-0001.parquet", "run.json"])
@pytest.mark.parametrize("data", [b"", b"garbage", b'{"schema": 2}', b"PAR1" * 3])
def test_a_corrupt_file_is_named_and_left_alone(ledger: Ledger, name: str, data: bytes) -> None:
    ledger.commit_asks(asks("a"))
    ledger.commit_answers(0, answers(*asks("a")))
    Path(ledger.uri(name)).write_bytes(data)
    before = {p: p.read_bytes() for p in Path(ledger.run).rglob("*") if p.is_file()}
    with pytest.raises(LedgerError) as error:
        again(ledger).check()
    assert ledger.uri(name) in str(error.value)
    assert {p: p.read_bytes() for p in Path(ledger.run).rglob("*") if p.is_file()} == before


def test_no_thread_of_arrows_outlives_the_reading(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lets go of Python's bytes while the process ends aborts it: `alray status` ended with 134 at times."""
    ledger.commit_asks(asks("a"))
    read, threads = pq.ParquetFile.read, []

    def noted(self: pq.ParquetFile, columns: object = None, use_threads: bool = True) -> object:
        threads.append(use_threads)
        return read(self, columns=columns, use_threads=use_threads)

    monkeypatch.setattr(pq, "read_table", None)
    monkeypatch.setattr(pq.ParquetFile, "read", noted)
    assert again(ledger).asks(0) == asks("a") and threads and not any(threads)


def test_asks_of_another_run_are_found(ledger: Ledger) -> None:
    ledger.commit_asks(asks("a"))
    Path(ledger.uri("run.json")).write_text('{"schema": 1, "name": "other"}')
    with pytest.raises(LedgerError, match="do not belong to this run"):
        again(ledger).asks()


def test_without_the_lease_nothing_is_written(ledger: Ledger) -> None:
    def lost() -> None:
        raise RunError("lost")

    with pytest.raises(RunError):
        Ledger(ledger.run, guard=lost).commit_asks(asks("a"))
    with pytest.raises(LedgerError, match="opened to be read"):
        Ledger(ledger.run).commit_asks(asks("a"))
    assert ledger.asks() == []


def test_hidden_files_of_others_are_no_part_of_it(ledger: Ledger) -> None:
    ledger.commit_asks(asks("a"))
    for name in ("asks/.DS_Store", "answers/.nfs0001", "costs/.DS_Store"):
        path = Path(ledger.uri(name))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    assert len(again(ledger).asks()) == 1
    assert len(again(ledger).answers()) == 0
    assert again(ledger).files("costs") == []


def test_what_a_killed_commit_left_behind_is_removed(ledger: Ledger) -> None:
    ledger.commit_asks(asks("a"))
    left = Path(ledger.uri("asks/.tmp-0123-0000-train.parquet"))
    left.write_bytes(b"half")
    assert len(again(ledger).asks()) == 1
    again(ledger).sweep()
    assert not left.exists()
    assert len(again(ledger).asks()) == 1
