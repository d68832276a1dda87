"""What the next rounds would buy: numbers, prices and sentences from one, two, three and many estimates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from alray.campaign.forecast import ForecastConfig, Rates, forecast, rates
from alray.campaign.stopping import StoppingConfig, decide
from alray.config import parse
from alray.errors import ConfigError

RATES = Rates(label=0.05, compute=0.5)


def estimate(labels: int, accuracy: float, since: int = 0, rows: int = 200) -> dict[str, Any]:
    """Return a round's estimate: a tenth of the labels is held out, a fifth of the rest is a fold."""
    fitted = labels * 9 // 10
    se = max(0.003, (accuracy * (1 - accuracy) / rows) ** 0.5)
    about = {"labels": labels, "fitted": fitted, "trained": fitted * 4 // 5, "since": since}
    return {**about, "accuracy": accuracy, "se": se, "rows": rows}


def power(count: int, rows: int = 200) -> list[dict[str, Any]]:
    return [estimate(100 * k, 1 - 0.3 * k**-0.6, rows=rows) for k in range(1, count + 1)]


def made(estimates: list[dict[str, Any]], coming: tuple[int, ...] = (100,), **more: Any) -> dict[str, Any]:
    found = forecast(ForecastConfig(**more), estimates, coming=coming, rates=RATES)
    assert json.loads(json.dumps(found, allow_nan=False)) == found and found["schema"] == 1
    return found


@pytest.mark.parametrize("estimates", [[], power(1), [estimate(100, 0.7), estimate(100, 0.8)]])
def test_one_estimate_is_no_forecast(estimates: list[dict[str, Any]]) -> None:
    found = made(estimates, target=0.9)
    assert found["sentences"] == [
        "No forecast yet: it takes the estimates of two rounds with different numbers of labels."
    ]
    assert (found["now"], found["next"], found["rounds"], found["target"]) == (None, None, [], None)
    stop = StoppingConfig(dollars_per_point=0.01)
    assert decide(stop, [{"cost": {"dollars": 1.0}, "forecast": found}]) is None


@pytest.mark.parametrize("count", [2, 3, 10])
def test_more_labels_buy_more_and_cost_more(count: int) -> None:
    found = made(power(count))
    assert found["labels"] == 100 * count and found["since"] == 0
    steps = [found["now"], *(ahead["accuracy"] for ahead in found["rounds"] if ahead["accuracy"])]
    assert all(0 <= step["low"] <= step["mid"] <= step["high"] <= 1 for step in steps)
    assert [step["mid"] for step in steps] == sorted(step["mid"] for step in steps)
    numbers = [(a["rounds"], a["more"], a["labels"], a["dollars"]) for a in found["rounds"]]
    assert numbers == [(k, 100 * k, 100 * (count + k), pytest.approx(5.5 * k)) for k in (1, 2, 5)]
    assert found["next"]["dollars"] == pytest.approx(5.5)
    gain = found["rounds"][0]["accuracy"]["mid"] - found["now"]["mid"]
    assert found["next"]["gain"] == pytest.approx(gain, abs=2e-6) and gain > 0
    assert found["next"]["gain_per_dollar"] == pytest.approx(gain / 5.5, abs=1e-6)
    assert found["next"]["dollars_per_point"] == pytest.approx(5.5 / (100 * gain), rel=1e-3)


def test_the_truth_of_a_power_law_is_within_the_interval() -> None:
    """The estimates are of heads on 72 of 100 labels; what is forecast is a head on 90 of them."""
    for ahead in made(power(6))["rounds"]:
        truth = 1 - 0.3 * (ahead["labels"] / 80) ** -0.6
        assert ahead["accuracy"]["low"] < truth < ahead["accuracy"]["high"]


def test_rounds_may_grow() -> None:
    found = made(power(6), coming=(100, 300))
    assert [ahead["more"] for ahead in found["rounds"]] == [100, 400, 1300]
    assert found["rounds"][2]["dollars"] == pytest.approx(1300 * 0.05 + 5 * 0.5)


def test_a_forecast_is_said_in_sentences() -> None:
    said = made(power(4), target=0.9, level=0.8, rounds=[1, 40])["sentences"]
    assert said[0].startswith("Now, with 400 labels: accuracy 8") and "(80% between " in said[0]
    assert said[1].startswith("1 more round (100 labels, $5.50): accuracy 8")
    assert said[2] == "40 more rounds (4,000 labels): more than 4 times the labels so far, too far to say."
    assert said[3].startswith("In the next round a point of accuracy costs $")
    assert said[4].startswith("The target of 90.0% takes about ") and len(said) == 5


def test_an_estimate_among_picked_rows_is_trusted_less() -> None:
    def width(found: dict[str, Any]) -> float:
        return float(found["now"]["high"] - found["now"]["low"])

    drawn = [{**one, "rows": one["fitted"]} for one in power(6)]
    picked = [{**one, "rows": one["fitted"] // 5} for one in power(6)]  # with the same standard errors
    held_out = [{**one, "on": "holdout"} for one in picked]
    assert width(made(picked)) > 1.2 * width(made(drawn)) > 1.2 * width(made(held_out))


def test_a_target_has_a_price() -> None:
    target = made(power(8, rows=5000), target=0.94)["target"]
    low, mid, high = (target["labels"][name] for name in ("low", "mid", "high"))
    assert 0 < low < mid and (high is None or mid < high)
    assert target["dollars"]["mid"] == pytest.approx(mid * 0.05 + -(-mid // 100) * 0.5)  # by the rounds it takes


def test_a_target_may_be_reached_or_out_of_reach() -> None:
    reached = made(power(8), target=0.5)
    assert reached["target"]["labels"] == {"low": 0, "mid": 0, "high": 0} and reached["target"]["dollars"]["high"] == 0
    assert reached["sentences"][-1] == "The target of 50.0% is reached."
    far = made(power(8), target=0.999)
    assert far["target"]["labels"] == far["target"]["dollars"] == {"low": None, "mid": None, "high": None}
    assert far["target"]["beyond"] == 3 * 800
    assert far["sentences"][-1] == "The target of 99.9% takes more than 2,400 more labels."


def test_the_reach_is_counted_in_labels() -> None:
    found = made([*power(1), estimate(200, 0.8)], rounds=[1, 6, 7])
    assert [ahead["accuracy"] is None for ahead in found["rounds"]] == [False, False, True]  # 300, 800 and 900 labels


def test_new_features_begin_a_new_curve_and_keep_the_exponent() -> None:
    before, new = power(6), estimate(700, 0.95, since=6)
    found = made([*before, new])
    assert found["since"] == 6 and abs(found["now"]["mid"] - 0.95) < 0.02  # nothing is drawn down by the old ones
    alone = made(before)
    assert found["exponent"]["mean"] == pytest.approx(alone["exponent"]["mean"], abs=0.05)
    assert found["exponent"]["deviation"] > alone["exponent"]["deviation"]
    assert made([power(1)[0], new])["rounds"] == []  # one estimate each: there is no exponent to keep
    later = made([*before, new, estimate(800, 0.96, since=6)])
    assert later["now"]["mid"] > 0.94


@pytest.mark.parametrize("accuracies", [(1.0, 1.0, 1.0), (0.0, 0.0, 0.0), (0.8, 0.8, 0.8), (0.9, 0.7, 0.5)])
def test_odd_accuracies_are_no_catastrophe(accuracies: tuple[float, ...]) -> None:
    found = made([estimate(100 * k, a) for k, a in enumerate(accuracies, start=1)], target=0.95)
    assert found["now"]["low"] <= found["now"]["high"] and found["sentences"]


def test_what_costs_nothing_has_no_gain_for_a_dollar() -> None:
    found = forecast(ForecastConfig(), power(4), coming=[100], rates=Rates(0.0, 0.0))
    assert found["next"]["gain_per_dollar"] is None and found["next"]["dollars_per_point"] == 0.0


def test_the_rates_are_what_was_paid() -> None:
    bills = [
        {"labels": labels, "label_dollars": dollars, "compute": {"dollars": compute}}
        for labels, dollars, compute in ((100, 5.0, 90.0), (50, 5.0, 1.0), (50, 10.0, 9.0), (0, 0.0, 2.0))
    ]
    assert rates(bills, 7.0) == (pytest.approx(0.1), 2.0)  # round 0 embeds the pool, and one round fine-tuned
    assert rates(bills[:1], 7.0) == (pytest.approx(0.05), 90.0)
    assert rates([], 7.0) == (7.0, 0.0)


def test_coming_rounds_ask_for_something() -> None:
    for coming in ([], [5, 0]):
        with pytest.raises(ValueError, match="Expected at least one round, each of 1 label or more"):
            forecast(ForecastConfig(), power(3), coming=coming, rates=RATES)


def test_settings() -> None:
    assert parse({"rounds": [5, 1, 5]}, ForecastConfig).rounds == [1, 5]
    for rounds in ([], [0]):
        with pytest.raises(
            ConfigError, match=r"rounds: is \[.*\] \(expected numbers of rounds ahead, each from 1 to 100\)"
        ):
            parse({"rounds": rounds}, ForecastConfig)


def test_the_same_estimates_give_the_same_bits() -> None:
    assert made(power(5), target=0.9) == made(power(5), target=0.9)
