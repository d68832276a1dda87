"""The simulated labeller: the same answer each time, and a clear refusal for what it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from alray.errors import LabelsError
from alray.labelling import Ask, Oracle


@pytest.fixture
def oracle(tmp_path: Path) -> Oracle:
    path = tmp_path / "oracle.csv"
    path.write_text("id,label,status\na,1,\nb,2,\nc,,skipped\n")
    return Oracle(path=str(path))


def test_every_ask_gets_one_answer_with_its_request_id(oracle: Oracle) -> None:
    asks = [Ask("run", 3, i) for i in ("b", "c", "a")]
    oracle.ask(asks)
    answers = oracle.collect(asks)
    assert answers.ids == ["b", "c", "a"]
    assert answers.column("label") == ["2", None, "1"]
    assert answers.column("status") == ["labelled", "skipped", "labelled"]
    assert answers.column("request_id") == [a.request_id for a in asks]
    assert answers.column("round") == [3, 3, 3]
    assert oracle.collect(asks).rows() == answers.rows()


def test_what_the_file_has_cancelled_costs_nothing(tmp_path: Path) -> None:
    (tmp_path / "oracle.csv").write_text("id,label,status\na,1,\nb,,cancelled\nc,,skipped\n")
    answers = Oracle(path=str(tmp_path / "oracle.csv")).collect([Ask("run", 0, i) for i in "abc"])
    assert answers.column("status") == ["labelled", "cancelled", "skipped"] and answers.paid_ids() == {"a", "c"}


def test_unknown_ids_are_refused_before_anything_is_asked(oracle: Oracle) -> None:
    with pytest.raises(LabelsError, match=r"has no label for 2 of 3 picked ids, e\.g\. x, y\. Add their labels"):
        oracle.ask([Ask("run", 0, i) for i in ("a", "y", "x")])


def test_a_request_id_names_run_round_id_purpose_and_replica() -> None:
    asks = {
        Ask("run", 0, "a"),
        Ask("other", 0, "a"),
        Ask("run", 1, "a"),
        Ask("run", 0, "b"),
        Ask("run", 0, "a", "relabel"),
        Ask("run", 0, "a", "train", 1),
    }
    assert len({a.request_id for a in asks}) == 6
    assert Ask("run", 0, "a").request_id == Ask("run", 0, "a").request_id
