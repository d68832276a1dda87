"""The probe: a head fitted on the features of the labelled rows, the same bits wherever it is fitted.

Linear (decision 19): multinomial logistic regression by full-batch L-BFGS in fp64 from zero, on one thread, on the
features as they are. Its loss is Σ wᵢ·CEᵢ + ½·l2·‖W‖², bias free, which is scikit-learn's with C = 1/l2. torch's L-BFGS
is used and not SciPy's, because the dot products of the latter run on as many threads as the machine has.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from alray import seeds
from alray.config import Config
from alray.errors import LabelsError, ModelError, nearest
from alray.models.head import Head
from alray.runtime.threads import one_thread

log = logging.getLogger(__name__)

ClassWeights = Literal["none", "balanced"]


class HeadConfig(Config):
    """How a head is fitted on features."""

    kind: Literal["linear", "mlp"] = "linear"
    class_weights: ClassWeights = "none"  # balanced: every class weighs the same, however many labels it has
    l2: float = Field(
        1.0, ge=0
    )  # linear: ½·l2·‖W‖² beside the summed loss; mlp: AdamW's weight decay of l2 / M on all weights
    tol: float = Field(1e-5, gt=0)  # linear: largest slope of the mean loss at which L-BFGS stops
    max_iter: int = Field(500, ge=1)  # linear: L-BFGS iterations at most
    hidden: int = Field(256, ge=1)  # mlp: hidden units
    epochs: int = Field(60, ge=1)  # mlp: passes over the labelled rows
    batch: int = Field(256, ge=2)  # mlp: rows a step
    lr: float = Field(1e-3, gt=0)  # mlp: AdamW's first learning rate, falling to zero by a cosine


def fit_head(
    config: HeadConfig, features_MD: np.ndarray, labels: Sequence[str], classes: Sequence[str], seed: int
) -> Head:
    """Return the head that `config` describes. Rows come sorted by id: their order is part of the result's bits."""
    if config.kind == "linear":
        return fit_linear(
            features_MD,
            labels,
            classes,
            l2=config.l2,
            tol=config.tol,
            max_iter=config.max_iter,
            class_weights=config.class_weights,
        )
    return fit_mlp(
        features_MD,
        labels,
        classes,
        hidden=config.hidden,
        epochs=config.epochs,
        batch=config.batch,
        lr=config.lr,
        l2=config.l2,
        class_weights=config.class_weights,
        seed=seed,
    )


def fit_linear(
    features_MD: np.ndarray,
    labels: Sequence[str],
    classes: Sequence[str],
    *,
    l2: float = 1.0,
    tol: float = 1e-5,
    max_iter: int = 500,
    class_weights: ClassWeights = "none",
) -> Head:
    """Return the linear head of least regularised loss. A class without a label keeps a row of zero weights."""
    target_M = label_numbers(labels, classes)
    _check_features(features_MD, len(target_M))
    present, target_M = torch.unique(target_M, return_inverse=True)
    with one_thread():
        x_MD = torch.from_numpy(np.asarray(features_MD)).double()
        weight_M = row_weights(target_M, class_weights).double()
        weight_KD, bias_K = _solve(x_MD, target_M, weight_M, len(present), l2=l2, tol=tol, max_iter=max_iter)
        weight_CD = torch.zeros(len(classes), x_MD.shape[1], dtype=torch.float64)
        bias_C = torch.full((len(classes),), _absent_bias(x_MD, weight_KD, bias_K), dtype=torch.float64)
    weight_CD[present], bias_C[present] = weight_KD, bias_K
    return Head.linear(weight_CD.float().numpy(), bias_C.float().numpy(), classes)


def _solve(
    x_MD: Tensor, target_M: Tensor, weight_M: Tensor, classes: int, *, l2: float, tol: float, max_iter: int
) -> tuple[Tensor, Tensor]:
    """Minimise the loss divided by M, over weight [K, D] and bias [K] held in one tensor, with its exact gradient."""
    rows, dim = x_MD.shape
    theta = torch.zeros(classes, dim + 1, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [theta],
        max_iter=max_iter,
        max_eval=2 * max_iter,
        tolerance_grad=tol,
        tolerance_change=1e-12,
        history_size=10,
        line_search_fn="strong_wolfe",
    )
    index_M = torch.arange(rows)

    @torch.no_grad()
    def closure() -> Tensor:
        weight, bias = theta[:, :dim], theta[:, dim]
        logp = F.log_softmax(torch.addmm(bias, x_MD, weight.t()), dim=1)
        loss = -(weight_M * logp[index_M, target_M]).sum() / rows + 0.5 * l2 / rows * weight.square().sum()
        slope = logp.exp_()
        slope[index_M, target_M] -= 1.0
        slope *= (weight_M / rows)[:, None]
        theta.grad = torch.cat([slope.t() @ x_MD + l2 / rows * weight, slope.sum(0)[:, None]], dim=1)
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    state = optimiser.state[optimiser._params[0]]
    done, stopped = state["n_iter"], state["n_iter"] >= max_iter or state["func_evals"] >= 2 * max_iter
    assert theta.grad is not None
    level = log.warning if stopped else log.debug
    level("linear head: %d rows, %d iterations, slope %.1e", rows, done, float(theta.grad.abs().max()))
    return theta.detach()[:, :dim], theta.detach()[:, dim]


