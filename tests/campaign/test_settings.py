"""Settings that contradict each other, or ask for what could never be: refused before anything is paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from campaigns import parse, raw_settings

from alray.errors import ConfigError

EVIDENCE = {"regime": "asvp", "switch": "logme_ped"}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"regime": "asvp", "switch": {"at": 5, "labels": 6}}, "switch.at: unknown key (expected `name`,"),
        ({"regime": "asvp", "switch": {"at": 0}}, "switch.labels: is 0 (expected a whole number, 1 or more)"),
        ({"regime": "asvp", "switch": True}, "switch: is true (expected one of always, at, logme_ped, off)"),
        (
            {"regime": "asvp", "switch": {"at": 5, "guard": "holdout"}, "training": {"holdout": 0}},
            "`training.holdout` is 0: nothing would be held out to judge by. Set `training.holdout`",
        ),
        (
            {**EVIDENCE, "budget": {"initial": 5, "per_round": 1, "total": 9, "control": 0.5}},
            "`budget.per_round` is 1, which leaves none for them: ask for 2 labels or more a round",
        ),
        ({"pretrain": {"epochs": 5, "warmup": 5}}, "`warmup` is 5 and `epochs` is 5: the learning rate would never"),
        ({"forecast": {"rounds": [10**9]}}, "rounds ahead, each from 1 to 100)"),
        ({"regime": "ASVP"}, "regime: is 'ASVP' (expected one of standard, svpp, asvp)"),
    ],
)
def test_settings_that_contradict(data: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(raw_settings(data, tmp_path / "run", **more))
    assert said in str(caught.value)


def test_a_list_of_rounds_may_have_ones_of_a_single_label(data: Path, tmp_path: Path) -> None:
    budget = {"initial": 5, "per_round": [1, 4], "total": 9, "control": 0.5}
    assert parse(raw_settings(data, tmp_path / "run", **EVIDENCE, budget=budget)).budget.controls(4) == 2
