"""What a group stands against: the reference that labels are saved from, the baseline that costs are compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alray.errors import RunError, nearest
from alray.reports.groups import Group
from alray.reports.repeats import Estimate, estimate

REFERENCE, BASELINE = "random", "standard"


@dataclass(frozen=True)
class Against:
    """What one group stands against, or why it stands against nothing."""

    group: Group | None
    why: str = ""

    @property
    def name(self) -> str | None:
        """The name of that group."""
        return self.group.name if self.group else None

    def estimate(self, formula: Callable[..., float], mine: Group) -> Estimate:
        """Return the formula of a group and this one."""
        if self.group is None:
            return Estimate(None, why=self.why)
        if self.group is mine:
            return Estimate(None, why="itself")
        return estimate(formula, mine.repeats, self.group.repeats)


def reference_of(group: Group, groups: Sequence[Group], wanted: str | None) -> Against:
    """Return the runs of the reference that trained as the group did, else the only ones there are."""
    name = wanted or REFERENCE
    named = [g for g in groups if name in (g.name, g.strategy, f"{g.regime}/{g.strategy}")]
    if not named and wanted:
        raise RunError(_missing("--reference", wanted, groups, {g.strategy for g in groups}))
    if not named:
        return Against(None, f"there are no runs of the strategy `{name}`, so no savings in labels")
    alike = [g for g in named if g.regime == group.regime]
    return _only(group, alike or named, "--reference")


def baseline_of(group: Group, groups: Sequence[Group], wanted: str | None) -> Against:
    """Return the runs of the baseline with the group's own strategy, or the ones that are named in full."""
    name = wanted or BASELINE
    named = [g for g in groups if name in (g.name, g.regime, f"{g.regime}/{g.strategy}")]
    if not named and wanted:
        raise RunError(_missing("--baseline", wanted, groups, {g.regime for g in groups}))
    if not named:
        return Against(None, f"there are no runs of the regime `{name}`, so no overall cost reduction")
    alike = [g for g in named if g.strategy == group.strategy or name != g.regime]
    if not alike:
        return Against(None, f"`{group.strategy}` was not run in the regime `{name}`")
    return _only(group, alike, "--baseline")


def _only(group: Group, found: Sequence[Group], option: str) -> Against:
    """Return the one group that was found; of several the one with the same switch, if there is one."""
    if group in found:
        return Against(group)
    same = [g for g in found if g.runs[0].key[2] == group.runs[0].key[2]] if len(found) > 1 else found
    if len(same) == 1:
        return Against(same[0])
    return Against(None, f"{group.name} could stand against {', '.join(g.name for g in found)}: name one in {option}")


def _missing(option: str, wanted: str, groups: Sequence[Group], more: set[str]) -> str:
    known = [*dict.fromkeys(g.name for g in groups), *sorted(more)]
    return f"No run belongs to `{option} {wanted}`.{nearest(wanted, known)} Expected one of {', '.join(known)}."
