"""Is ISAL's influence true: add each of 200 candidates, train again, and compare what the reference loss really does.

    python tests/benchmarks/influence_truth.py [--candidates 200] [--labelled 300] [--reference 300] [--seed 0]
        [--params last_layer all_weights] [--epochs 3000]

Digits, 8 × 8 pixels. Last layer: the convex head on the pixels, fitted until nothing moves. All weights: a network of
one convolution and one layer, trained by full-batch L-BFGS from the same weights with and without the candidate, with
the same L2 on all weights; its training goes on from the fitted network, so that both end in the same valley.

For each K = 1 … C − 1 prints the rank correlation (Spearman) and the linear one between predicted and true fall of the
mean reference loss, where the row is trained on as the strategy expects it: with its pseudo-label at K = 1, else with
its top K classes by their probabilities. Beside it the same prediction against training with the true label, which is
what a person buys. The last line is the influence with the true label, against the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from sklearn.datasets import load_digits
from torch import Tensor, nn

from alray.ops import all_weights, conjugate_gradients, influence

C = 10


class Net(nn.Module):
    """Eight filters of three pixels, an average over quarters, and one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.filters, self.last = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(8 * 16, C)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(F.avg_pool2d(torch.tanh(self.filters(x)), 2).flatten(1))
        return out


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, C))


def data(args: argparse.Namespace) -> list[tuple[Tensor, Tensor]]:
    """Return labelled, reference and candidate rows, fp64."""
    digits = load_digits()
    x = torch.from_numpy(digits.images / 16.0).double()[:, None]
    y = torch.from_numpy(digits.target)
    order = torch.from_numpy(np.random.default_rng(args.seed).permutation(len(x)))
    x, y = x[order], y[order]
    sizes = [args.labelled, args.reference, args.candidates]
    return list(zip(x[: sum(sizes)].split(sizes), y[: sum(sizes)].split(sizes), strict=True))


def train(module: nn.Module, x: Tensor, target_MC: Tensor, l2: float, start: Tensor | None, steps: int) -> Tensor:
    """Return the weights [P] of least Σ CE + ½·l2·‖weights‖², biases free, from `start` or the module's own."""
    like = all_weights.weights_of(module)
    decay = all_weights.decayed(like).double()
    theta = (all_weights.flat(like) if start is None else start).clone().requires_grad_()
    near = {"tolerance_grad": 1e-7, "tolerance_change": 1e-14, "history_size": 30}
    optimiser = torch.optim.LBFGS([theta], max_iter=steps, line_search_fn="strong_wolfe", **near)

    def closure() -> Tensor:
        optimiser.zero_grad()
        logits = torch.func.functional_call(module, all_weights.shaped(theta, like), (x,))
        loss = -(target_MC * logits.log_softmax(1)).sum() + 0.5 * l2 * (decay * theta.square()).sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return theta.detach()


def reference_loss(module: nn.Module, theta: Tensor, rows: tuple[Tensor, Tensor]) -> float:
    logits = torch.func.functional_call(module, all_weights.shaped(theta, all_weights.weights_of(module)), (rows[0],))
    return float(F.cross_entropy(logits, rows[1]))


def expected(probs_NC: Tensor, top_k: int) -> Tensor:
    """Return what a candidate is trained on, [N, C]: its pseudo-label, or its top K classes by their probabilities."""
    if top_k == 1:
        return F.one_hot(probs_NC.argmax(1), C).double()
    out = torch.zeros_like(probs_NC)
    value, place = probs_NC.topk(top_k, dim=1)
    return out.scatter(1, place, value)


def agreement(predicted: np.ndarray, true: np.ndarray) -> str:
    return f"{spearmanr(predicted, true).statistic:>9.3f} {np.corrcoef(predicted, true)[0, 1]:>8.3f}"


def run(name: str, module: nn.Module, args: argparse.Namespace, ways: Sequence[int]) -> None:
    labelled, others, new = data(args)
    with torch.no_grad():
        onehot = F.one_hot(labelled[1], C).double()
    theta = train(module, labelled[0], onehot, args.l2, None, args.epochs)
    theta = train(module, labelled[0], onehot, args.l2, theta, args.epochs)
    before, like = reference_loss(module, theta, others), all_weights.weights_of(module)
    with torch.no_grad():
        for part, weight in zip(all_weights.shaped(theta, like).values(), module.parameters(), strict=True):
            weight.copy_(part)
    ones, share = torch.ones(len(labelled[0])).double(), torch.full((len(others[0]),), 1 / len(others[0])).double()
    ridge = args.l2 * all_weights.decayed(like).double() + args.damping * len(labelled[0])
    v = all_weights.gradient(module, others[0], others[1], share)
    for curvature, product in all_weights.CURVATURES.items():

        def times(s: Tensor) -> Tensor:
            return product(module, s, *labelled, ones) + ridge * s  # noqa: B023

        s = conjugate_gradients.solve(times, v, tol=1e-8, iterations=2000).s
        logits, along = all_weights.along(module, s, new[0])
        probs = logits.softmax(1)
        print(f"\n{name}, {curvature}: reference loss {before:.4f}, {len(theta):,} weights, {len(new[0])} candidates")
        print(f"{'K':>10} {'Spearman':>9} {'Pearson':>8}   against the true label: {'Spearman':>9} {'Pearson':>8}")
        own = influence.of_label(probs, along, new[1]).numpy()
        truth = falls(module, labelled, others, new[0], F.one_hot(new[1], C).double(), theta, before, args)
        for top_k in ways:
            predicted = influence.benefit(probs, along, top_k, weighted=False).numpy()
            true = falls(module, labelled, others, new[0], expected(probs, top_k), theta, before, args)
            print(f"{top_k:>10} {agreement(predicted, true)}   {'':<23} {agreement(predicted, truth)}", flush=True)
        print(f"{'true label':>10} {agreement(own, truth)}", flush=True)
        if name == "last layer":
            break  # they are one


FALLS: dict[tuple[str, bytes], np.ndarray] = {}


def falls(
    module: nn.Module,
    labelled: tuple[Tensor, Tensor],
    others: tuple[Tensor, Tensor],
    x: Tensor,
    target_NC: Tensor,
    theta: Tensor,
    before: float,
    args: argparse.Namespace,
) -> np.ndarray:
    """Return by how much the reference loss falls when each candidate is added with these targets."""
    key = (type(module).__name__, target_NC.numpy().tobytes())
    if key not in FALLS:
        onehot = F.one_hot(labelled[1], C).double()
        FALLS[key] = np.array(
            [
                before
                - reference_loss(
                    module,
                    train(
                        module,
                        torch.cat([labelled[0], row[None]]),
                        torch.cat([onehot, target[None]]),
                        args.l2,
                        theta,
                        args.epochs,
                    ),
                    others,
                )
                for row, target in zip(x, target_NC, strict=True)
            ]
        )
    return FALLS[key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--labelled", type=int, default=300)
    parser.add_argument("--reference", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--l2", type=float, default=1.0)
    parser.add_argument("--damping", type=float, default=1e-6)
    parser.add_argument("--epochs", type=int, default=3000)
    parser.add_argument("--top-k", type=int, nargs="+", default=list(range(1, C)))
    parser.add_argument("--params", nargs="+", default=["last_layer", "all_weights"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if "last_layer" in args.params:
        run("last layer", linear().double().eval(), args, args.top_k)
    if "all_weights" in args.params:
        run("all weights", Net().double().eval(), args, args.top_k)


if __name__ == "__main__":
    main()
