"""What a campaign saved against another: in labels, in dollars, and in labels once its computing is paid for.

The cost model is that of ASVP (Wen et al., TMLR 2024): n_M(a) is the least number of labels at which the curve of M has
accuracy a, and acc_M(n) what it has at n labels. Each formula takes mean curves, and raises `Outside` where they do not
define it; `estimate` gives it an interval.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alray.reports.curves import Curve, Hours
from alray.reports.repeats import Outside

NOT_REACHED = "not reached"
BELOW = "below the first budget"
BEYOND = "beyond the reference's curve"


@dataclass(frozen=True)
class Prices:
    """Dollars of one label, and of an hour of one core and of one GPU.

    `as_paid`: labels cost each run what it was charged for its own, which `label` is only the average of.
    """

    label: float = 0.0
    cpu_hour: float = 0.0
    gpu_hour: float = 0.0
    as_paid: bool = False

    def of(self, hours: Hours) -> float:
        """Return the price of these hours: of what is held, not of the wall clock."""
        return hours.cpu * self.cpu_hour + hours.gpu * self.gpu_hour


@dataclass(frozen=True)
class Need:
    """What an accuracy takes: labels, hours of sampling until they were asked for, and what they were charged at."""

    labels: float
    hours: Hours
    paid: float = 0.0

    def label_dollars(self, prices: Prices) -> float:
        """Return the price of the labels."""
        return self.paid if prices.as_paid else self.labels * prices.label

    def compute_dollars(self, prices: Prices) -> float:
        """Return the price of the hours."""
        return prices.of(self.hours)

    def dollars(self, prices: Prices) -> float:
        """Return the overall cost: labels and sampling. What is trained in the end is common to all and not in it."""
        return self.label_dollars(prices) + self.compute_dollars(prices)


def labels_for(accuracy: float, method: Curve) -> float:
    """Return n_M(a), or say why the curve does not have it."""
    found = method.labels_for(accuracy)
    if found is None:
        raise Outside(NOT_REACHED if accuracy > method.best else BELOW)
    return found


def need(accuracy: float, method: Curve) -> Need:
    """Return what this accuracy takes."""
    labels = labels_for(accuracy, method)
    hours, paid = method.hours_at(labels), method.paid_at(labels)
    assert hours is not None and paid is not None  # labels_for stays within the budgets
    return Need(labels, hours, paid)


def saving_for(accuracy: float, method: Curve, reference: Curve) -> float:
    """Return the sample saving ratio at an accuracy: 1 − n_M(a) / n_ref(a)."""
    few = labels_for(accuracy, method)
    return _ratio(few, _reference_labels(accuracy, reference))


def saving_at(labels: float, method: Curve, reference: Curve) -> float:
    """Return the sample saving ratio at a budget: 1 − n / n_ref(acc_M(n)).

    n are the labels that were paid for, also where they no longer raise the curve of M. Where the reference is flat at
    that accuracy, any number of labels from the first to the last of that part is n_ref: the one nearest to n is taken,
    so that a curve saves nothing against itself and a flat part adds to no saving and to no loss.
    """
    accuracy = method.accuracy_at(labels)
    if accuracy is None:
        raise Outside(f"no such budget was run, only {method.labels_P[0]:,.0f} to {method.labels_P[-1]:,.0f}")
    return _ratio(labels, _reference_labels(accuracy, reference, near=labels))


def cost_for(accuracy: float, prices: Prices, method: Curve) -> float:
    """Return the overall cost in dollars of reaching an accuracy."""
    return need(accuracy, method).dollars(prices)


def cost_reduction(accuracy: float, prices: Prices, method: Curve, baseline: Curve) -> float:
    """Return the overall cost reduction at an accuracy: 1 − cost_M / cost_baseline."""
    mine, theirs = cost_for(accuracy, prices, method), _of_baseline(accuracy, prices, baseline)
    if not theirs:
        raise Outside("the baseline costs nothing at these prices")
    return 1 - mine / theirs


def equivalent_saving(accuracy: float, prices: Prices, method: Curve, reference: Curve) -> float:
    """Return the labels saved at an accuracy, less those that the extra computing would have bought.

    n_ref(a) − n_M(a) − (compute dollars of M − those of the reference) / label price.
    """
    if not prices.label:
        raise Outside("a label costs nothing")
    _reference_labels(accuracy, reference)
    mine, theirs = need(accuracy, method), need(accuracy, reference)
    extra = mine.compute_dollars(prices) - theirs.compute_dollars(prices)
    return theirs.labels - mine.labels - extra / prices.label


def quicker(method: Curve, baseline: Curve) -> float:
    """Return how many times longer the baseline's sampling took, by the clock, up to the last budget that both have."""
    common = np.intersect1d(method.labels_P, baseline.labels_P)
    if not len(common):
        raise Outside("no budget in common with the baseline")
    mine, theirs = method.hours_at(common[-1]), baseline.hours_at(common[-1])
    assert mine is not None and theirs is not None  # it is a budget of both
    if not mine.wall:
        raise Outside("its sampling took no time")
    return theirs.wall / mine.wall


def _ratio(few: float, many: float) -> float:
    if not many:
        raise Outside("the reference needs no labels")
    return 1 - few / many


def _reference_labels(accuracy: float, reference: Curve, near: float | None = None) -> float:
    """Return n_ref(a); with `near` that of its labels with this accuracy which is nearest."""
    found = reference.labels_for(accuracy) if near is None else reference.labels_near(accuracy, near)
    if found is None:
        raise Outside(BEYOND if accuracy > reference.best else f"{BELOW} of the reference")
    return found


def _of_baseline(accuracy: float, prices: Prices, baseline: Curve) -> float:
    try:
        return cost_for(accuracy, prices, baseline)
    except Outside as outside:
        raise Outside(f"{outside} by the baseline") from None
