"""From a shortlist to picks: one function for each way that a strategy may ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from alray.selection.at_random import uniform
from alray.selection.diversity.by_kmeans import by_kmeans
from alray.selection.diversity.by_points import by_points
from alray.selection.diversity.candidates import Candidates, Chosen
from alray.selection.diversity.finetuned import finetuned
from alray.selection.diversity.round_robin import round_robin
from alray.selection.diversity.sequential import d_squared, k_centre
from alray.selection.diversity.typical import most_typical
from alray.strategies import diversity
from alray.strategies.diversity import Diversity

WAYS: Mapping[type[Diversity], Callable[[Candidates], Chosen]] = MappingProxyType(
    {
        diversity.KMeans: by_kmeans,
        diversity.Uniform: uniform,
        diversity.KCentre: k_centre,
        diversity.DSquared: d_squared,
        diversity.Highest: by_points,
        diversity.MostTypical: most_typical,
        diversity.RoundRobin: round_robin,
        diversity.Finetuned: finetuned,
    }
)
"""What does each kind of diversity. A way may return fewer rows than the budget: the pipeline fills them up."""


def diversify(found: Candidates) -> Chosen:
    """Return at most `budget` distinct candidates and their scores."""
    return WAYS[type(found.diversity)](found)
