"""What a label costs, by its class and by who gave it."""

from __future__ import annotations

from typing import Any

import pytest

from alray.campaign.prices import CostsConfig, label_dollars
from alray.config import dump, load, parse
from alray.errors import ConfigError
from alray.labelling import Labels

PRICES = CostsConfig(label=0.1, classes={"tumour": 4.0, "fold": 0.02}, sources={"doctor": 3.0, "crowd": 0.05})


@pytest.mark.parametrize(
    ("label", "source", "dollars"),
    [
        ("tumour", "crowd", 4.0),  # the class before the source
        ("fold", "doctor", 0.02),
        ("other", "doctor", 3.0),
        ("other", "oracle", 0.1),
        ("other", None, 0.1),
        (None, "crowd", 0.05),  # skipped
        (None, None, 0.1),
    ],
)
def test_a_class_before_a_source_before_the_default(label: str | None, source: str | None, dollars: float) -> None:
    assert PRICES.price(label, source) == dollars


def test_the_dearest_is_the_most_that_any_answer_costs() -> None:
    answers = [(label, source) for label in ("tumour", "fold", "x", None) for source in ("doctor", "crowd", "x", None)]
    assert PRICES.dearest == max(PRICES.price(*answer) for answer in answers) == 4.0
    assert CostsConfig(label=0.3).dearest == 0.3 and CostsConfig().dearest == 0.0


def test_answers_are_added_up() -> None:
    rows: list[dict[str, Any]] = [
        {"id": "a", "label": "tumour", "origin": "doctor"},
        {"id": "b", "label": "other", "origin": "doctor"},
        {"id": "c", "label": "other"},
        {"id": "d", "status": "skipped", "label": "tumour", "origin": "crowd"},  # whoever skips has said no class
        {"id": "e", "status": "cancelled", "label": "tumour", "origin": "doctor"},
    ]
    assert label_dollars(Labels.of(rows), PRICES) == pytest.approx(4.0 + 3.0 + 0.1 + 0.05)
    assert label_dollars(Labels.of([]), PRICES) == 0.0


def test_a_class_that_the_campaign_does_not_have_is_a_fault() -> None:
    assert PRICES.fault(None) is None and PRICES.fault(["fold", "tumour", "x"]) is None
    assert PRICES.fault(["tumor", "fold"]) == (
        "`costs.classes` prices 1 class(es) that `classes` does not name, e.g. `tumour`. Did you mean `tumor`? "
        "Name each as `classes` does, or take its price out"
    )


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ({"a": -1, "b": 0.5}, "`a` is -1 (expected names, each with a finite number of dollars, 0 or more)"),
        ({"a": True}, "`a` is true (expected names"),
        ({"a": float("nan")}, "`a` is nan (expected names"),
        ({"a": float("inf")}, "`a` is inf (expected names"),
        ({"a": "1"}, "`a` is '1' (expected names"),
        ({False: 1}, "the name false is no text (quote it)"),  # YAML's bare `no`
        ([1.0], "is [1.0] (expected `key: value` pairs)"),
    ],
)
def test_what_is_no_price_is_named(classes: Any, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse({"classes": classes}, CostsConfig)
    assert f"classes: {said}" in str(raised.value)


def test_a_class_that_is_a_number_is_a_name(tmp_path: Any) -> None:
    prices = parse({"classes": {7: 1, "x": 2.5}}, CostsConfig, overrides=["classes.3=0.5"])
    assert prices.classes == {"7": 1.0, "x": 2.5, "3": 0.5}
    (tmp_path / "costs.yaml").write_text(dump(prices))
    assert load(str(tmp_path / "costs.yaml"), [], CostsConfig) == prices
