"""ALFA-Mix's candidates against the official closed form, by brute force: every anchor, every cap, in fp64 NumPy.

    python tests/benchmarks/alfa_candidates.py [--rows 20000] [--dim 64]

Prints a table and exits 1 when a row differs that may not. A row may differ within 1e-5 of the cap; and, without
the switch `freeze_equal`, when it equals an anchor in some coordinate (|a_j - z_j| < 1e-5): the official code
freezes that.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from alray.ops import flips

CAPS = 0.2 * np.arange(1, 6)
BAND = 1e-5
EQUAL = 1e-5
MISSING = {2: (0, 1), 10: (2,), 100: (20,)}
"""Classes without a label, for each number of classes."""


@dataclass(frozen=True)
class Case:
    """Rows, a head and anchors, in the precisions they are stored in: fp16 rows, fp32 head and anchors."""

    name: str
    rows_ND: np.ndarray
    weight_CD: np.ndarray
    bias_C: np.ndarray
    anchors_CD: np.ndarray


def make(kind: str, rows: int, dim: int, classes: int, per_class: int, missing: int, seed: int = 0) -> Case:
    """Return a seeded case: `per_class` labelled rows a class, none for the last `missing` classes."""
    rng = np.random.default_rng([seed, classes, per_class, missing, len(kind)])
    centres = rng.normal(size=(classes, dim)) * 0.6
    label = np.concatenate([np.repeat(np.arange(classes - missing), per_class), rng.integers(classes, size=rows)])
    x = centres[label] + rng.normal(size=(len(label), dim))
    shape = {"gaussian": lambda v: v, "positive": lambda v: np.exp(0.5 * v) + 0.1, "relu": lambda v: np.maximum(v, 0.0)}
    x = shape[kind](x).astype(np.float16)
    known = label[: (classes - missing) * per_class]
    anchors = anchors_of(x[: len(known)], known, classes)
    weight = (shape[kind](centres) - shape[kind](centres).mean(axis=0)) * 0.4 + rng.normal(size=(classes, dim)) * 0.05
    bias = -weight @ x.mean(axis=0, dtype=np.float64) + rng.normal(size=classes) * 0.1
    name = f"{kind:<9} C={classes:<4} labels={per_class} missing={missing:<3}"
    return Case(name, x[len(known) :], weight.astype(np.float32), bias.astype(np.float32), anchors)


def anchors_of(rows_MD: np.ndarray, label_M: np.ndarray, classes: int) -> np.ndarray:
    """Return the class means in fp32; a class without rows gets the mean of all."""
    x = rows_MD.astype(np.float64)
    means = [x[label_M == c].mean(axis=0) if (label_M == c).any() else x.mean(axis=0) for c in range(classes)]
    return np.stack(means).astype(np.float32)


def gradient(z_ND: np.ndarray, weight_CD: np.ndarray, bias_C: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return y* and the direction of the gradient of the cross-entropy of y*, term by term: sum of q_c (w_c - w_y*)."""
    logits = z_ND @ weight_CD.T + bias_C
    label = logits.argmax(axis=1)
    others = logits.copy()
    others[np.arange(len(z_ND)), label] = -np.inf
    top = others.max(axis=1, keepdims=True) if logits.shape[1] > 1 else np.zeros((len(z_ND), 1))
    q = np.exp(others - top)
    q /= np.maximum(q.sum(axis=1, keepdims=True), 1e-300)
    g = q @ weight_CD - q.sum(axis=1, keepdims=True) * weight_CD[label]
    length = np.linalg.norm(g, axis=1, keepdims=True)
    return label, np.divide(g, length, out=np.zeros_like(g), where=length > 0)


def official(case: Case, caps: np.ndarray = CAPS, *, guard: float = 1e-8, step: int = 2000) -> np.ndarray:
    """Return which rows flip towards an anchor at each cap or an earlier one, [caps, N]: the official loop in fp64."""
    parts = [case.rows_ND[at : at + step].astype(np.float64) for at in range(0, len(case.rows_ND), step)]
    weight, bias = case.weight_CD.astype(np.float64), case.bias_C.astype(np.float64)
    anchors = case.anchors_CD.astype(np.float64)
    return np.concatenate([_official(z, weight, bias, anchors, caps, guard) for z in parts], axis=1)


