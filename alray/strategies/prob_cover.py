"""ProbCover: label the rows whose balls cover the most of the pool; made for the first few labels."""

from __future__ import annotations

import logging
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, ones

from alray import seeds
from alray.ops import coverage, kmeans
from alray.strategies.base import Given
from alray.strategies.kinds.sampled import SampledStrategy, Scored

log = logging.getLogger(__name__)

STEPS = 100
"""Lloyd steps of the pseudo-labels' k-means."""


class ProbCover(SampledStrategy):
    """Yehuda, Dekel, Hacohen & Weinshall, *Active Learning Through a Covering Lens*, NeurIPS 2022, algorithm 1.

    A row covers the rows whose unit features are nearer than δ. Rows near a paid-for one are covered; then, B times,
    the row that covers the most of the others is picked, and what it covers is covered. Greedy and exact on the sample,
    which is the whole pool up to `most` rows; beyond, balls count rows of the sample. When all is covered, the rest of
    the budget is filled at random. The score is the number of rows that a pick covers anew; ties go by a random number.

    Without `radius`, δ is the largest with a share `purity` of pure balls, to 1/64 (§4.2): balls whose rows all have
    the pseudo-label of the one in the middle. Pseudo-labels are clusters of k-means, one for each class.
    """

    name: Literal["prob_cover"] = "prob_cover"
    needs: ClassVar[frozenset[str]] = frozenset({"features", "hash"})
    exact: ClassVar[bool] = True
    paper: ClassVar[str] = "Yehuda et al., NeurIPS 2022"
    cost: ClassVar[str] = "2·min(N, `most`)²·D"

    radius: float | None = Field(None, gt=0, le=2)
    purity: float = Field(0.95, gt=0, le=1)
    classes: int | None = Field(None, ge=1, le=100_000)  # none: as many as the head's, or 10 without a head
    most: int = Field(20_000, ge=1, le=200_000)  # rows of the sample; the graph takes most²/8 bytes

    def sample(self, budget: int) -> int:
        return self.most

    def choose(self, given: Given) -> Scored:
        assert given.sample is not None
        hashes = given.sample["hash"].numpy().view(np.uint64)
        order = np.argsort(seeds.uniform(seeds.key(given.seed, "prob_cover", given.round), hashes), kind="stable")
        units_ND = kmeans.unit_rows(given.sample["features"])[order]
        radius = self.radius or coverage.pure_radius(units_ND, self._pseudo_labels(units_ND, given), self.purity)
        known = given.bought
        covered_N = coverage.near(units_ND, kmeans.unit_rows(known["features"]), radius) if known is not None else None
        picks, gains = coverage.greedy(units_ND, radius, given.budget, covered_N)
        log.info("prob_cover: radius %g covers %d of %d rows anew", radius, gains.sum(), len(units_ND))
        return order[picks], gains.astype(np.float32)

    def _pseudo_labels(self, units_ND: Tensor, given: Given) -> Tensor:
        clusters = min(self.classes or len(given.classes) or 10, len(units_ND))
        generator = seeds.generator(given.seed, "prob_cover-labels", given.round)
        start_KD = kmeans.plus_plus(units_ND, ones(len(units_ND)), clusters, generator)
        return kmeans.nearest(units_ND, kmeans.lloyd(units_ND, start_KD, iterations=STEPS)[0])[0]
