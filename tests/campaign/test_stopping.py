"""When a campaign stops, and what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from campaigns import regime_settings, settings

from alray.campaign import run
from alray.campaign.costs import Spent
from alray.campaign.stopping import PlateauConfig, StoppingConfig, decide
from alray.config import parse
from alray.errors import ConfigError


def record(accuracy: float | None = None, dollars: float = 2.5, since: int = 0, **more: Any) -> dict[str, Any]:
    estimate = None if accuracy is None else {"accuracy": accuracy, "se": 0.01, "rows": 300, "since": since}
    return {"cost": {"dollars": dollars}, "estimate": estimate, **more}


def after(gain: float, dollars: float) -> dict[str, Any]:
    return record(0.8, forecast={"next": {"gain": gain, "dollars": dollars}})


def test_no_rule_no_stop() -> None:
    assert decide(StoppingConfig(), [record(0.999) for _ in range(50)]) is None
    everything = StoppingConfig(rounds=1, dollars=1, accuracy=0.1, dollars_per_point=1, plateau=PlateauConfig())
    assert decide(everything, []) is None


def test_rounds() -> None:
    config = StoppingConfig(rounds=2)
    assert decide(config, [record()]) is None
    assert decide(config, [record(), record()]) == "2 rounds done: `stopping.rounds` is 2."
    assert decide(StoppingConfig(rounds=1), [record()]) == "1 round done: `stopping.rounds` is 1."


def test_dollars_are_labels_and_compute() -> None:
    config = StoppingConfig(dollars=1005)
    assert decide(config, [record(dollars=1004.99)]) is None
    said = "Labels and compute cost $1,005.00 so far: `stopping.dollars` is 1005."
    assert decide(config, [record(dollars=1000), record(dollars=5)]) == said


def test_an_accuracy_has_to_be_nearly_certain() -> None:
    config = StoppingConfig(accuracy=0.95)
    assert decide(config, [record(0.96)]) is None  # 0.96 − 1.28 × 0.01 is below 0.95
    assert decide(config, [record(0.97), record()]) is None  # no estimate in the last round
    assert decide(config, [record(0.9629)]) == (
        "The accuracy is estimated at 96.3%, and is at least 95.0% with 90% confidence (300 rows drawn at random): "
        "`stopping.accuracy` is 0.95."
    )


def test_the_accuracy_on_the_test_set_is_not_looked_at() -> None:
    tested = {**record(0.5), "accuracy": 1.0}
    assert decide(StoppingConfig(accuracy=0.6, plateau=PlateauConfig(rounds=1)), [tested]) is None


def test_a_point_of_accuracy_may_cost_too_much() -> None:
    config = StoppingConfig(dollars_per_point=4)
    assert decide(config, [after(0.01, 4.0)]) is None
    assert decide(config, [after(0.0025, 2.5)]) == (
        "The next round is forecast to buy 0.25 points of accuracy for $2.50: `stopping.dollars_per_point` is 4."
    )
    assert decide(config, [after(0.0, 2.5)]) is not None
    assert decide(config, [after(0.0, 0.0)]) is None  # costs nothing
    assert decide(config, [record(0.8), record(0.8, forecast={"next": None})]) is None


def test_a_plateau() -> None:
    config = StoppingConfig(plateau=PlateauConfig(rounds=2, gain=0.01))
    flat = [record(a) for a in (0.5, 0.8, 0.79, 0.805)]
    assert decide(config, flat) == (
        "In the last 2 rounds the best estimate of the accuracy rose by 0.50 points: `stopping.plateau` asks for 1.00."
    )
    assert decide(config, flat[:3]) is None  # 0.5 → 0.8 is among the last two
    assert decide(config, flat[1:3]) is None  # too few
    fell = decide(config, [record(a) for a in (0.8, 0.7, 0.6)])
    assert fell is not None and "rose by 0.00 points" in fell
    assert decide(config, [record(0.5), record(), record(0.505), record(0.506)]) is not None  # of three estimates


def test_new_features_begin_a_new_plateau() -> None:
    config = StoppingConfig(plateau=PlateauConfig(rounds=2, gain=0.01))
    updated = [record(a) for a in (0.8, 0.8, 0.8)] + [record(0.7, since=3), record(0.7, since=3)]
    assert decide(config, updated) is None
    assert decide(config, [*updated, record(0.7, since=3)]) is not None


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"rounds": 0}, "rounds: is 0 (expected a whole number"),
        ({"dollars": 0}, "dollars: is 0 (expected a finite number"),
        ({"accuracy": 95}, "accuracy: is 95 (expected a finite number"),
        ({"dollars_per_point": -1}, "dollars_per_point: is -1"),
        ({"plateau": {"rounds": 0}}, "plateau.rounds: is 0"),
        ({"gain_per_dollar": 1}, "gain_per_dollar: unknown key"),
    ],
)
def test_mistakes_are_named(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(raw, StoppingConfig)
    assert said in str(raised.value)


def test_the_round_that_dollars_end_is_known_before_it_is_trained(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Were the test among the dollars that stop, round 0 would end the campaign, and deliver a head."""
    of = Spent.of
    dear = Spent(0, 0, 0, 10.0)
    monkeypatch.setattr(Spent, "of", lambda record, prices: dear if record["stage"] == "test" else of(record, prices))
    more = {"costs": {"label": 0.1}, "stopping": {"dollars": 15.0}, "pretrain": None}
    budget = {"initial": 15, "per_round": 6, "total": 60}
    done = run(regime_settings(data, tmp_path / "run", budget=budget, **more))
    assert [row["model"] for row in done.per_round] == ["head", "lp_ft"]
    assert done.message.startswith("Labels and compute cost $")


def test_a_run_of_an_older_version_without_forecasts_goes_on(data: Path, tmp_path: Path) -> None:
    run(settings(data, tmp_path / "run", "stopping.rounds=1"))
    home = tmp_path / "run/rounds/0000"
    record = json.loads((home / "round.json").read_text())
    for name in ("forecast.json", "metrics.json", "cost.json"):  # their digests are new too
        del record["sha256"][name]
    for name in ("estimate", "forecast", "aligned"):
        del record[name]
    (home / "round.json").write_text(json.dumps(record))
    (home / "forecast.json").unlink()
    assert run(settings(data, tmp_path / "run")).labels == 21
