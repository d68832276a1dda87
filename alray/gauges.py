"""The numbers that a monitoring system reads while a campaign runs: their names, and how each is told.

What was bought and what it cost is read from the ledger and shown as gauges, so that a driver that takes over shows the
same totals as the one before it. What only this driver measures (rows scanned, actors replaced) are counters. Each
number is of a run: outside of one, nothing is told. Names follow Prometheus: the unit is the last word.

Without a runtime that passes them on they are kept here, and nobody is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from alray import log


@dataclass(frozen=True)
class Metric:
    """One number: its name, what it says, and the tags that tell its series apart. All are of a `run`."""

    kind: Literal["gauge", "counter"]
    name: str
    about: str
    tags: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of its tags. Their values are few: runs, stages, states."""
        return ("run", *self.tags)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("gauge", "alray_round", "The round that the campaign is at."),
        Metric("gauge", "alray_state", "1 for the state of the campaign, 0 for the others.", ("state",)),
        Metric("gauge", "alray_labels_bought", "Labels that were paid for: answered or skipped."),
        Metric("gauge", "alray_labels_outstanding", "Labels that were asked for and have no answer yet."),
        Metric("gauge", "alray_cost_dollars", "Dollars spent so far on labels, and on compute.", ("kind",)),
        Metric("gauge", "alray_stage_seconds", "Wall seconds of a stage in all rounds, crashed ones too.", ("stage",)),
        Metric("gauge", "alray_accuracy_ratio", "Accuracy of the last round's model on the test rows, 0 to 1."),
        Metric("gauge", "alray_quarantined_rows", "Rows of the pool that cannot be read."),
        Metric("counter", "alray_rows_scanned", "Rows of held shards that workers went over, each pass.", ("stage",)),
        Metric("counter", "alray_actor_restarts", "Workers that were lost and replaced.", ("stage",)),
    )
}


class Sink(Protocol):
    """Something that passes the numbers on."""

    def show(self, metric: Metric, value: float, tags: dict[str, str]) -> None:
        """Take the value of a gauge."""

    def count(self, metric: Metric, amount: float, tags: dict[str, str]) -> None:
        """Take what a counter has grown by."""


Series = tuple[str, tuple[str, ...]]
"""A metric's name, and the values of its tags."""

_values: dict[Series, float] = {}
_sinks: list[Sink] = []


def show(name: str, value: float, **tags: str) -> None:
    """Set a gauge. Tags that are not given are those of the work at hand (`log.about`)."""
    metric = METRICS[name]
    if (values := _tagged(metric, tags)) is None:
        return
    _values[name, values] = float(value)
    for sink in _sinks:
        sink.show(metric, float(value), dict(zip(metric.keys, values, strict=True)))


def show_one_of(name: str, tag: str, known: Sequence[str], this: str) -> None:
    """Set a gauge that has a series for each of the `known` values of a tag: 1 for `this`, 0 for the others."""
    for value in known:
        show(name, float(value == this), **{tag: value})


def add(name: str, amount: float, **tags: str) -> None:
    """Let a gauge grow."""
    show(name, (value(name, **tags) or 0.0) + amount, **tags)


def count(name: str, amount: float = 1.0, **tags: str) -> None:
    """Let a counter grow; by nothing is fine."""
    metric = METRICS[name]
    values = _tagged(metric, tags)
    if values is None or not amount:
        return
    _values[name, values] = _values.get((name, values), 0.0) + amount
    for sink in _sinks:
        sink.count(metric, float(amount), dict(zip(metric.keys, values, strict=True)))


def value(name: str, **tags: str) -> float | None:
    """Return what a series stands at, or None where it was never told."""
    values = _tagged(METRICS[name], tags)
    return None if values is None else _values.get((name, values))


def attach(sink: Sink) -> None:
    """Tell this sink from now on, and first where every gauge stands. Counters begin at what comes."""
    _sinks.append(sink)
    for (name, values), now in _values.items():
        if (metric := METRICS[name]).kind == "gauge":
            sink.show(metric, now, dict(zip(metric.keys, values, strict=True)))


def detach(sink: Sink) -> None:
    """Tell this sink no more."""
    if sink in _sinks:
        _sinks.remove(sink)


def _tagged(metric: Metric, tags: dict[str, str]) -> tuple[str, ...] | None:
    """Return the values of a metric's tags; None outside of a run."""
    known = {**log.about(), **tags}
    if "run" not in known:
        return None
    return tuple(str(known.get(key, "")) for key in metric.keys)
