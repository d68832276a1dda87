"""What a strategy is shown in a campaign: above all its reference set, and the network of the round before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from campaigns import ledger, parse, raw_settings, regime_settings

from alray.campaign import rounds, run
from alray.campaign.ledger import Ledger
from alray.campaign.rounds import Round
from alray.campaign.splits import held_out
from alray.errors import StrategyError
from alray.models import Head
from alray.strategies import Given
from alray.strategies.isal import Isal

BUDGET = {"initial": 20, "per_round": 10, "total": 50, "control": 0.4}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Given]:
    """What ISAL was shown, round by round."""
    found, real = list[Given](), Isal.prepare

    def prepare(self: Isal, given: Given) -> dict[str, Any]:
        found.append(given)
        return real(self, given)

    monkeypatch.setattr(Isal, "prepare", prepare)
    return found


def test_the_reference_set_is_drawn_at_random_held_out_and_grows(data: Path, tmp_path: Path, seen: list[Given]) -> None:
    """Decision 26: from the initial draw, grown by the control arm; never trained on; of picked rows none."""
    more = {"strategy": "isal", "budget": BUDGET, "training": {"holdout": 0.4}, "seed": 3, "head": {"l2": 0.5}}
    settings = parse(raw_settings(data, tmp_path / "run", **more))
    assert run(settings).state == "done"
    assert len(seen) == 3
    sizes = []
    for number, given in enumerate(seen, start=1):
        assert given.reference is not None and given.labelled is not None and given.holdout is not None
        ours = {str(i) for i in given.reference.ids}
        sizes.append(len(ours))
        random = set[str]()
        for before in range(number):
            picks = Round(Ledger(str(tmp_path / "run")), before).picks()
            random |= {str(i) for i, why in zip(picks.ids, picks.reasons, strict=True) if why in ("initial", "control")}
        held = {i for i in random if held_out([i], 3, 0.4)[0]}
        assert ours == held and not ours & set(given.labelled.ids)
        truth = Round(Ledger(str(tmp_path / "run")), number - 1).labels().mapping()
        assert given.head is not None and given.reference_label_M is not None
        assert [given.head.classes[c] for c in given.reference_label_M] == [truth[i] for i in given.reference.ids]
        assert given.l2 == 0.5 and given.weight_M is not None and given.network is None
    assert sizes[0] < sizes[-1] < len(seen[-1].holdout.ids)  # type: ignore[union-attr]


def test_when_no_row_is_held_out_it_says_what_to_set(data: Path, tmp_path: Path) -> None:
    nearly_none = {"holdout": 1e-9}
    settings = parse(raw_settings(data, tmp_path / "run", strategy="isal", training=nearly_none))
    with pytest.raises(
        StrategyError, match=r"no model was trained on.*none\. In a campaign set `training.holdout` above 0"
    ):
        run(settings)
    other = parse(raw_settings(data, tmp_path / "run", strategy="margin", training=nearly_none))
    assert run(other).state == "done"  # the strategy is a live setting: what was paid for is not lost


@pytest.mark.parametrize("regime", ["standard", "svpp"])
def test_all_weights_of_the_network_that_the_round_before_delivered(
    data: Path, tmp_path: Path, regime: str, seen: list[Given]
) -> None:
    when = "last" if regime == "standard" else "every"
    recipe = {"name": "fine_tune", "epochs": 2, "weight_decay": 0.01}
    more = {
        "regime": regime,
        "strategy": {"name": "isal", "params": "all_weights", "damping": 0.5, "iterations": 20, "tol": 1e-3},
        "training": {"when": when, "recipe": recipe, "holdout": 0.3},
        "budget": {"initial": 20, "per_round": 6, "total": 32, "control": 0.34},
    }
    done = run(regime_settings(data, tmp_path / "run", **more))
    assert (done.state, done.labels) == ("done", 32)
    assert len(seen) == 2
    for number, given in enumerate(seen):
        before = Round(Ledger(str(tmp_path / "run")), number)
        made = before.json(rounds.ALIGNED if regime == "standard" else rounds.TRAINED)
        folder = f"{before.uri(made['folder'])}/{made['checkpoint']}"
        assert given.network is not None and given.labelled is not None
        assert given.network.head.digest() == Head.load(f"{folder}/head.safetensors").digest()
        assert Path(given.network.backbone.weights).resolve() == Path(folder).resolve()
        assert given.network.l2 == pytest.approx(0.01 * len(given.labelled))
        assert set(given.labelled.columns) == {"pictures"}
    picks = Round(Ledger(str(tmp_path / "run")), 1).picks()
    scored = picks.scores[[why == "strategy" for why in picks.reasons]]
    assert len(scored) == 3 and np.isfinite(scored).all() and len(set(scored.tolist())) == 3
    assert ledger(tmp_path / "run")["state"] == "done"


def test_svpp_without_training_looks_at_the_backbone_in_force(data: Path, tmp_path: Path, seen: list[Given]) -> None:
    more = {
        "strategy": {"name": "isal", "params": "all_weights", "damping": 0.5, "iterations": 20, "tol": 1e-3},
        "training": {"holdout": 0.3},
        "budget": {"initial": 20, "per_round": 6, "total": 26},
    }
    run(regime_settings(data, tmp_path / "run", **more))
    (given,) = seen
    assert given.network is not None and given.head is not None
    assert given.network.head.digest() == given.head.digest() and given.network.l2 == 1.0
    assert "pretrain" in given.network.backbone.weights or Path(given.network.backbone.weights).exists()
