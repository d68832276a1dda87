"""Groups hold runs that differ in their seed alone; whatever else differs is refused by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest
from measured import made, three_ways

from alray.errors import RunError
from alray.reports.groups import group


def test_runs_fall_into_groups_by_regime_and_strategy() -> None:
    groups = group(three_ways())
    assert [g.name for g in groups] == ["asvp/margin", "standard/margin", "standard/random", "svpp/margin"]
    assert [[run.seed for run in g.runs] for g in groups] == [[0, 1, 2]] * 4
    assert (groups[0].regime, groups[0].strategy) == ("asvp", "margin")
    assert groups[0].repeats.mean.accuracy_P.tolist() == pytest.approx([0.497, 0.647, 0.747, 0.797])


def test_a_switch_is_named_where_it_tells_two_apart() -> None:
    switches = ["off", "logme_ped", {"name": "at", "labels": 200}]
    runs = [made("asvp", "margin", 0, [0.5, 0.6], switch=switch) for switch in switches]
    assert [g.name for g in group(runs)] == [
        "asvp/margin (at labels=200)",
        "asvp/margin (logme_ped)",
        "asvp/margin (off)",
    ]


def test_what_says_where_and_how_may_differ() -> None:
    one = made("svpp", "margin", 0, [0.5], runtime={"name": "local"}, features={"path": "a", "backbone": "x"})
    other = made("svpp", "margin", 1, [0.5], runtime={"name": "ray"}, features={"path": "b", "backbone": "x"})
    assert len(group([one, other])) == 1


def test_other_settings_are_refused_by_their_path() -> None:
    one = made("svpp", "margin", 0, [0.5], training={"recipe": {"name": "fine_tune", "epochs": 2}})
    other = made("svpp", "margin", 1, [0.5], training={"recipe": {"name": "fine_tune", "epochs": 3}})
    with pytest.raises(RunError) as refused:
        group([one, other])
    assert str(refused.value) == (
        "runs/svpp-margin-0 and runs/svpp-margin-1 are both svpp/margin, but 1 settings differ besides the seed: "
        "`training.recipe.epochs` is 2 in one and 3 in the other. Report them apart."
    )


@pytest.mark.parametrize(
    ("material", "said"),
    [
        (("other", "test", (), ()), "different pools"),
        (("pool", "other", (), ()), "different test rows"),
        (("pool", "test", ("l",), ()), "different given labels"),
        (("pool", "test", (), ("a",)), "different `classes`"),
    ],
)
def test_other_material_is_refused_across_groups(material: tuple[object, ...], said: str) -> None:
    runs = [made("svpp", "margin", 0, [0.5]), made("standard", "random", 0, [0.5], material=material)]
    with pytest.raises(RunError, match=f"{said}, so their accuracies cannot be compared"):
        group(runs)


def test_a_seed_counts_once() -> None:
    with pytest.raises(RunError, match="both svpp/margin with seed 4: a seed counts once"):
        group([made("svpp", "margin", 4, [0.5]), made("svpp", "margin", 4, [0.6])])


def test_other_budgets_are_refused_with_the_state_of_both() -> None:
    long = made("svpp", "margin", 0, [0.1 * n for n in range(8)])
    short = replace(made("svpp", "margin", 1, [0.5, 0.6]), state="waiting")
    with pytest.raises(RunError) as refused:
        group([long, short])
    assert "100, 200, …, 800 labels (done) and 100, 200 (waiting). Run both to the same end" in str(refused.value)