def _official(
    z: np.ndarray, weight: np.ndarray, bias: np.ndarray, anchors: np.ndarray, caps: np.ndarray, guard: float
) -> np.ndarray:
    label, u = gradient(z, weight, bias)
    found = np.zeros((len(caps), len(z)), dtype=bool)
    for anchor in anchors:
        d = anchor - z
        freeze = d / (d + guard) if guard else 1.0
        reach = np.linalg.norm(d, axis=1, keepdims=True) * u * freeze / np.sqrt(z.shape[1])
        for number, cap in enumerate(caps):
            found[number] |= ((z + cap * reach) @ weight.T + bias).argmax(axis=1) != label
    return np.logical_or.accumulate(found, axis=0)


def ours(case: Case, *, freeze_equal: bool) -> np.ndarray:
    """Return alray's candidates at each cap, [caps, N]."""
    frame = flips.Frame.of(*map(torch.from_numpy, (case.weight_CD, case.bias_C, case.anchors_CD)))
    cap = flips.critical_cap_frozen if freeze_equal else flips.critical_cap
    rows = torch.from_numpy(case.rows_ND.astype(np.float32))
    critical = torch.cat([cap(chunk, frame) for chunk in rows.split(4096)]).float().numpy().astype(np.float64)
    return critical[None] < CAPS[:, None]


def outside_band(case: Case, differs: np.ndarray) -> int:
    """Return how many of the rows that differ at some cap [caps, N] are not within 1e-5 of it."""
    count = 0
    for cap, rows in zip(CAPS, differs, strict=True):
        few = Case(case.name, case.rows_ND[rows], case.weight_CD, case.bias_C, case.anchors_CD)
        if rows.any():
            below, above = official(few, np.array([cap - BAND])), official(few, np.array([cap + BAND]))
            count += int((below == above).sum())
    return count


def touching(case: Case) -> np.ndarray:
    """Return the rows that equal an anchor in some coordinate, [N]."""
    z = case.rows_ND.astype(np.float32)
    return np.logical_or.reduce([(np.abs(z - anchor) < EQUAL).any(axis=1) for anchor in case.anchors_CD])


@dataclass(frozen=True)
class Verdict:
    """What one case says."""

    frozen_wrong: int  # rows that differ outside the band with the switch on: must be 0
    free_wrong: int  # rows that differ outside the band with it off though they touch no anchor: must be 0
    touching: float  # share of rows that touch an anchor
    touching_differ: float  # share of those whose candidacy differs at some cap, with it off
    share: np.ndarray  # official candidates at each cap, as a share of the rows


def judge(case: Case) -> Verdict:
    """Compare one case at all caps, with the switch on and off."""
    with threadpool_limits(torch.get_num_threads()):
        truth, touch = official(case), touching(case)
        frozen = truth != ours(case, freeze_equal=True)
        free = truth != ours(case, freeze_equal=False)
        wrong = outside_band(case, frozen), outside_band(case, free & ~touch)
    differ = free.any(axis=0)[touch]
    return Verdict(
        *wrong,
        float(touch.mean()),
        float(differ.mean()) if len(differ) else 0.0,
        truth.mean(axis=1),
    )


def cases(rows: int, dim: int, classes: tuple[int, ...] = (2, 10, 100)) -> Iterator[Case]:
    """Yield every case of the comparison."""
    for number in classes:
        for kind in ("gaussian", "positive", "relu"):
            for per_class in (1, 5):
                for missing in MISSING[number]:
                    yield make(kind, rows, dim, number, per_class, missing)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"N = {chosen.rows}, D = {chosen.dim}, caps {', '.join(f'{cap:g}' for cap in CAPS)}")
    print(
        f"{'case':<37} {'candidates at the first and last cap':>36} {'on: wrong':>9} {'off: wrong':>10} "
        f"{'touching':>8} {'differ':>7} {'s':>5}"
    )
    wrong = 0
    for case in cases(chosen.rows, chosen.dim):
        start = time.perf_counter()
        found = judge(case)
        wrong += found.frozen_wrong + found.free_wrong
        print(
            f"{case.name:<37} {found.share[0]:>27.2%} {found.share[-1]:>8.2%} {found.frozen_wrong:>9} "
            f"{found.free_wrong:>10} {found.touching:>8.2%} {found.touching_differ:>7.2%} "
            f"{time.perf_counter() - start:>5.1f}",
            flush=True,
        )
    print("no difference that may not be" if not wrong else f"{wrong} rows differ that may not")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