def _absent_bias(x_MD: Tensor, weight_KD: Tensor, bias_K: Tensor) -> float:
    """Return the bias that gives a class without labels about one row's worth of probability in M + 1.

    Its best bias is −∞, which no file should hold; zero would make it a favourite on rows unlike the labelled ones.
    """
    lse_M = torch.logsumexp(torch.addmm(bias_K, x_MD, weight_KD.t()), dim=1)
    return float(lse_M.mean() - np.log(len(x_MD) + 1))


def fit_mlp(
    features_MD: np.ndarray,
    labels: Sequence[str],
    classes: Sequence[str],
    *,
    hidden: int = 256,
    epochs: int = 60,
    batch: int = 256,
    lr: float = 1e-3,
    l2: float = 1.0,
    class_weights: ClassWeights = "none",
    seed: int = 0,
) -> Head:
    """Return an MLP head: linear, batch norm (folded), ReLU, linear; AdamW on one thread, seeded."""
    target_M = label_numbers(labels, classes)
    _check_features(features_MD, len(target_M))
    with one_thread():
        x_MD = torch.from_numpy(np.asarray(features_MD)).float()
        weight_M = row_weights(target_M, class_weights)
        below, norm, above = _mlp(x_MD.shape[1], hidden, len(classes), seed)
        net = nn.Sequential(below, norm, nn.ReLU(), above)
        parts = -(-len(x_MD) // batch)  # steps an epoch, none of more than `batch` rows
        optimiser = torch.optim.AdamW(net.parameters(), lr=lr, weight_decay=l2 / len(x_MD))
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs * parts)
        for epoch in range(epochs):
            order = seeds.generator(seed, "mlp head", epoch).permutation(len(x_MD))
            for rows in np.array_split(order, parts):
                if len(rows) == 1:
                    rows = np.repeat(rows, 2)  # batch norm needs two rows
                loss_B = F.cross_entropy(net(x_MD[rows]), target_M[rows], reduction="none")
                optimiser.zero_grad()
                (weight_M[rows] * loss_B).mean().backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
        return _folded(below, norm, above, x_MD, classes)


def _mlp(dim: int, hidden: int, classes: int, seed: int) -> tuple[nn.Linear, nn.BatchNorm1d, nn.Linear]:
    generator = seeds.torch_generator(seed, "mlp head weights")
    with torch.device("meta"):  # elsewhere, making a layer draws from the global generator
        below, above = nn.Linear(dim, hidden), nn.Linear(hidden, classes)
    below, above = below.to_empty(device="cpu"), above.to_empty(device="cpu")
    norm = nn.BatchNorm1d(hidden)
    with torch.no_grad():
        for layer in (below, above):
            layer.weight.normal_(0.0, layer.in_features**-0.5, generator=generator)
            layer.bias.zero_()
    return below, norm, above


@torch.no_grad()
def _folded(below: nn.Linear, norm: nn.BatchNorm1d, above: nn.Linear, x_MD: Tensor, classes: Sequence[str]) -> Head:
    """Fold the batch norm with the statistics of all rows: the running ones lag on so few steps."""
    z_MH = below(x_MD)
    scale_H = norm.weight / torch.sqrt(z_MH.var(0, correction=0) + norm.eps)
    arrays = {
        "hidden_weight": below.weight * scale_H[:, None],
        "hidden_bias": (below.bias - z_MH.mean(0)) * scale_H + norm.bias,
        "weight": above.weight,
        "bias": above.bias,
    }
    return Head("mlp", tuple(classes), {name: tensor.numpy() for name, tensor in arrays.items()})


def label_numbers(labels: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Return the place of each label in `classes`, int64 [M]."""
    number = {name: i for i, name in enumerate(classes)}
    unknown = sorted({str(label) for label in labels if label not in number})
    if unknown:
        raise LabelsError(
            f"{len(unknown)} label(s) are not among the {len(classes)} `classes`: {', '.join(unknown[:5])}."
            f"{nearest(unknown[0], number)} Add them to `classes` or correct the labels."
        )
    if not len(labels):
        raise LabelsError("There are no labelled rows to fit on. Label some rows, or start with the strategy `random`.")
    return torch.tensor([number[label] for label in labels], dtype=torch.int64)


def row_weights(target_M: Tensor, class_weights: ClassWeights) -> Tensor:
    """Return each row's weight in the loss, fp32 [M], of mean 1; balanced: M / (classes present × rows of it)."""
    if class_weights == "none":
        return torch.ones(len(target_M))
    _, inverse_M, counts_K = torch.unique(target_M, return_inverse=True, return_counts=True)
    weight_K: Tensor = len(target_M) / (len(counts_K) * counts_K.double())
    return weight_K[inverse_M].float()


def _check_features(features_MD: np.ndarray, rows: int) -> None:
    if features_MD.ndim != 2 or len(features_MD) != rows:
        raise ModelError(f"Features of shape {list(features_MD.shape)} for {rows} labels. Expected [{rows}, D].")
    if not np.isfinite(features_MD).all():
        raise ModelError("Labelled rows have NaN or infinite features. Expected finite ones: leave such rows out.")
