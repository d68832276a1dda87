"""The trial of new features: like is compared with like, on rows that neither side knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from campaigns import parse, picture_settings

from alray.campaign import Settings, opening, rounds, run, splits, trial
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import TRIAL, Round
from alray.proxy import guard
from alray.proxy.guard import Verdict
from alray.table import Table
from alray.training import TrainSet, evaluate, fit_head
from alray.training import rows as rows_of

IDS = [f"p{n}" for n in range(8)]
LABELS = {i: "ab"[n % 2] for n, i in enumerate(IDS)}


def rows(right: str, ids: list[str] = IDS) -> Table:
    """Return rows whose proxy is right (`+`) or wrong (`-`) about each."""
    target = np.array(["ab".index(LABELS[i]) for i in ids], dtype=np.int64)
    said = np.where(np.array([sign == "+" for sign in right], dtype=bool), target, 1 - target)
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(len(ids), 3))).float()
    return Table(ids, {"features": features, "logits": torch.from_numpy(np.eye(2)[said]).float()})


def settings_of(data: Path, run: Path, **switch: Any) -> Settings:
    raw = picture_settings(data, run).model_dump(mode="json")
    recipe = {"name": "auto", "fine_tune": {"epochs": 2}, "lp_ft": {"epochs": 1}}
    budget = {"initial": 20, "per_round": 8, "total": 44, "control": 0.25}
    training = {"when": "last", "recipe": recipe}
    return parse({**raw, "budget": budget, "training": training, "regime": "asvp", "switch": switch})


def test_gain_and_verdict_are_of_rows_that_were_drawn_at_random() -> None:
    """On picked rows old features are at their worst: the last four would say that no error is left."""
    found = trial._compared(rows("+-------"), rows("+--+++++"), LABELS, "ab", drawn=IDS[:4])
    assert found["gain"] == pytest.approx(1 / 3)
    assert found["accuracy"] == {"rows": 4, "before": 0.25, "after": 0.5}
    assert found["verdict"]["rows"] == 4
    worse = trial._compared(rows("+++-----"), rows("+-------"), LABELS, "ab", drawn=IDS[:4])
    assert worse["gain"] == pytest.approx(-2)


def test_without_an_error_or_a_random_row_there_is_no_gain() -> None:
    assert trial._compared(rows("++++----"), rows("++++++++"), LABELS, "ab", drawn=IDS[:4])["gain"] is None
    none = trial._compared(rows("++++----"), rows("++++++++"), LABELS, "ab", drawn=[])
    assert (none["gain"], none["accuracy"], none["verdict"]["rows"]) == (None, None, 0)
    assert not none["verdict"]["accepted"] and "drawn at random" in none["verdict"]["reason"]


def test_only_rows_that_both_sides_have_are_judged() -> None:
    found = trial._compared(rows("--------"), rows("+++", IDS[2:5]), LABELS, "ab", drawn=IDS)
    assert (found["verdict"]["rows"], found["accuracy"]["rows"], found["gain"]) == (3, 3, 1.0)
    nothing = trial._compared(rows("--------"), rows("", []), LABELS, "ab", drawn=IDS)
    assert not nothing["verdict"]["accepted"] and nothing["gain"] is None


def test_both_sides_are_proxies_fitted_on_the_same_half(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What selects after an update is a proxy on the new features, and not the layer that they were trained with."""
    settings = settings_of(data, tmp_path / "run", name="at", labels=28)
    seen: dict[str, Any] = {}
    after, compared = trial._after, trial._compared

    def spy(place: Any, round: Round, checkpoint: str, trained: Any, held_out: Any, classes: Any) -> Table:
        given = TrainSet(place.material.pool, list(trained), list(trained.values()), classes)
        model = evaluate.Model.of_checkpoint(checkpoint).body()
        found = evaluate.outputs(model, rows_of.locate(given), place.runtime, stage="trial")
        texts = [trained[i] for i in found.ids]
        seen["head"] = fit_head(settings.head, found.values.astype(np.float32), texts, classes, settings.seed)
        seen["round"] = round.number
        seen["new"] = after(place, round, checkpoint, trained, held_out, classes)
        return seen["new"]

    def keep(old: Table, *others: Any) -> dict[str, Any]:
        seen["old"] = old
        return compared(old, *others)

    monkeypatch.setattr(trial, "_after", spy)
    monkeypatch.setattr(trial, "_compared", keep)
    run(settings)
    expected = seen["head"].logits(seen["new"]["features"])
    assert torch.allclose(seen["new"]["logits"], expected, atol=1e-4)
    assert list(seen["old"].ids) == list(seen["new"].ids)
    verdict = Round(Ledger(opening.home(settings.run)), seen["round"]).json(TRIAL)["verdict"]
    random = rounds.drawn(Ledger(opening.home(settings.run)), seen["round"])
    assert verdict["rows"] == len(set(seen["new"].ids) & set(random)) < len(seen["new"])


def test_features_that_were_fine_tuned_are_not_judged_by_rows_that_they_know(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = Verdict(9, 0.1, 0.2, True, "said by the test")
    monkeypatch.setattr(guard, "judge", lambda *_: said)
    judged: dict[int, set[str]] = {}
    honest = trial.judge

    def spy(place: Any, round: Round, checkpoint: str, trained: Any, held_out: Any, classes: Any) -> dict[str, Any]:
        judged[round.number] = set(held_out)
        return honest(place, round, checkpoint, trained, held_out, classes)

    monkeypatch.setattr(trial, "judge", spy)
    settings = settings_of(data, tmp_path / "run", name="always")
    run(settings)
    ledger = Ledger(opening.home(settings.run))
    for number in (1, 2):
        known = splits.split(Round(ledger, number - 1).labels().mapping(), settings.seed, 0.1).train
        assert judged[number] and not judged[number] & set(known)
    assert len(judged[0]) > 5  # a pre-trained backbone knows none
