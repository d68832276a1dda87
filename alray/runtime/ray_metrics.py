"""Pass the numbers of a campaign on to Ray, whose nodes each serve them to Prometheus at their metrics port.

Ray puts `ray_` before each name, and `_total` behind a counter's: see `exported`. It needs `ray[default]`; without it
Ray takes the numbers and serves nothing.
"""

from __future__ import annotations

import threading

from ray.util import metrics

from alray.gauges import Metric

AGAIN_S = 1.0
"""Ray forgets a gauge that is not set again between two of its reports, which are a second apart or more."""


class RayMetrics:
    """A sink that has one metric of Ray's for each of alray's that is told, and tells each gauge again and again."""

    def __init__(self) -> None:
        self._gauges: dict[str, metrics.Gauge] = {}
        self._counters: dict[str, metrics.Counter] = {}
        self._shown: dict[tuple[str, ...], tuple[metrics.Gauge, float, dict[str, str]]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._again, name="alray-metrics", daemon=True)
        self._thread.start()

    def show(self, metric: Metric, value: float, tags: dict[str, str]) -> None:
        if metric.name not in self._gauges:
            self._gauges[metric.name] = metrics.Gauge(metric.name, metric.about, metric.keys)
        gauge = self._gauges[metric.name]
        self._shown[metric.name, *tags.values()] = (gauge, value, tags)
        gauge.set(value, tags)

    def count(self, metric: Metric, amount: float, tags: dict[str, str]) -> None:
        if metric.name not in self._counters:
            self._counters[metric.name] = metrics.Counter(metric.name, metric.about, metric.keys)
        self._counters[metric.name].inc(amount, tags)

    def close(self) -> None:
        """Tell no more; what was told last is what Ray reports when it is shut down."""
        self._ended.set()
        self._thread.join()

    def _again(self) -> None:
        while not self._ended.wait(AGAIN_S):
            for gauge, value, tags in list(self._shown.values()):
                gauge.set(value, tags)


def exported(metric: Metric) -> str:
    """Return the name under which Prometheus finds a metric."""
    return f"ray_{metric.name}" + ("_total" if metric.kind == "counter" else "")
