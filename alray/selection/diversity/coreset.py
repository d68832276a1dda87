"""The coreset regime: local centres per block of shards, a weighted solve at the root, exact passes over all rows.

Blocks are fixed by the pool's shards, never by the workers. Each block clusters a sample of its rows into 8 times its
share of the budget (k-means++ and a few Lloyd steps), then weighs the centres by all its rows: each becomes the exact
mean of its cell. The root clusters the weighted centres into B, and three exact Lloyd passes over the shards take the
result to within a few percent of central k-means (`tests/benchmarks/coreset_quality.py` measures how few).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray import seeds
from alray.ops import kmeans
from alray.runtime import Held, Runtime
from alray.selection.diversity import clusters as passes
from alray.selection.resident import Resident, Scan
from alray.selection.shortlisted import Limit, add, unit_rows
from alray.strategies.shortlist import Counts

BLOCKS = 16
OVERSAMPLING = 8
ROWS_PER_CENTRE = 32  # in the sample that a block seeds its centres on
LOCAL_STEPS = 10
ROOT_TRIES, ROOT_STEPS = 3, 25
REFINES = 3


@dataclass(frozen=True)
class Drawn:
    """A sample of one block's shortlist: random numbers, and the unit rows that drew them, highest number first."""

    block: int
    numbers: npt.NDArray[np.float64]
    units_ND: Tensor

    def highest(self, count: int) -> Drawn:
        """Return the `count` rows with the highest numbers."""
        order = np.argsort(-self.numbers, kind="stable")[:count]
        return Drawn(self.block, self.numbers[order], self.units_ND[torch.from_numpy(order)])


@dataclass(frozen=True)
class Plan:
    """How many rows each block samples and how many centres it makes of them."""

    block_of: dict[int, int]  # shard number → block
    rows: tuple[int, ...]
    centres: tuple[int, ...]
    above: tuple[float, ...]  # rows with lower numbers are not in the sample: a shard need not send them

    @staticmethod
    def of(block_of: dict[int, int], sizes: Counts, clusters: int) -> Plan:
        """Share 8 × `clusters` centres among the blocks by their size, at most one a row."""
        share = OVERSAMPLING * clusters / max(int(sizes.sum()), 1)
        centres = tuple(min(int(size), math.ceil(share * int(size))) for size in sizes)
        rows = tuple(min(int(size), ROWS_PER_CENTRE * k) for size, k in zip(sizes, centres, strict=True))
        above = tuple(number_above(int(size), k) for size, k in zip(sizes, rows, strict=True))
        return Plan(block_of, rows, centres, above)


def number_above(size: int, count: int) -> float:
    """Return a number that the highest `count` of `size` uniform numbers are above, by six standard deviations.

    A block of many shards would otherwise gather `count` rows of each. If ever too few are above, the sample is
    smaller by some, and as much the same on any workers as any other.
    """
    return max(0.0, 1.0 - (count + 6 * math.sqrt(count) + 6) / size) if count < size else 0.0


