"""What ISAL's scores cost: all weights in one forward-mode pass, the last layer in one product of matrices.

    python tests/benchmarks/influence.py [--network resnet18|resnet18_small|…] [--pictures 512] [--size 32]
        [--top-k 1 3 9] [--backward 128] [--vmap 64] [--rows 50000] [--dim 512] [--classes 10] [--autograd 2000]

All weights, per K: CPU seconds (least of three) of one forward-mode pass over the pictures, of one backward pass of the
probability-weighted top-K loss a picture, and of `vmap(grad)` in batches; ratio, and correlation of the scores.
The slow ones run on `--backward` and `--vmap` pictures and are scaled up to all of them. `resnet18` is torchvision's,
whose stem leaves little of a small picture; `resnet18_small` keeps 32 pixels for longer and has fifteen times the work.
Last layer: the strategy's own score of N rows against one backward pass a row on a slice.

Pictures and weights are random, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from alray.models import small_resnet
from alray.ops import all_weights, influence
from alray.strategies.isal import Isal
from alray.table import Table


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return CPU seconds, the least of three, and the result: other work on the machine disturbs these less."""
    seconds = list[float]()
    for _ in range(3):
        start = time.process_time()
        found = work()
        seconds.append(time.process_time() - start)
    return min(seconds), found


def network(name: str, classes: int) -> nn.Module:
    """Return a random network of `classes` outputs in evaluation mode, its norms as if trained."""
    from torchvision import models

    module = small_resnet.build(name) if name in small_resnet.NAMES else models.get_model(name, num_classes=classes)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.running_var, 0.5, 2)  # type: ignore[arg-type]
    return module.eval()


def forward_mode(module: nn.Module, s_P: Tensor, x: Tensor, top_k: int) -> np.ndarray:
    """Return the scores as the strategy computes them."""
    logits, along = all_weights.along(module, s_P, x)
    return influence.benefit(logits.softmax(1), along, top_k, weighted=True).numpy()


def top_loss(logits_C: Tensor, top_k: int) -> Tensor:
    """Return the loss whose gradient is the expected one over the top K."""
    logp = logits_C.log_softmax(0)
    weight, top = logp.detach().exp().topk(top_k)
    return -(weight * logp[top]).sum()


def a_backward_a_picture(module: nn.Module, s_P: Tensor, x: Tensor, top_k: int) -> np.ndarray:
    """Return the scores by one backward pass a picture."""
    weights, out = list(module.parameters()), []
    s = s_P.split([w.numel() for w in weights])
    for picture in x:
        slopes = torch.autograd.grad(top_loss(module(picture[None])[0], top_k), weights)
        out.append(sum(float(torch.dot(g.reshape(-1), part)) for g, part in zip(slopes, s, strict=True)))
    return np.array(out)


def by_vmap(module: nn.Module, s_P: Tensor, x: Tensor, top_k: int, batch: int = 16) -> np.ndarray:
    """Return the scores by vectorised gradients of a batch, all kept at once."""
    weights = all_weights.weights_of(module)
    direction = all_weights.shaped(s_P, weights)
    slope = grad(lambda w, picture: top_loss(functional_call(module, w, (picture[None],))[0], top_k))
    out = []
    for part in x.split(batch):
        found = vmap(slope, in_dims=(None, 0))(weights, part)
        out.append(sum((found[n].flatten(1) @ direction[n].flatten()) for n in found))
    return torch.cat(out).numpy()  # type: ignore[arg-type]


def all_of_them(args: argparse.Namespace) -> None:
    torch.manual_seed(0)
    module = network(args.network, args.classes)
    s_P = torch.randn(sum(w.numel() for w in module.parameters()))
    x = torch.randn(args.pictures, 3, args.size, args.size)
    rivals = {"backward a picture": (a_backward_a_picture, args.backward), "vmap(grad)": (by_vmap, args.vmap)}
    print(f"{args.network}: {len(s_P):,} weights, {args.pictures} pictures of {args.size} pixels")
    print(f"{'K':>3} {'way':<20} {'seconds':>9} {'ratio':>7} {'correlation':>12}")
    all_weights.along(module, s_P, x[:64])  # warm
    for top_k in args.top_k:
        ours, scores = timed(lambda: forward_mode(module, s_P, x, top_k))  # noqa: B023
        print(f"{top_k:>3} {'forward mode':<20} {ours:>9.2f} {1:>7.1f}")
        for name, (way, count) in rivals.items():
            if not count:
                continue
            part = x[: min(count, len(x))]
            way(module, s_P, part[:2], top_k)
            seconds, theirs = timed(lambda: way(module, s_P, part, top_k))  # noqa: B023
            seconds *= len(x) / len(part)
            same = np.corrcoef(scores[: len(part)], theirs)[0, 1]
            print(f"{top_k:>3} {name:<20} {seconds:>9.2f} {seconds / ours:>7.1f} {same:>12.8f}")


def last_layer(args: argparse.Namespace) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(args.rows, args.dim, generator=draw)
    weight, bias = 0.1 * torch.randn(args.classes, args.dim, generator=draw), torch.randn(args.classes, generator=draw)
    prepared = {"weight": torch.randn(weight.shape, generator=draw).numpy(), "bias": torch.randn(len(bias)).numpy()}
    s = torch.cat([torch.from_numpy(prepared["weight"]), torch.from_numpy(prepared["bias"])[:, None]], 1)
    print(f"last layer: {args.rows:,} rows, D = {args.dim}, C = {args.classes}")
    for top_k in [k for k in args.top_k if k < args.classes]:
        strategy = Isal(top_k=top_k, weighted=True)

        def ours(strategy: Isal = strategy) -> Tensor:
            parts = []
            for rows in x.split(4096):  # as the pipeline: probabilities are part of the price
                probs = (rows @ weight.T + bias).softmax(1)
                parts.append(
                    strategy.score(Table(list(map(str, range(len(rows)))), {"hidden": rows, "probs": probs}), prepared)
                )
            return torch.cat(parts)

        def theirs(top_k: int = top_k) -> np.ndarray:
            out = []
            w, b = weight.clone().requires_grad_(), bias.clone().requires_grad_()
            for row in x[: args.autograd]:
                slopes = torch.autograd.grad(top_loss(w @ row + b, top_k), [w, b])
                out.append(float((slopes[0] * s[:, :-1]).sum() + (slopes[1] * s[:, -1]).sum()))
            return np.array(out)

        ours()
        seconds, scores = timed(ours)
        slow, wanted = timed(theirs)
        slow *= args.rows / args.autograd
        same = np.corrcoef(scores[: args.autograd].numpy(), wanted)[0, 1]
        print(
            f"K = {top_k}: {seconds:.3f} s; autograd a row {slow:.1f} s; ratio {slow / seconds:.0f}; "
            f"correlation {same:.8f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--pictures", type=int, default=512)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--top-k", type=int, nargs="+", default=[1, 3, 9])
    parser.add_argument("--backward", type=int, default=128)
    parser.add_argument("--vmap", type=int, default=64)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--autograd", type=int, default=2_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.pictures:
        all_of_them(args)
    if args.rows:
        last_layer(args)


if __name__ == "__main__":
    main()
