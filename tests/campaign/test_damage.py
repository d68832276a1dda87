"""Files of a run that were lost, cut or replaced: said by name, and never worked on as if they were the old ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from campaigns import parse, raw_settings, regime_settings, settings

from alray.campaign import Settings, run, status
from alray.campaign.stopping import StoppingConfig
from alray.errors import AlrayError, LedgerError, RunError
from alray.models import backbone as backbones
from alray.models.backbone import BACKBONE_FILE, BackboneConfig

BUDGET = {"initial": 15, "per_round": 6, "total": 33, "control": 0.34}


def upto(rounds: int, wanted: Settings) -> Settings:
    return wanted.model_copy(update={"stopping": StoppingConfig(rounds=rounds)})


def other(backbone: str, folder: Path) -> Path:
    """Write weights of the same shapes."""
    folder.mkdir()
    backbones.save(backbones.load(BackboneConfig(backbone=backbone, image_size=8), 7), folder, seed=7)
    return folder / BACKBONE_FILE


def picks(run: Path) -> list[str]:
    return sorted(p.parent.name for p in run.glob("rounds/*/picks.parquet"))


def refused(wanted: Settings, run_folder: Path, said: str) -> None:
    before = picks(run_folder)
    with pytest.raises(RunError) as caught:
        run(wanted)
    assert said in str(caught.value) and "Restore what it was from a copy, or start a new run." in str(caught.value)
    assert picks(run_folder) == before, "rows were picked all the same"


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"regime": "asvp", "switch": {"at": 15, "guard": "none"}, "pretrain": None}, "run/rounds/0000/aligned"),
        ({"regime": "standard", "pretrain": None}, "run/rounds/0001/checkpoint"),
        ({"pretrain": {"epochs": 1, "batch": 32, "dim": 8, "hidden": 4}}, "run-features/pretrained"),
    ],
    ids=["asvp", "standard", "svpp"],
)
def test_rows_are_not_picked_with_another_backbone(
    more: dict[str, Any], where: str, data: Path, tmp_path: Path
) -> None:
    wanted = regime_settings(data, tmp_path / "run", budget=BUDGET, **more)
    run(upto(2, wanted))
    shutil.copytree(tmp_path / where, tmp_path / "kept")
    weights = other("small_backbone:make", tmp_path / "other")
    for file in (tmp_path / where).rglob(BACKBONE_FILE):
        shutil.copy(weights, file)
    refused(upto(3, wanted), tmp_path / "run", "is not the one that this run worked with")
    shutil.rmtree(tmp_path / where)
    if more.get("regime"):  # a pre-trained one is made again
        refused(upto(3, wanted), tmp_path / "run", "is not whole: Cannot read")
    shutil.copytree(tmp_path / "kept", tmp_path / where)
    assert run(upto(3, wanted)).rounds == 3  # put back, it goes on


def test_a_weights_file_of_the_users_own_must_stay_what_it_was(data: Path, tmp_path: Path) -> None:
    weights = other("small_backbone:make", tmp_path / "other")
    features = {"backbone": "small_backbone:make", "image_size": 8, "path": f"{tmp_path}/features"}
    features["weights"] = str(shutil.copy(weights, tmp_path / "mine.safetensors"))
    wanted = regime_settings(data, tmp_path / "run", features=features, pretrain=None)
    run(upto(1, wanted))
    folder = tmp_path / "another"
    folder.mkdir()
    backbones.save(backbones.load(BackboneConfig(backbone="small_backbone:make", image_size=8), 8), folder, seed=8)
    shutil.copy(folder / BACKBONE_FILE, tmp_path / "mine.safetensors")
    refused(upto(2, wanted), tmp_path / "run", "mine.safetensors is not the one that this run worked with")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def emptied(file: Path) -> None:
    file.write_text('{"schema": 1}')


PIECES = ("switch.json", "forecast.json", "metrics.json", "cost.json", "round.json")


@pytest.fixture(scope="module")
def begun(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run two rounds that have a piece of every kind that needs no picture."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    run(upto(2, wanted(data, folder)))
    return folder


def wanted(data: Path, folder: Path) -> Settings:
    return parse(raw_settings(data, folder, regime="asvp"))


@pytest.mark.parametrize("harm", [cut, emptied, Path.unlink], ids=["cut", "emptied", "gone"])
@pytest.mark.parametrize("piece", PIECES)
def test_a_damaged_piece_is_named(
    piece: str, harm: Callable[[Path], None], begun: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(begun, tmp_path / "run")
    harm(tmp_path / f"run/rounds/0000/{piece}")
    try:
        status(str(tmp_path / "run"))
    except AlrayError as error:  # status may say so too; it must not break
        assert piece in str(error)
    again = upto(3, wanted(data, tmp_path / "run"))
    if (piece, harm) == ("round.json", Path.unlink):
        assert run(again).rounds == 3  # it is written last, from what is there
        return
    with pytest.raises(LedgerError) as caught:
        run(again)
    assert piece in str(caught.value) and "Nothing was overwritten: restore" in str(caught.value)


def test_a_field_that_is_gone_is_named(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run", "stopping.rounds=1"))
    file = tmp_path / "run/rounds/0000/cost.json"
    bill = json.loads(file.read_text())
    del bill["compute"]["dollars"]
    file.write_text(json.dumps(bill))
    with pytest.raises(LedgerError, match=r"cost\.json is not readable .*\(it has no `dollars`\)"):
        status(str(tmp_path / "run"))
