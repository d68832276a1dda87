"""Campaigns of the three regimes on what is odd: no random row, one class, a pool that ends, a disk that is full."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any, ClassVar, Literal

import campaigns
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from campaigns import regime_settings

from alray import storage
from alray.campaign import run
from alray.errors import StorageError
from alray.labelling import LABELLERS, Ask, Labels, Oracle

ASVP = {"regime": "asvp", "switch": {"at": 15}}
EVIDENCE = {"regime": "asvp", "switch": {"name": "logme_ped", "min_per_class": 1}}
STANDARD = {"regime": "standard"}
ALL = pytest.mark.parametrize("regime", [ASVP, EVIDENCE, STANDARD], ids=["at", "logme_ped", "standard"])


def finish(data: Path, folder: Path, **more: Any) -> Any:
    """Run to the end; return how it stands."""
    done = run(regime_settings(data, folder, **{"pretrain": None, **more}))
    assert done.state == "done"
    return done


@ALL
def test_given_labels_and_no_random_row(regime: dict[str, Any], data: Path, tmp_path: Path) -> None:
    given = tmp_path / "given.parquet"
    pq.write_table(pq.read_table(data / "pictures/oracle.parquet").slice(0, 20), given)
    budget = {"initial": 0, "per_round": 6, "total": 12, "control": 0.34}
    assert finish(data, tmp_path / "run", **regime, labels=str(given), budget=budget).rounds == 3


@ALL
def test_one_class_only(regime: dict[str, Any], data: Path, tmp_path: Path) -> None:
    ids = pq.read_table(data / "pictures/oracle.parquet")["id"]
    pq.write_table(pa.table({"id": ids, "label": ["x"] * len(ids)}), tmp_path / "one.parquet")
    labeller = {"name": "oracle", "path": str(tmp_path / "one.parquet")}
    assert finish(data, tmp_path / "run", **regime, labeller=labeller, test=None).labels == 21


@pytest.mark.parametrize("regime", [ASVP, STANDARD], ids=["asvp", "standard"])
def test_a_pool_that_ends_ends_the_campaign_with_a_trained_model(
    regime: dict[str, Any], data: Path, tmp_path: Path
) -> None:
    budget = {"initial": 30, "per_round": 20, "total": 500, "control": 0.2}
    done = finish(data, tmp_path / "run", **regime, budget=budget)
    assert (done.labels, done.per_round[-1]["model"] != "head") == (60, True)


class Late(Oracle):
    """Answers a few asks a call."""

    name: Literal["late"] = "late"  # type: ignore[assignment]
    some: ClassVar[int] = 0

    def collect(self, asks: list[Ask]) -> Labels:  # type: ignore[override]
        return super().collect(sorted(asks, key=lambda ask: ask.id)[: Late.some])


def test_late_answers_decide_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABELLERS, "late", Late)  # type: ignore[arg-type]
    late = {"name": "late", "path": f"{data}/pictures/oracle.parquet"}
    waits = regime_settings(data, tmp_path / "run", **ASVP, pretrain=None, labeller=late)
    states = []
    for Late.some in (0, 4, 7, 4, 1, 1):
        states.append(run(waits).state)
    assert states == ["waiting"] * 5 + ["done"]
    finish(data, tmp_path / "other", **ASVP)
    slow, prompt = (campaigns.ledger(tmp_path / name) for name in ("run", "other"))
    for found in (slow, prompt):
        for record in found["rounds"]:  # type: ignore[attr-defined]
            del record["config"]  # the labeller has another name
        found["answers"] = sorted(found["answers"])  # type: ignore[call-overload]
    assert slow == prompt


@pytest.mark.parametrize("full", ["/aligned/", "/trial/", "-features/", "switch.json", "aligned.json"])
def test_a_full_disk_is_said_and_the_same_command_goes_on(
    full: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = storage._commit

    def refuse(temp: Path, uri: str, *, once: bool = False) -> bool:
        if full in uri.removeprefix(str(tmp_path)):
            raise OSError(errno.ENOSPC, "No space left on device", str(temp))
        return commit(temp, uri, once=once)

    switch = {"at": 15, "guard": "half" if full == "/trial/" else "none"}
    wanted = regime_settings(data, tmp_path / "run", regime="asvp", switch=switch, pretrain=None)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "_commit", refuse)
        with pytest.raises(StorageError, match=r"the disk is full\. Make room; the same command goes on\."):
            run(wanted)
    assert run(wanted).labels == 21
