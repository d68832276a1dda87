"""ALFA-Mix scored in one pass against a fair brute force of the same closed form.

    python tests/benchmarks/one_pass.py [--rows 20000] [--dim 512] [--threads 1]

Both take fp32 rows and go through all five caps on the same threads. The brute force computes the gradient once,
moves all rows of a block towards one anchor by whole-array arithmetic, and gets the moved logits by a GEMM, for each
anchor and cap. Prints the median seconds of five interleaved runs, their ratio, and the candidates of both at each cap.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time

import torch
from torch import Tensor

from alray.ops import flips

CAPS = [0.2, 0.4, 0.6, 0.8, 1.0]
BLOCK = 4096
TARGET = {10: 10.0, 100: 100.0}


def problem(rows: int, dim: int, classes: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (rows, weight, bias, anchors) of a seeded mixture, the rows rounded to fp16 and stored as fp32."""
    generator = torch.Generator().manual_seed(classes)
    centres = torch.randn(classes, dim, generator=generator) * 0.15
    z = centres[torch.randint(classes, (rows,), generator=generator)] + torch.randn(rows, dim, generator=generator)
    return z.half().float(), (centres - centres.mean(dim=0)) * 0.3, torch.zeros(classes), centres


def one_pass(z: Tensor, weight: Tensor, bias: Tensor, anchors: Tensor) -> Tensor:
    """Return the candidates at each cap, [caps, N], from one critical cap a row."""
    frame = flips.Frame.of(weight, bias, anchors)
    critical = torch.cat([flips.critical_cap(block, frame) for block in z.split(BLOCK)])
    return critical[None] < torch.tensor(CAPS)[:, None]


def brute_force(z: Tensor, weight: Tensor, bias: Tensor, anchors: Tensor) -> Tensor:
    """Return the candidates at each cap, [caps, N], by moving every row towards every anchor."""
    return torch.cat([_block(block, weight, bias, anchors) for block in z.split(BLOCK)], dim=1)


def _block(z: Tensor, weight: Tensor, bias: Tensor, anchors: Tensor) -> Tensor:
    logits = torch.addmm(bias, z, weight.T)
    label = logits.argmax(dim=1)
    slope = logits.softmax(dim=1)
    slope[torch.arange(len(z)), label] -= 1
    step = torch.nn.functional.normalize(slope @ weight, dim=1) / math.sqrt(z.shape[1])
    found = torch.zeros(len(CAPS), len(z), dtype=torch.bool)
    moved = torch.empty_like(z)
    for anchor in anchors:
        reach = (anchor - z).norm(dim=1, keepdim=True)
        for number, cap in enumerate(CAPS):
            torch.addcmul(z, reach * cap, step, out=moved)
            found[number] |= torch.addmm(bias, moved, weight.T).argmax(dim=1) != label
    return found


def timed(function: object, *inputs: Tensor) -> tuple[float, Tensor]:
    start = time.perf_counter()
    found = function(*inputs)  # type: ignore[operator]
    return time.perf_counter() - start, found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print(f"N = {chosen.rows}, D = {chosen.dim}, {chosen.threads} thread(s), median of {chosen.runs}, interleaved")
    short = False
    for classes in chosen.classes:
        inputs = problem(chosen.rows, chosen.dim, classes)
        timed(one_pass, *inputs)  # the first call warms both
        a, b = [], []
        for _ in range(chosen.runs):
            seconds, ours = timed(one_pass, *inputs)
            a.append(seconds)
            seconds, theirs = timed(brute_force, *inputs)
            b.append(seconds)
        ratio = statistics.median(b) / statistics.median(a)
        short |= ratio < TARGET.get(classes, 0)
        print(
            f"C = {classes}: one pass {statistics.median(a):.4f} s, brute force {statistics.median(b):.3f} s, "
            f"ratio {ratio:.1f}; candidates {ours.sum(dim=1).tolist()} and {theirs.sum(dim=1).tolist()}, "
            f"{int((ours != theirs).sum())} differ",
            flush=True,
        )
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
