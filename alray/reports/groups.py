"""Groups of runs: campaigns that differ in nothing but their seed.

A mean over seeds is one of like with like, and a saving is one on the same pool and the same test rows. Whatever else
differs is refused by its name, since a table would show it as an effect of the regime or of the strategy.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from alray.errors import RunError
from alray.proxy.switch import SWITCHES
from alray.reports.repeats import Repeats
from alray.reports.runs import Key, Run

FREE = frozenset({"run", "seed", "runtime", "storage", "costs", "labeller", "stopping"})
"""Settings that runs of one group may differ in; paths too, since what they lead to is compared."""

MATERIAL = ("pools", "test rows", "given labels", "`classes`")


@dataclass(frozen=True, eq=False)
class Group:
    """Runs that differ in their seed alone."""

    name: str
    runs: tuple[Run, ...]

    @property
    def regime(self) -> str:
        """How rows are chosen: `standard`, `svpp`, `asvp`."""
        return self.runs[0].key[0]

    @property
    def strategy(self) -> str:
        """The name of the strategy."""
        return self.runs[0].key[1]

    @cached_property
    def repeats(self) -> Repeats:
        """The curve of each seed."""
        return Repeats({run.seed: run.curve for run in self.runs})


def group(runs: Sequence[Run]) -> list[Group]:
    """Return the runs by regime, strategy and switch, in the order of names.

    Raises RunError for runs on different pools or test rows, and for runs of one group that share a seed or differ in
    budgets or in any setting that would change what is compared.
    """
    for run in runs[1:]:
        _refuse_other_material(runs[0], run)
    sorted_runs: dict[Key, list[Run]] = defaultdict(list)
    for run in runs:
        sorted_runs[run.key].append(run)
    names = _names(list(sorted_runs))
    for members in sorted_runs.values():
        members.sort(key=lambda run: run.seed)
        for before, after in pairwise(members):
            _refuse_unlike(before, after)
    return sorted((Group(names[key], tuple(members)) for key, members in sorted_runs.items()), key=lambda g: g.name)


# Refusing


def _refuse_other_material(one: Run, other: Run) -> None:
    for what, mine, theirs in zip(MATERIAL, one.material, other.material, strict=True):
        if mine != theirs:
            raise RunError(
                f"{one.folder} and {other.folder} have different {what}, so their accuracies cannot be compared. "
                "Report them apart."
            )


def _refuse_unlike(one: Run, other: Run) -> None:
    both = f"{one.folder} and {other.folder}"
    what = "/".join(one.key[:2])
    if one.seed == other.seed:
        raise RunError(f"{both} are both {what} with seed {one.seed}: a seed counts once. Leave one of them out.")
    differs = _difference(_compared(one.settings), _compared(other.settings))
    if differs:
        path, (mine, theirs) = next(iter(differs.items()))
        raise RunError(
            f"{both} are both {what}, but {len(differs)} settings differ besides the seed: `{path}` is {mine!r} in one "
            f"and {theirs!r} in the other. Report them apart."
        )
    budgets = [run.curve.labels_P.astype(int).tolist() for run in (one, other)]
    if budgets[0] != budgets[1]:
        raise RunError(
            f"{both} are both {what}, at different budgets: {_shown(budgets[0])} labels ({one.state}) and "
            f"{_shown(budgets[1])} ({other.state}). Run both to the same end, or leave one out."
        )


def _compared(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in FREE | {"pool", "test", "labels", "classes"}}


def _difference(one: Any, other: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return dotted path → both values of every setting that differs; what is called a path is none."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = [name for name in {**one, **other} if name != "path"]
        inner = [_difference(one.get(name), other.get(name), f"{path}.{name}".lstrip(".")) for name in names]
        return {where: pair for found in inner for where, pair in found.items()}
    return {} if one == other else {path: (one, other)}


def _names(keys: Sequence[Key]) -> dict[Key, str]:
    """Return `regime/strategy` for each key, with the switch where only that tells two apart."""
    plain = [key[:2] for key in keys]
    return {key: "/".join(key[:2]) + (f" ({_switch(key[2])})" if plain.count(key[:2]) > 1 else "") for key in keys}


def _switch(text: str) -> str:
    """Return a switch in words: its name, and the fields that are not as its rule has them by default."""
    value = json.loads(text)
    if not isinstance(value, dict):
        return str(value)
    usual = SWITCHES[value["name"]].model_fields
    told = [f"{k}={v}" for k, v in value.items() if k != "name" and v != usual[k].default]
    return " ".join([str(value["name"]), *told])


def _shown(labels: Sequence[int]) -> str:
    few = labels if len(labels) <= 6 else [*labels[:2], "…", labels[-1]]
    return ", ".join(str(one) for one in few)