def blocks(numbers: Sequence[int]) -> list[list[int]]:
    """Return the positions of the shards of each block, by shard number; at most 16 blocks, none empty."""
    order = sorted(range(len(numbers)), key=lambda at: numbers[at])
    count = min(BLOCKS, len(order))
    return [order[len(order) * b // count : len(order) * (b + 1) // count] for b in range(count)]


def block_sizes(shard: Resident, scan: Scan, limit: Limit, block_of: dict[int, int], count: int) -> Counts:
    """Return how many shortlisted rows each block has in this shard, [blocks]."""
    sizes = np.zeros(count, dtype=np.int64)
    sizes[block_of[shard.spec.number]] = len(unit_rows(shard, scan, limit)[0])
    return sizes


def draw(shard: Resident, scan: Scan, limit: Limit, stream: int, plan: Plan) -> Drawn:
    """Return a sample of the shard's shortlist: the rows with the highest numbers, keyed by their ids."""
    rows, units_ND = unit_rows(shard, scan, limit)
    block = plan.block_of[shard.spec.number]
    numbers = seeds.uniform(stream, shard.hashes[rows])
    high = np.flatnonzero(numbers > plan.above[block])
    return Drawn(block, numbers[high], units_ND[torch.from_numpy(high)]).highest(plan.rows[block])


def pool_draws(parts: list[Drawn]) -> Drawn:
    """Merge samples of one block, highest numbers first."""
    numbers = np.concatenate([part.numbers for part in parts])
    return Drawn(parts[0].block, numbers, torch.cat([part.units_ND for part in parts])).highest(len(numbers))


@dataclass(frozen=True)
class LocalCentres:
    """Cluster a block's sample into its share of the centres."""

    plan: Plan
    seed: int
    round: int

    def __call__(self, drawn: Drawn) -> npt.NDArray[np.float32]:
        wanted, units_ND = self.plan.centres[drawn.block], drawn.highest(self.plan.rows[drawn.block]).units_ND
        if wanted >= len(units_ND):
            return units_ND.float().numpy()
        generator = seeds.generator(self.seed, "coreset-block", self.round, drawn.block)
        start_KD = kmeans.plus_plus(units_ND, torch.ones(len(units_ND)), wanted, generator)
        return kmeans.lloyd(units_ND, start_KD, iterations=LOCAL_STEPS)[0].numpy()


def weigh(
    shard: Resident, scan: Scan, limit: Limit, centres: list[npt.NDArray[np.float32]], plan: Plan
) -> tuple[Tensor, Tensor]:
    """Return the exact sums and counts of all the shard's shortlisted rows over its own block's centres."""
    return passes.lloyd_sums(shard, scan, limit, centres[plan.block_of[shard.spec.number]])


def to_means(part: tuple[Tensor, Tensor]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return the non-empty cells of a block as (means, weights)."""
    sums_KD, count_K = torch.as_tensor(part[0]), torch.as_tensor(part[1])
    full = count_K > 0
    return (sums_KD[full] / count_K[full][:, None]).float().numpy(), count_K[full].double().numpy()


def solve_root(
    cells: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]], clusters: int, seed: int, round: int
) -> npt.NDArray[np.float32]:
    """Return `clusters` centroids of the blocks' weighted means, in block order."""
    points_ND = torch.from_numpy(np.concatenate([means for means, _ in cells]))
    weight_N = torch.from_numpy(np.concatenate([weights for _, weights in cells]))
    generator = seeds.generator(seed, "coreset-root", round)
    return kmeans.weighted(points_ND, weight_N, clusters, generator, tries=ROOT_TRIES, iterations=ROOT_STEPS).numpy()


def centroids(
    held: Held,
    runtime: Runtime,
    numbers: Sequence[int],
    scan: Scan,
    limit: Limit,
    *,
    clusters: int,
    seed: int,
    round: int,
) -> Tensor:
    """Return `clusters` centroids of the shortlist, fp32 [K, H]; `numbers` are the held shards' numbers, in order."""
    groups = blocks(numbers)
    block_of = {numbers[at]: b for b, group in enumerate(groups) for at in group}
    plan = Plan.of(block_of, held.reduce(block_sizes, add, scan, limit, block_of, len(groups)), clusters)
    stream = seeds.key(seed, "coreset", round)
    centres = held.reduce_groups(
        draw, pool_draws, groups, scan, limit, stream, plan, finish=LocalCentres(plan, seed, round)
    )
    cells = held.reduce_groups(weigh, passes.add_sums, groups, scan, limit, centres, plan, finish=to_means)
    root_KD = runtime.call(solve_root, cells, clusters, seed, round, stage="k-means of the blocks")
    return passes.refine(held, scan, limit, torch.from_numpy(np.array(root_KD)), passes=REFINES)
