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
from torch import Tensor

from alray.config import Config
from alray.errors import LabelsError, ModelError, nearest
from alray.models.head import Head
from alray.runtime.threads import one_thread
from alray.training import mlp
from alray.training.schedule import Falling

log = logging.getLogger(__name__)

ClassWeights = Literal["none", "balanced"]


class HeadConfig(Config):
    """How a head is fitted on features."""

    kind: Literal["linear", "mlp"] = "linear"
    class_weights: ClassWeights = "none"  # balanced: every class weighs the same, however many labels it has
    l2: float = Field(1.0, ge=0)  # ½·l2·‖W‖² beside the summed loss
    tol: float = Field(1e-5, gt=0)  # linear: largest slope of the mean loss at which L-BFGS stops
    max_iter: int = Field(500, ge=1)  # linear: L-BFGS iterations at most
    hidden: int = Field(256, ge=1)  # mlp: hidden units
    batch_norm: bool = True  # mlp: between the first layer and the ReLU; folded into the layer when it is fitted
    epochs: int = Field(60, ge=1)  # mlp: passes over the labelled rows
    batch: int = Field(256, ge=2)  # mlp: rows a step
    optimizer: Literal["adamw", "sgd"] = "adamw"  # mlp; sgd is Nesterov's, with momentum 0.9
    lr: float = Field(1e-3, gt=0)  # mlp: first learning rate
    schedule: Falling = "cosine"  # mlp: how it falls: cosine to zero, cosine_7_16 to a fifth
    weight_decay: float | None = Field(None, ge=0)  # mlp: of all weights; none: l2 / M, which is what l2 says
    dropout: float = Field(0.0, ge=0, lt=1)  # mlp: share of hidden units that a step leaves out; none when it predicts
    feature_noise: float = Field(0.0, ge=0)  # mlp: Gaussian noise, in standard deviations of the row's class

    def penalty(self, rows: int) -> float:
        """Return the l2 of ½·l2·‖W‖² beside the loss summed over this many rows, as the last layer was fitted with."""
        decayed = self.kind == "mlp" and self.weight_decay is not None
        return rows * (self.weight_decay or 0.0) if decayed else self.l2


def fit_head(
    config: HeadConfig, features_MD: np.ndarray, labels: Sequence[str], classes: Sequence[str], seed: int
) -> Head:
    """Return the head that `config` describes. Rows come sorted by id: their order is part of the result's bits."""
    if config.kind == "mlp":
        target_M = label_numbers(labels, classes)
        _check_features(features_MD, len(target_M))
        weight_M = row_weights(target_M, config.class_weights)
        return mlp.fit(config, features_MD, target_M, weight_M, classes, seed)
    return fit_linear(
        features_MD,
        labels,
        classes,
        l2=config.l2,
        tol=config.tol,
        max_iter=config.max_iter,
        class_weights=config.class_weights,
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
