"""Every rule, its sentences and its numbers, and what `switch:` may say."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
import pytest
import torch
import yaml
from pydantic import field_validator

from alray.config import Config, dump, parse
from alray.errors import ConfigError
from alray.ops.moments import Coordinates, Moments
from alray.proxy.evidence import Evidence, measure
from alray.proxy.switch import SWITCHES, Always, At, Decision, LogmePed, Off, SwitchFamily, SwitchRule, from_words

STRICT = LogmePed(tau=0.1)


def history(*rates: float, start: int = 100) -> list[Evidence]:
    """Return a first round and one more per rate: labels double, and evidence grows by so much per e-fold of them."""
    out = [Evidence(start, 10, -0.2, -0.1)]
    for rate in rates:
        last = out[-1]
        assert last.logme is not None and last.logme_ped is not None
        grown = rate * math.log(2)
        out.append(Evidence(last.labels * 2, 10, last.logme + grown / 2, last.logme_ped + grown))
    return out


def decide(rule: SwitchRule, rounds: Sequence[Evidence], labels: int = 1000, classes: int = 10) -> Decision:
    found = rule.decide(rounds, labels=labels, classes=classes)
    json.dumps(found.numbers, allow_nan=False)
    assert found.reason.endswith(".")
    return found


def test_off_never_fires_and_always_does() -> None:
    for rounds in ([], history(0.0, 0.0, 0.0)):
        assert not decide(Off(), rounds).fire
        assert decide(Always(), rounds).fire


def test_at_fires_from_its_labels_on() -> None:
    fires = [decide(At(labels=500), [], labels=n).fire for n in (0, 499, 500, 501, 2000)]
    assert fires == [False, False, True, True, True]
    assert decide(At(labels=500), [], labels=499).reason == "499 labels; the switch was set to 500."


def test_logme_ped_fires_after_as_many_flat_rounds_as_it_is_patient() -> None:
    for patience in (1, 2, 3):
        rule = LogmePed(patience=patience)
        rounds = history(0.4, 0.3, 0.05, 0.05, 0.05)
        fires = [decide(rule, rounds[: end + 1]).fire for end in range(len(rounds))]
        assert fires == [False] * (2 + patience) + [True] * (4 - patience)


def test_logme_ped_waits_while_features_still_gain() -> None:
    assert not any(decide(LogmePed(), history(*[0.3] * end)).fire for end in range(8))


def test_a_round_in_the_band_keeps_the_count_and_one_above_it_clears_it() -> None:
    rule = LogmePed(tau=0.1, band=0.05)
    assert decide(rule, history(0.05, 0.14, 0.05)).fire
    assert not decide(rule, history(0.05, 0.16, 0.05)).fire
    assert not decide(LogmePed(tau=0.1, band=0.0), history(0.05, 0.14, 0.05)).fire


def test_the_measure_is_with_or_without_the_descent() -> None:
    rounds = history(0.15, 0.15)  # 0.075 without it
    assert not decide(STRICT, rounds).fire
    assert decide(LogmePed(tau=0.1, measure="logme"), rounds).fire


def test_nothing_fires_before_there_are_labels_for_every_class() -> None:
    rounds = history(0.0, 0.0, 0.0)  # 100, 200, 400 and 800 labels
    assert decide(LogmePed(), rounds, classes=10).fire
    found = decide(LogmePed(), rounds[:2], classes=80)
    assert not found.fire
    assert found.reason == "200 randomly drawn labels; evidence counts from 400 on (5 a class)."
    assert not decide(LogmePed(), rounds, classes=80).fire  # only two of these rounds count: one slope


def test_rounds_without_new_random_rows_neither_count_nor_fire() -> None:
    rounds = history(0.0, 0.0)
    assert decide(LogmePed(), rounds).fire
    assert decide(LogmePed(), rounds).numbers["count"] == 2
    again = decide(LogmePed(), [*rounds, rounds[-1]])
    assert not again.fire and again.numbers["count"] == 2
    assert again.reason == "No label was drawn at random since the last round; the evidence still stands on 400."
    assert not decide(LogmePed(), [*history(0.0), *history(0.0)[-1:] * 5]).fire


def test_rounds_without_evidence_are_left_out() -> None:
    none = Evidence(3, 1, None, None, reason="all 3 labelled rows are of one class; evidence needs at least 2 classes")
    assert decide(LogmePed(), []).reason == "No evidence: no round was measured."
    assert decide(LogmePed(), [none]).reason == f"No evidence: {none.reason}."
    assert decide(LogmePed(), [none, *history(0.0, 0.0)]).fire
    assert not decide(LogmePed(), [*history(0.0, 0.0), none]).fire


def test_the_sentence_has_the_numbers() -> None:
    rounds = history(0.4, 0.12, 0.05)
    said = [decide(STRICT, rounds[: end + 1]).reason for end in range(4)]
    assert said == [
        "LogME -0.1000 on 100 randomly drawn labels; its slope is measured from 150 on, 1.5 times the first 100.",
        "The evidence grows by 0.4000 nats a label and e-fold of labels (0.1773 on 200 randomly drawn), above the 0.1 "
        "that counts as flat; 0 flat rounds, 2 make it fire.",
        "The evidence grows by 0.1200 nats a label and e-fold of labels (0.2604 on 400 randomly drawn), in the band "
        "above the 0.1 that counts as flat; 0 flat rounds, 2 make it fire.",
        "The evidence grows by 0.0500 nats a label and e-fold of labels (0.2951 on 800 randomly drawn), at or below "
        "the 0.1 that counts as flat; 1 flat rounds, 2 make it fire.",
    ]
    numbers = decide(STRICT, rounds, labels=1234).numbers
    assert numbers["labels"] == 1234 and numbers["drawn"] == 800 and numbers["least"] == 50
    assert numbers["slope"] == pytest.approx(0.05) and numbers["count"] == 1


def test_a_driver_that_resumes_decides_the_same() -> None:
    rule, rounds = LogmePed(), history(0.3, 0.08, 0.13, 0.02)
    for end in range(1, len(rounds) + 1):
        again = [Evidence.from_dict(json.loads(json.dumps(record.to_dict()))) for record in rounds[:end]]
        assert rule.decide(again, labels=9, classes=10) == rule.decide(rounds[:end], labels=9, classes=10)


def digits_history(features_ND: np.ndarray, target_N: np.ndarray, seed: int) -> list[Evidence]:
    order, general = (
        np.random.default_rng(seed).permutation(len(target_N)),
        Coordinates.of(torch.from_numpy(features_ND)),
    )
    rows = [order[:labels] for labels in range(100, 1001, 100)]
    return [measure(Moments.of(features_ND[some], target_N[some], 10), general) for some in rows]


@pytest.mark.parametrize("seed", range(3))
def test_saturated_features_of_digits_fire_and_improving_ones_do_not(seed: int) -> None:
    from sklearn.datasets import load_digits

    pixels_ND, target_N = load_digits(return_X_y=True)
    rng = np.random.default_rng(3)
    wide_ND = np.maximum(pixels_ND / 16 @ rng.normal(size=(64, 512)) / 8 + 0.3 * rng.normal(size=512), 0)
    saturated = digits_history(pixels_ND, target_N, seed)
    fires = [end for end in range(1, 11) if decide(STRICT, saturated[:end]).fire]
    assert fires and 200 <= 100 * fires[0] <= 700
    improving = digits_history(wide_ND, target_N, seed)
    assert not any(decide(STRICT, improving[:end]).fire for end in range(1, 11))


class Campaign(Config):
    switch: Annotated[SwitchRule, SwitchFamily] = Off()

    @field_validator("switch", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return from_words(value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{}", Off()),
        ("switch: off", Off()),
        ("switch: 'off'", Off()),
        ("switch: {name: off, updates: 2}", Off(updates=2)),
        ("switch: always", Always()),
        ("switch: {at: 500}", At(labels=500)),
        ("switch: {at: 500, guard: none}", At(labels=500, guard="none")),
        ("switch: {name: at, labels: 7, updates: 3}", At(labels=7, updates=3)),
        ("switch: logme_ped", LogmePed()),
        ("switch: {name: logme_ped, tau: 0.02, measure: logme}", LogmePed(tau=0.02, measure="logme")),
    ],
)
def test_what_settings_may_say(text: str, rule: SwitchRule) -> None:
    read = parse(yaml.safe_load(text), Campaign)
    assert read.switch == rule
    assert parse(yaml.safe_load(dump(read)), Campaign) == read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("switch: on", "switch: is true (expected one of always, at, logme_ped, off)"),
        ("switch: logme-ped", "Did you mean `logme_ped`?"),
        ("switch: at", "switch.labels: missing"),
        ("switch: {at: 0}", "switch.labels: is 0 (expected a whole number, 1 or more)"),
        ("switch: {name: logme_ped, window: 1}", "switch.window: is 1 (expected a finite number, above 1)"),
        ("switch: {name: logme_ped, tau: 0}", "switch.tau: is 0"),
        ("switch: {name: off, gain: 1}", "switch.gain: is 1"),
        ("switch: {labels: 3}", "has no `name`"),
    ],
)
def test_what_settings_may_not_say(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(yaml.safe_load(text), Campaign)
    assert said in str(error.value)


def test_short_words_can_be_set_one_by_one() -> None:
    read = parse({"switch": {"at": 500}}, Campaign, overrides=["switch.at=200", "switch.guard=none"])
    assert read.switch == At(labels=200, guard="none")
    assert parse({}, Campaign, overrides=["switch=off"]).switch == Off()
    assert SwitchFamily.build({"at": 3}) == SwitchFamily.build(from_words({"at": 3})) == At(labels=3)
    assert SwitchFamily.build(Always(), at="switch") == Always()


def test_rules_are_known_by_their_names() -> None:
    assert {name: member.model_fields["name"].default for name, member in SWITCHES.items()} == {n: n for n in SWITCHES}
    assert At(labels=3).updates == 1 and Off().guard == "half" and Always().gain == 0.25
