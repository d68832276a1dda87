"""Coverage of rows by balls around some of them (Yehuda, Dekel, Hacohen & Weinshall, NeurIPS 2022).

Distances of unit fp16 rows are exact, so which rows are within a radius has no rounding in it. The graph of n rows is
held as n² bits.
"""

from __future__ import annotations

import heapq

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alray.ops import unit_distances

BLOCK = 256
"""Rows whose distances to all others are held at once."""

STEPS = 6
"""Halvings of [0, 1] by which a radius is found."""

BITS = np.array([int(byte).bit_count() for byte in range(256)], dtype=np.uint16)
"""How many bits of each byte are set."""

Flags = npt.NDArray[np.bool_]


def near(units_ND: Tensor, others_MD: Tensor, radius: float) -> Flags:
    """Return which rows are nearer than `radius` to any of the others; fp16 unit rows both, [N]."""
    out = [
        (unit_distances.squared(block, others_MD) < radius**2).any(dim=1).numpy()
        for block in torch.split(units_ND, BLOCK)
    ]
    return np.concatenate(out)


def greedy(
    units_ND: Tensor, radius: float, count: int, covered_N: Flags | None = None
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return (rows, how many rows each covers anew): up to `count` times the row that covers the most, ties by order.

    A row covers those nearer than `radius`, itself too. Stops when all is covered. Gains only shrink, so a row whose
    fresh gain beats every stale one is the best, and no other has to be counted again.
    """
    open_N = np.ones(len(units_ND), dtype=np.bool_) if covered_N is None else ~covered_N
    bits_NW, gain_N = _graph(units_ND, radius, open_N)
    open_W = np.packbits(open_N)
    stale = [(-int(gain), row) for row, gain in enumerate(gain_N) if gain]
    heapq.heapify(stale)
    rows: list[int] = []
    gains: list[int] = []
    while stale and len(rows) < count:
        _, row = heapq.heappop(stale)
        gain = int(BITS[bits_NW[row] & open_W].sum())
        if stale and (-gain, row) > stale[0]:
            heapq.heappush(stale, (-gain, row))
            continue
        if not gain:
            break
        rows.append(row)
        gains.append(gain)
        open_W &= ~bits_NW[row]
    return np.array(rows, dtype=np.int64), np.array(gains, dtype=np.int64)


def _graph(units_ND: Tensor, radius: float, open_N: Flags) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return which rows are within the radius of each row, as bits [N, ⌈N/8⌉], and how many of them are open, [N]."""
    bits, gains = [], []
    for block in torch.split(units_ND, BLOCK):
        inside_bN = (unit_distances.squared(block, units_ND) < radius**2).numpy()
        bits.append(np.packbits(inside_bN, axis=1))
        gains.append((inside_bN & open_N).sum(axis=1))
    return np.concatenate(bits), np.concatenate(gains)


def pure_radius(units_ND: Tensor, label_N: Tensor, share: float) -> float:
    """Return the largest k/64 < 1 at which this share of the balls hold rows of one label only; 1/64 if none does.

    Six halvings of [0, 1], as purity falls with the radius (§4.2). A ball is pure up to the distance of the nearest row
    of another label, so that one pass over all pairs answers for every radius.
    """
    other_N = _nearest_other(units_ND, label_N)
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        pure = int((other_N >= middle**2).sum()) >= share * len(other_N)
        low, high = (middle, high) if pure else (low, middle)
    return max(low, 0.5**STEPS)


def _nearest_other(units_ND: Tensor, label_N: Tensor) -> npt.NDArray[np.float64]:
    """Return the squared distance from each row to the nearest row of another label, infinite without one, [N]."""
    out = []
    for block, labels in zip(torch.split(units_ND, BLOCK), torch.split(label_N, BLOCK), strict=True):
        alike_bN = labels[:, None] == label_N
        out.append(unit_distances.squared(block, units_ND).masked_fill_(alike_bN, torch.inf).amin(dim=1))
    return torch.cat(out).numpy()
