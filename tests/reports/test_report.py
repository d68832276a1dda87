"""The report on three ways of labelling: what stands against what, prices, targets, and what cannot be said."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from measured import COSTS, made, three_ways

from alray.errors import ConfigError, RunError
from alray.reports.groups import Group, group
from alray.reports.report import SEEDS_ONLY, Report, TargetRow, charged, report
from alray.reports.runs import Run
from alray.reports.savings import Prices
from alray.reports.sheets import sheets


def row(found: Report, name: str) -> TargetRow:
    return next(row for row in found.targets if row.group == name)


@pytest.fixture(scope="module")
def groups() -> list[Group]:
    return group(three_ways())


def test_every_group_stands_against_random_and_standard(groups: list[Group]) -> None:
    found = report(groups, target=0.75)
    assert {r.group: (r.reference, r.baseline) for r in found.targets} == {
        "asvp/margin": ("standard/random", "standard/margin"),
        "standard/margin": ("standard/random", "standard/margin"),
        "standard/random": ("standard/random", "standard/random"),
        "svpp/margin": ("standard/random", "standard/margin"),
    }


def test_the_numbers_of_a_target_by_hand(groups: list[Group]) -> None:
    found = report(groups, target=0.75)
    standard, asvp = row(found, "standard/margin"), row(found, "asvp/margin")
    # mean curves: standard 0.501, 0.651, 0.751, 0.801; asvp 0.004 below; random reaches 0.75 at 600
    labels = 200 + 100 * (0.75 - 0.651) / 0.1, 300 + 100 * (0.75 - 0.747) / 0.05
    assert (standard.labels.value, asvp.labels.value) == (pytest.approx(labels[0]), pytest.approx(labels[1]))
    assert standard.saving.value == pytest.approx(1 - labels[0] / 600)
    hours = labels[0] / 100 * 2.0, labels[1] / 100 * 0.3
    assert standard.hours is not None and standard.hours.gpu == pytest.approx(hours[0])
    bills = [0.1 * n + 2.5 * h for n, h in zip(labels, hours, strict=True)]
    assert (standard.dollars.value, asvp.dollars.value) == (pytest.approx(bills[0]), pytest.approx(bills[1]))
    assert asvp.label_dollars == pytest.approx(0.1 * labels[1])
    assert asvp.compute_dollars == pytest.approx(2.5 * hours[1])
    assert asvp.reduction.value == pytest.approx(1 - bills[1] / bills[0])
    assert asvp.equivalent.value == pytest.approx(600 - labels[1] - 2.5 * hours[1] / 0.1)
    assert asvp.break_even == pytest.approx(2.5 * (hours[0] - hours[1]) / (labels[1] - labels[0]))
    assert standard.break_even is None and standard.reduction.why == "itself"
    assert row(found, "standard/random").saving.why == "itself"
    for one in (standard.labels, asvp.saving, asvp.reduction, asvp.equivalent, asvp.dollars):
        assert one.low is not None and one.value is not None and one.high is not None
        assert one.low <= one.value <= one.high and one.defined == one.draws


def test_accuracy_at_each_budget(groups: list[Group]) -> None:
    found = report(groups)
    mine = [r for r in found.budgets if r.group == "svpp/margin"]
    assert [(r.labels, r.seeds) for r in mine] == [(100, 3), (200, 3), (300, 3), (400, 3)]
    assert mine[0].accuracy == pytest.approx(0.471) and mine[0].deviation == pytest.approx(0.001)
    assert mine[3].hours.gpu == pytest.approx(0.04)
    assert mine[1].saving.value == pytest.approx(1 - 200 / (300 + 100 * (0.621 - 0.57) / 0.07))
    assert len([r for r in found.budgets if r.group == "standard/random"]) == 8
    beyond = [r for r in found.budgets if r.group == "standard/margin"][-1].saving
    assert (beyond.value, beyond.why) == (None, "beyond the reference's curve")


def test_hours_by_group_with_the_start_up_apart(groups: list[Group]) -> None:
    asvp = report(groups).groups[0]
    assert (asvp.group, asvp.seeds, len(asvp.runs), asvp.labels) == ("asvp/margin", [0, 1, 2], 3, 400)
    assert asvp.sampling.wall == pytest.approx(1.2)
    assert (asvp.startup.wall, asvp.startup.cpu) == (pytest.approx(0.1), pytest.approx(0.2))
    assert asvp.total.wall == 9
    assert (asvp.baseline, asvp.quicker.value) == ("standard/margin", pytest.approx(2.0 / 0.3))
    assert asvp.quicker.low == pytest.approx(2.0 / 0.3)


def test_the_target_that_is_chosen_is_reached_by_all(groups: list[Group]) -> None:
    found = report(groups)
    assert found.target == 0.77  # svpp ends at 0.770 with the worst seed drawn three times
    assert all(r.labels.value is not None and r.labels.low is not None for r in found.targets)
    assert "The target is the highest accuracy that every group reaches" in found.notes[0]


def test_a_target_that_some_or_all_miss(groups: list[Group]) -> None:
    some = report(groups, target=0.799)
    assert row(some, "svpp/margin").labels.why == "not reached"
    assert row(some, "svpp/margin").hours is None and row(some, "svpp/margin").dollars.value is None
    assert some.map is not None and "svpp/margin" not in {cell.cheapest for cell in some.map.cells}
    none = report(groups, target=0.99)
    assert none.map is None
    assert none.notes == [
        "No curve has 0.99 between its first and its last budget: there is no cost of it, and no map.",
        SEEDS_ONLY,
    ]
    for wrong in (0, 1.5, 90):
        with pytest.raises(ConfigError, match=r"expected an accuracy above 0 and up to 1, as in 0.9"):
            report(groups, target=wrong)


def test_curves_that_do_not_overlap_have_no_common_target() -> None:
    found = report(group([made("svpp", "margin", 0, [0.1, 0.2]), made("svpp", "random", 0, [0.5, 0.6])]))
    assert found.target is None and found.targets == [] and found.map is None
    assert found.notes == [
        "No accuracy is reached by all groups within their budgets. Give --target to compare some.",
        SEEDS_ONLY,
    ]


def test_one_group_alone_says_what_it_can() -> None:
    found = report(group([made("svpp", "margin", s, [0.5, 0.6]) for s in (0, 1)]))
    assert [r.accuracy for r in found.budgets] == pytest.approx([0.5, 0.6])
    assert found.targets[0].labels.value == pytest.approx(200)
    assert found.budgets[0].saving.why == "there are no runs of the strategy `random`, so no savings in labels"
    assert found.targets[0].reduction.why == "there are no runs of the regime `standard`, so no overall cost reduction"
    assert found.wins is None


def test_a_reference_by_name_and_one_that_is_missing(groups: list[Group]) -> None:
    assert row(report(groups, reference="standard/margin"), "svpp/margin").reference == "standard/margin"
    assert row(report(groups, reference="margin"), "svpp/margin").saving.why == "itself"
    assert row(report(groups, baseline="svpp/margin"), "standard/random").baseline == "svpp/margin"
    with pytest.raises(RunError) as refused:
        report(groups, reference="randon")
    assert str(refused.value) == (
        "No run belongs to `--reference randon`. Did you mean `random`? Expected one of asvp/margin, standard/margin, "
        "standard/random, svpp/margin, margin, random."
    )
    with pytest.raises(RunError, match=r"`--baseline standart`. Did you mean `standard`\? Expected one of"):
        report(groups, baseline="standart")


def test_the_baseline_has_the_groups_own_strategy() -> None:
    runs = [made("standard", "margin", 0, [0.5, 0.6]), made("svpp", "entropy", 0, [0.5, 0.6])]
    why = row(report(group(runs)), "svpp/entropy").reduction.why
    assert why == "`entropy` was not run in the regime `standard`"


def test_several_references_and_none_that_fits_has_to_be_named() -> None:
    runs = [made(regime, "random", 0, [0.5, 0.6]) for regime in ("standard", "svpp")]
    runs += [made("asvp", "margin", 0, [0.5, 0.6], switch="always"), made("svpp", "margin", 0, [0.5, 0.6])]
    why = row(report(group(runs)), "asvp/margin").saving.why
    assert why == "asvp/margin could stand against standard/random, svpp/random: name one in --reference"
    assert row(report(group(runs)), "svpp/margin").reference == "svpp/random"  # trained in the end as it was itself
    mine = row(report(group(runs), reference="svpp/random"), "asvp/margin")
    assert mine.reference == "svpp/random"


def test_prices_are_those_that_the_runs_were_told_or_new_ones(groups: list[Group]) -> None:
    assert charged(groups) == Prices(**COSTS, as_paid=True)
    assert report(groups, target=0.75, prices=Prices(1.0)).targets[0].compute_dollars == 0
    other = made("svpp", "margin", 7, [0.471, 0.621, 0.721, 0.771], costs={**COSTS, "label": 0.2})
    with pytest.raises(ConfigError, match=r"were told different prices in `costs`: .* give --label-price, --cpu-hour"):
        charged(group([*three_ways(), other]))


def test_dollars_to_a_target_are_the_runs_own_unless_a_price_is_put_on_afresh() -> None:
    """Labels of rare classes are dearer, and a strategy that asks for more of them pays more for as many."""
    runs = [made("svpp", "margin", 0, [0.5, 0.7]), made("svpp", "random", 0, [0.5, 0.6, 0.7])]
    dear = runs[0].curve.paid_P * 3
    runs[0] = replace(runs[0], curve=replace(runs[0].curve, paid_P=dear), label_dollars=float(dear[-1]))
    found = report(group(runs), target=0.6)
    assert found.prices == Prices(round((3 * 20 + 30) / 500, 9), 0.5, 2.0, as_paid=True)
    margin, random = row(found, "svpp/margin"), row(found, "svpp/random")
    assert (margin.label_dollars, random.label_dollars) == (pytest.approx(45), pytest.approx(20))
    assert margin.dollars.value == pytest.approx(45)
    assert "At $0.18 a label on average, as each run was charged, $0.5 a core-hour" in sheets(found)[2].notes[0]
    afresh = report(group(runs), target=0.6, prices=Prices(1.0))
    assert (row(afresh, "svpp/margin").label_dollars, row(afresh, "svpp/random").label_dollars) == (150, 200)
    assert sheets(afresh)[2].notes[0].startswith("At $1 a label, $0 a core-hour")


def test_what_no_interval_holds_and_what_is_not_alike_is_said_below(groups: list[Group]) -> None:
    assert report(groups).notes[1:] == [SEEDS_ONLY]
    assert "over seeds only" in SEEDS_ONLY and "one pre-trained backbone" in SEEDS_ONLY
    runs = [made("svpp", name, 0, [0.5, 0.6], training={"holdout": h}) for name, h in (("margin", 0.1), ("random", 0))]
    assert report(group(runs)).notes[1:] == [
        "Not alike: `training.holdout` is 0.1 in svpp/margin, and 0 in svpp/random.",
        SEEDS_ONLY,
    ]


def test_curves_of_a_proxy_are_refused_beside_those_of_what_is_delivered_and_said_to_be_that() -> None:
    def of(strategy: str, when: str) -> Run:
        return made("svpp", strategy, 0, [0.5, 0.6], training={"when": when, "recipe": {"name": "fine_tune"}})

    with pytest.raises(RunError, match="tests what each round delivers"):
        report(group([of("margin", "last"), of("random", "every")]))
    found = report(group([of("margin", "last"), of("random", "last")]))
    assert found.notes[1].startswith("Accuracies before a run's last budget are those of its proxy")
    assert len(report(group([of("margin", "every"), of("random", "every")])).notes) == 2


def test_wins_are_counted_at_later_budgets_that_all_have(groups: list[Group]) -> None:
    found = report(groups).wins
    assert found is not None
    assert (found.budgets, found.seeds) == ([200, 300, 400], [0, 1, 2])
    best, worst = found.groups.index("standard/margin"), found.groups.index("standard/random")
    assert found.matrix[best][worst] == 1 and found.matrix[worst][best] == 0
    assert found.beaten[best] == 0 and found.beaten[worst] == 1
    assert found.lax[best][worst] == 1


def test_the_whole_report_is_json(groups: list[Group]) -> None:
    found = json.loads(json.dumps(report(groups).to_dict(), allow_nan=False))
    assert found["schema"] == 1
    assert set(found) == {"schema", "groups", "budgets", "target", "prices", "targets", "map", "wins", "notes"}
    assert found["map"]["cells"][0]["cheapest"] in {g["group"] for g in found["groups"]}
