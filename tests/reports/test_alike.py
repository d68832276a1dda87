"""Groups that measure different models are refused; other differences in how they were trained are said."""

from __future__ import annotations

from typing import Any

import pytest
from measured import made

from alray.errors import RunError
from alray.reports.alike import SHOWN, differences, proxy_measured, refuse_other_measures
from alray.reports.groups import Group, group

TUNED = {"name": "fine_tune", "epochs": 2}


def groups(**told: dict[str, Any]) -> list[Group]:
    """Return one group for each `regime_strategy`, with its settings."""
    return group([made(*name.split("_"), 0, [0.5, 0.6], **settings) for name, settings in told.items()])  # type: ignore[misc]


def test_a_proxys_curve_is_refused_beside_one_of_delivered_models() -> None:
    last, every = ({"training": {"when": when, "recipe": TUNED}} for when in ("last", "every"))
    with pytest.raises(RunError) as refused:
        refuse_other_measures(groups(standard_margin=every, svpp_margin=last))
    assert str(refused.value) == (
        "runs/standard-margin-0 tests what each round delivers, and runs/svpp-margin-0 its proxy in all rounds but the "
        "last, since its `training.when` is last: their accuracies are of different models. Run it anew with "
        "`training.when=every`, or report them apart."
    )
    with pytest.raises(RunError, match="runs/svpp-random-0 tests what each round delivers, and runs/svpp-margin-0 its"):
        refuse_other_measures(groups(svpp_margin=last, svpp_random=every))
    refuse_other_measures(groups(standard_margin=every, svpp_margin=every))
    refuse_other_measures(groups(svpp_random=last, svpp_margin=last))


def test_what_is_measured_follows_from_regime_and_recipe_too() -> None:
    """`standard` delivers its network in every round whatever `when` is, and svpp with `last` does not."""
    last = {"training": {"when": "last", "recipe": TUNED}}
    every = {"training": {"when": "every", "recipe": TUNED}}
    refuse_other_measures(groups(standard_margin=last, svpp_margin=every))
    with pytest.raises(RunError, match="runs/standard-margin-0 tests what each round delivers"):
        refuse_other_measures(groups(standard_margin=last, svpp_margin=last))
    probe = {"training": {"when": "last", "recipe": {"name": "linear_probe"}}}
    assert [proxy_measured(g.runs[0]) for g in groups(svpp_margin=probe, svpp_random=last)] == [False, True]
    assert not proxy_measured(made("svpp", "margin", 0, [0.5]))


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ({"training": {"recipe": TUNED}}, {"training": {"recipe": {**TUNED, "epochs": 3}}},
         "`training.recipe.epochs` is 2 in {mine}, and 3 in {theirs}"),
        ({"training": {"recipe": TUNED}}, {"training": {"recipe": {"name": "lp_ft", "epochs": 3}}},
         "`training.recipe.name` is fine_tune in {mine}, and lp_ft in {theirs}"),
        ({"training": {"holdout": 0.1}}, {"training": {"holdout": 0.0}},
         "`training.holdout` is 0.1 in {mine}, and 0.0 in {theirs}"),
        ({"head": {"kind": "linear"}}, {"head": {"kind": "mlp"}},
         "`head.kind` is linear in {mine}, and mlp in {theirs}"),
        ({"features": {"backbone": "resnet8"}}, {"features": {"backbone": "resnet20"}},
         "`features.backbone` is resnet8 in {mine}, and resnet20 in {theirs}"),
        ({"features": {"image_size": 8}}, {"features": {"image_size": None}},
         "`features.image_size` is 8 in {mine}, and not set in {theirs}"),
        ({"features": {"weights": "a"}}, {"features": {"weights": "none"}},
         "`features.weights` is a in {mine}, and none in {theirs}"),
        ({"pretrain": {"epochs": 3}}, {"pretrain": None}, "`pretrain` is set in {mine}, and not set in {theirs}"),
        ({"pretrain": {"epochs": 3, "path": "a"}}, {"pretrain": {"epochs": 4, "path": "b"}},
         "`pretrain.epochs` is 3 in {mine}, and 4 in {theirs}"),
    ],
)  # fmt: skip
def test_another_way_of_training_is_said(mine: dict[str, Any], theirs: dict[str, Any], said: str) -> None:
    found = differences(groups(asvp_margin=mine, svpp_margin=theirs, svpp_random=theirs))
    assert found == [f"Not alike: {said.format(mine='asvp/margin', theirs='svpp/margin, svpp/random')}."]


def test_what_changes_no_model_or_what_the_regime_does_not_use_is_not_said() -> None:
    one = {"features": {"path": "a", "batch": 8}, "pretrain": {"path": "a"}, "head": {"kind": "linear"},
           "training": {"when": "last", "recipe": {**TUNED, "cache_bytes": 1}}}  # fmt: skip
    other = {"features": {"path": "b", "batch": 9}, "pretrain": {"path": "b"}, "head": {"kind": "mlp"},
             "training": {"when": "every", "recipe": {**TUNED, "cache_bytes": 2}}}  # fmt: skip
    assert differences(groups(standard_margin=one, svpp_margin=other)) == []  # standard selects by its own head
    assert differences(groups(standard_margin=one)) == []
    switched = {**other, "switch": "always", "budget": {"control": 0.2}}
    assert differences(groups(asvp_margin=switched, svpp_margin=other)) == []


def test_many_differences_are_counted() -> None:
    recipes = [{"name": "fine_tune", **{f"field{n}": value for n in range(9)}} for value in (1, 2)]
    told = [{"training": {"recipe": recipe}} for recipe in recipes]
    found = differences(groups(asvp_margin=told[0], svpp_margin=told[1]))
    assert len(found) == SHOWN + 1
    assert found[-1] == "Not alike: 3 more settings; each run's config.yaml has them."
