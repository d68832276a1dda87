"""`alray run`, `status` and `features` on a small campaign: a features pool, an oracle, the in-process runtime."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Alray = Callable[..., tuple[int, str, str]]


def test_a_campaign_ends_with_its_table(campaign: str, alray: Alray) -> None:
    code, out, err = alray("run", campaign)
    assert code == 0, err
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert lines[0][:4] == ["round", "new", "labels", "accuracy"] and lines[0][-1] == "dollars"
    assert [(row[0], row[1], row[2], row[-1]) for row in lines[2:5]] == [
        ("0", "10", "10", "5.00"),
        ("1", "10", "20", "5.00"),
        ("2", "10", "30", "5.00"),
    ]
    assert lines[5][:2] == ["total", "30"] and lines[5][-1] == "15.00"
    assert any(line[0] == "done:" for line in lines[6:])


def test_the_same_command_on_a_finished_run_changes_nothing(campaign: str, alray: Alray) -> None:
    first = alray("run", campaign)
    assert alray("run", campaign)[:2] == first[:2]


def test_status_as_json_has_totals_and_a_row_a_round(campaign: str, alray: Alray) -> None:
    alray("run", campaign)
    code, out, _ = alray("status", str(Path(campaign).with_name("run")), "--json")
    status = json.loads(out)
    assert code == 0
    assert (status["schema"], status["state"], status["rounds"], status["labels"]) == (1, "done", 3, 30)
    assert status["dollars"] == 15.0
    assert len(status["accuracy"]) == 3 and all(0 <= a <= 1 for a in status["accuracy"])
    assert [r["labels"] for r in status["per_round"]] == [10, 10, 10]
    assert {"round", "labels", "accuracy", "dollars", "seconds"} <= status["per_round"][0].keys()


def test_a_finished_run_is_not_ready_and_says_so_by_its_exit_code_alone(campaign: str, alray: Alray) -> None:
    alray("run", campaign)
    assert alray("status", str(Path(campaign).with_name("run")), "--ready") == (3, "", "")


def test_status_of_what_is_no_run_is_the_users_mistake(tmp_path: Path, alray: Alray) -> None:
    code, out, err = alray("status", str(tmp_path))
    assert (code, out) == (2, "")
    assert str(tmp_path) in err and "Traceback" not in err


def test_frozen_settings_are_refused_with_the_difference(campaign: str, alray: Alray) -> None:
    alray("run", campaign)
    code, _, err = alray("run", campaign, "seed=1")
    assert code == 2
    assert "seed" in err and "Traceback" not in err


def test_all_mistakes_in_a_campaign_are_said_at_once(campaign: str, alray: Alray) -> None:
    code, _, err = alray("run", campaign, "sed=1", "budget.total=-3", "strategy=marign", "nothing")
    assert code == 2
    assert err.startswith(f"alray: {campaign} has 4 mistakes:\n")


def test_a_missing_settings_file_is_named(alray: Alray) -> None:
    assert alray("run", "no.yaml") == (
        2,
        "",
        "alray: There is no config file at 'no.yaml'. Give the path or URI of a YAML file.\n",
    )


def test_features_of_a_features_pool_are_its_own(campaign: str, alray: Alray) -> None:
    code, out, err = alray("features", campaign)
    assert code == 0, err
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["pool"], ["test"])]
    assert [row[:4] for row in rows] == [["pool", "180", "1", "8"], ["test", "60", "1", "8"]]


def test_features_say_which_pictures_cannot_be_read(campaign: str, alray: Alray, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in range(9):
        Image.new("RGB", (8, 8), (n, n, n)).save(pictures / f"{n}.png")
    (pictures / "bad.png").write_bytes(b"no picture")
    words = [f"pool.path={pictures}", "test=null", f"features.path={tmp_path}/features", "features.image_size=32"]
    code, out, err = alray("features", campaign, *words)
    assert code == 2
    assert next(line.split()[4] for line in out.splitlines() if line.split()[:1] == ["pool"]) == "1"
    assert "1 of 10 rows (10.0%) cannot be read; `pool.max_quarantine` allows 1.0%" in err
    assert "`bad.png` cannot be read: the bytes are no picture" in err
    assert alray("features", campaign, *words, "pool.max_quarantine=0.2")[0] == 0
