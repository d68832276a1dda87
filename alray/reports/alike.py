"""Whether groups were trained and measured alike: what no table could show is refused, what it hides is said.

Two groups stand beside each other to show what a regime or a strategy does. Where they differ in how they were trained
too, a number has two causes; a reader can allow for that only if told.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from alray.errors import RunError
from alray.reports.groups import Group
from alray.reports.runs import Run

SAID = ("training", "head", "features.backbone", "features.weights", "features.image_size", "pretrain")
"""Settings whose differences between groups are said below the report."""

IDLE = frozenset({"path", "when", "cache_bytes", "max_failures", "checkpoint_every"})
"""Fields of these that change no model; what `when` changes is refused before."""

SHOWN = 6
"""Differences that are said in full."""


def refuse_other_measures(groups: Sequence[Group]) -> None:
    """Raise RunError where one group measures what every round delivers, and another the proxy until the last round."""
    first = groups[0].runs[0]
    for other in (group.runs[0] for group in groups[1:]):
        if proxy_measured(other) != proxy_measured(first):
            proxy, model = (first, other) if proxy_measured(first) else (other, first)
            raise RunError(
                f"{model.folder} tests what each round delivers, and {proxy.folder} its proxy in all rounds but the "
                "last, since its `training.when` is last: their accuracies are of different models. Run it anew with "
                "`training.when=every`, or report them apart."
            )


def proxy_measured(run: Run) -> bool:
    """Say whether the accuracies before the last are those of the proxy, and not of what the recipe would deliver.

    The regime `standard` trains the whole network in every round whatever `training.when` is, and a linear probe
    delivers the proxy itself.
    """
    training = run.settings.get("training") or {}
    delivers_proxy = (training.get("recipe") or {}).get("name", "linear_probe") == "linear_probe"
    return training.get("when") == "last" and not delivers_proxy and run.key[0] != "standard"


def differences(groups: Sequence[Group]) -> list[str]:
    """Return a sentence for each setting of `SAID` that groups differ in, but for what their regime does not use."""
    found: dict[str, dict[str, Any]] = {}
    for path in SAID:
        found |= _differing({g.name: _at(g.runs[0].settings, path) for g in groups if _used(g, path)}, path)
    said = [f"Not alike: {_sentence(path, values)}." for path, values in found.items()]
    more = f"Not alike: {len(said) - SHOWN} more settings; each run's config.yaml has them."
    return said if len(said) <= SHOWN else [*said[:SHOWN], more]


def _used(group: Group, path: str) -> bool:
    """Say whether a group's regime uses a setting: `standard` selects by the network's own head."""
    return not (path == "head" and group.regime == "standard")


def _at(settings: Mapping[str, Any], path: str) -> Any:
    value: Any = settings
    for name in path.split("."):
        value = (value or {}).get(name)
    return value


def _differing(values: Mapping[str, Any], path: str) -> dict[str, dict[str, Any]]:
    """Return dotted path → value by group, of all that differs; of members of a family with other names the name."""
    told = list(values.values())
    if all(one == told[0] for one in told):
        return {}
    if not all(isinstance(one, dict) for one in told):
        return {path: {name: "set" if isinstance(one, dict) else one for name, one in values.items()}}
    fields = dict.fromkeys(field for one in told for field in one if field not in IDLE)
    if len({one.get("name") for one in told}) > 1:
        fields = {"name": None}
    inner = [_differing({g: one.get(field) for g, one in values.items()}, f"{path}.{field}") for field in fields]
    return {where: by_group for found in inner for where, by_group in found.items()}


def _sentence(path: str, values: Mapping[str, Any]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for name, value in values.items():
        groups["not set" if value is None else value if isinstance(value, str) else json.dumps(value)].append(name)
    return f"`{path}` is " + ", and ".join(f"{value} in {', '.join(names)}" for value, names in groups.items())
