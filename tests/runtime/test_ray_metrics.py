"""The dashboard and the exported numbers agree, name for name and tag for tag; workers' lines say what they are on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import worker_lines
import yaml

from alray import gauges, log
from alray.gauges import METRICS
from alray.log import Format
from alray.runtime import LocalRuntime, Runtime
from alray.runtime.ray_metrics import exported

DEPLOY = Path(__file__).parents[2] / "deploy"
BOARD = json.loads((DEPLOY / "grafana/alray.json").read_text())
FUNCTIONS = {"max", "sum", "by", "rate", "increase", "label_values"}
BUILT_IN = {"$__rate_interval", "$datasource", "$run"}


def expressions(node: Any = BOARD) -> Iterator[str]:
    """Yield every expression of the dashboard: its panels', and its variables'."""
    if isinstance(node, dict):
        yield from (node[key] for key in ("expr", "definition") if key in node)
        node = list(node.values())
    if isinstance(node, list):
        for one in node:
            yield from expressions(one)


NAMES = {exported(metric): metric for metric in METRICS.values()}


def fault(expression: str) -> str | None:
    """Return what is wrong with an expression, or None."""
    if expression.count("(") != expression.count(")") or expression.count("{") != expression.count("}"):
        return "a bracket is open"
    plain = re.sub(r'"[^"]*"', '""', expression)
    used = {name for name in re.findall(r"ray_\w+", plain)}
    if strange := used - NAMES.keys():
        return f"nobody exports {sorted(strange)}"
    if not used:
        return "it names no metric"
    keys = set.intersection(*({*NAMES[name].keys} for name in used))
    words = set(re.findall(r"\$?[a-zA-Z_]\w*", plain)) - used - FUNCTIONS - BUILT_IN
    if unknown := words - keys:
        return f"no tag of {sorted(used)} is called {sorted(unknown)}"
    for name in used:
        counter = NAMES[name].kind == "counter"
        if counter != bool(re.search(rf"(rate|increase)\({name}\b", plain)) and "label_values" not in plain:
            return f"{name} is a {NAMES[name].kind}"
    return None


def test_ray_puts_its_own_name_before_and_total_behind_a_counter() -> None:
    assert exported(METRICS["alray_labels_bought"]) == "ray_alray_labels_bought"
    assert exported(METRICS["alray_rows_scanned"]) == "ray_alray_rows_scanned_total"


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_the_dashboard_asks_for_what_is_exported(expression: str) -> None:
    assert fault(expression) is None


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("max by (run) (ray_alray_labels{})", "nobody exports ['ray_alray_labels']"),
        ("sum(rate(ray_alray_rows_scanned[5m]))", "nobody exports ['ray_alray_rows_scanned']"),
        ("max by (runs) (ray_alray_round)", "no tag of ['ray_alray_round'] is called ['runs']"),
        ('max by (run) (ray_alray_round{stage="fit"})', "no tag of ['ray_alray_round'] is called ['stage']"),
        ("sum(ray_alray_rows_scanned_total)", "ray_alray_rows_scanned_total is a counter"),
        ("rate(ray_alray_stage_seconds[$__rate_interval])", "ray_alray_stage_seconds is a gauge"),
        ("max by (run (ray_alray_round)", "a bracket is open"),
    ],
)
def test_a_slip_in_an_expression_is_found(expression: str, said: str) -> None:
    assert fault(expression) == said


def test_everything_that_is_exported_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"ray_\w+", " ".join(expressions())))
    assert shown == NAMES.keys()


def test_the_panels_of_the_dashboard_stand_side_by_side() -> None:
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    variables = {one["name"] for one in BOARD["templating"]["list"]}
    assert variables == set(re.findall(r"\$\{?(datasource|run)\b", json.dumps(BOARD["panels"])))


def test_the_monitor_looks_at_the_pods_and_port_of_the_manifests() -> None:
    monitor = yaml.safe_load((DEPLOY / "prometheus/podmonitor.yaml").read_text())
    [job] = [yaml.safe_load((DEPLOY / "kubernetes/base/rayjob.yaml").read_text())]
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
        assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports
    namespace = yaml.safe_load((DEPLOY / "kubernetes/base/namespace.yaml").read_text())
    assert monitor["metadata"]["namespace"] == namespace["metadata"]["name"]


# What reaches workers


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def runtime(request: pytest.FixtureRequest) -> Iterator[Runtime]:
    yield LocalRuntime() if request.param == "local" else request.getfixturevalue("ray_runtime")


def test_a_workers_line_says_run_round_stage_and_shard(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_FORMAT", Format.JSON)
    shards = [worker_lines.Shard(n, 10) for n in range(3)]
    with log.within(run="runs/a", round=2, stage="select"):
        with runtime.hold(worker_lines.load, shards, stage="scan") as held:
            lines = [json.loads(line) for line in held.map(worker_lines.say, "scored")]
            merged = json.loads(held.reduce(worker_lines.say, worker_lines.last, "part"))
            beside = json.loads(runtime.call(worker_lines.say, None, "fitted", stage="fit"))
        mapped = [json.loads(line) for line in runtime.map(worker_lines.say, shards, "finished", stage="files")]
    about = {"run": "runs/a", "round": 2, "stage": "select"}
    assert [line["shard"] for line in lines] == [0, 1, 2]
    assert merged["shard"] == 2 and "shard" not in beside
    assert all(about.items() <= line.items() for line in [*lines, merged, beside, *mapped])
    ids = {"job_id", "node_id", "worker_id"}
    ours = runtime.name == "ray"
    assert all((ids <= line.keys()) == ours and (line["format"] == "json") for line in [*lines, merged, beside])
    assert log.about() == {}


def test_rows_are_counted_where_shards_are_gone_over(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "_values", {})
    shards = [worker_lines.Shard(n, 10 + n) for n in range(3)]
    with log.within(run="runs/rows", stage="select"):
        with runtime.hold(worker_lines.load, shards, stage="scan") as held:
            held.map(worker_lines.say, "scored")
            held.reduce(worker_lines.say, worker_lines.last, "part")
            runtime.call(worker_lines.say, None, "fitted", stage="fit")
        assert gauges.value("alray_rows_scanned") == 2 * 33
        assert gauges.value("alray_actor_restarts") is None


@pytest.mark.ray
def test_a_lost_worker_is_counted(ray_runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faults

    monkeypatch.setattr(gauges, "_values", {})
    with log.within(run="runs/lost", stage="select"):
        with ray_runtime.hold(faults.Sleepy, list(range(4)), stage="hold") as held:
            assert held.map(faults.die_at, 2, str(tmp_path / "died")) == list(range(4))
        assert gauges.value("alray_actor_restarts") == 1
