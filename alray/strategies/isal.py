"""ISAL: label the rows whose expected gradient, once trained on, would lower the loss of a reference set most."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from alray.config import Config
from alray.errors import StrategyError
from alray.models.head import Head
from alray.models.network import Network
from alray.ops import all_weights, conjugate_gradients, influence, last_layer
from alray.ops.affine import affine
from alray.ops.conjugate_gradients import Product
from alray.ops.last_layer import Curvature
from alray.ops.lissa import lissa
from alray.strategies.base import Given, ScoreStrategy, as_tensor
from alray.table import Table

log = logging.getLogger(__name__)

DAMPING = {"last_layer": 0.0, "all_weights": 0.01}
"""Per labelled row: the last layer's Hessian is positive with L2 in it, that of all weights has no end of flat ways."""


class Lissa(Config):
    """LiSSA's recursion; the defaults are those of the paper's code."""

    damp: float = Field(0.01, ge=0, lt=1)  # of the estimate itself: damping is this times `scale`
    scale: float = Field(1e4, gt=0, le=1e12)  # what a row's Hessian is divided by: more than its largest curvature
    depth: int = Field(250, ge=1, le=100_000)  # labelled rows of one repetition
    repetitions: int = Field(4, ge=1, le=100)


@dataclass(frozen=True)
class _Problem:
    """H s = v: the reference gradient, products with the summed Hessian and with one row's, a preconditioner."""

    v: Tensor
    rows: int
    times: Product
    times_row: Callable[[int, Tensor], Tensor]
    precondition: Product | None = None


class Isal(ScoreStrategy):
    """Liu et al., *Influence Selection for Active Learning*, ICCV 2021, §3: the most negative influence first.

    I(z, R) = −∇ℓ(R)·H⁻¹G(z), G the gradient of row z expected over its `top_k` likeliest classes. The score is −I: the
    fall of the mean loss of R, in nats, when z is trained on as expected. R is never trained on and never the test set.

    On the last layer G·s is one product of matrices, exact. On all weights it is one forward-mode pass per batch of
    pictures, over every weight, bias and norm; the paper's code leaves biases and norms out.
    """

    name: Literal["isal"] = "isal"
    needs: ClassVar[frozenset[str]] = frozenset({"hidden", "probs", "reference"})
    paper: ClassVar[str] = "Liu et al., ICCV 2021"
    cost: ClassVar[str] = "N·D·C, and about 50·M·D·C to solve; all weights: three forward passes of the pool"

    params: Literal["last_layer", "all_weights"] = "last_layer"  # whose gradient is taken; the latter needs pictures
    top_k: int = Field(
        1, ge=1, le=1_000_000
    )  # classes that the gradient is expected over, fewer than all; 1 is the pseudo-label
    weighted: bool = False  # with top_k 1, by the pseudo-label's probability; the paper's code does not
    solver: Literal["cg", "lissa"] = "cg"
    damping: float | None = Field(
        None, ge=0, le=1e12
    )  # cg: on H's diagonal, per labelled row; none: 0, all weights 0.01
    tol: float = Field(1e-6, gt=0, lt=1)  # cg: residual, relative to the reference gradient, at which it stops
    iterations: int = Field(500, ge=1, le=1_000_000)  # cg: at most
    curvature: Literal["gauss_newton", "exact"] = "gauss_newton"  # of all weights; on the last layer they are one
    lissa: Lissa = Lissa()
    reference_share: float = Field(0.2, gt=0, lt=1)  # of the labels, in a selection; a campaign: `training.holdout`

    @field_validator("damping", "tol", "iterations", "lissa")
    @classmethod
    def _is_for_the_solver(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what the other solver would use: as a default it is let through, since stored settings say it all."""
        name = str(info.field_name)
        wanted = "lissa" if name == "lissa" else "cg"
        if info.data.get("solver", wanted) != wanted and value != cls.model_fields[name].default:
            instead = ", or set `lissa.damp`" if name == "damping" else ""
            raise ValueError(f"belongs to `solver: {wanted}` and would do nothing: leave it out{instead}")
        return value

    @field_validator("weighted")
    @classmethod
    def _weighs_one_class(cls, value: bool, info: ValidationInfo) -> bool:
        top_k = info.data.get("top_k", 1)
        if value and top_k > 1:
            raise ValueError(
                f"would do nothing: with `top_k` {top_k} every class is weighed by its probability (expected false, or "
                "`top_k: 1`)"
            )
        return value

    @property
    def wants(self) -> frozenset[str]:
        """A head's columns, or pictures and the network."""
        return self.needs if self.params == "last_layer" else frozenset({"reference", "backbone+images"})

    def reference(self) -> float:
        return self.reference_share

    def too_few(self, classes: int) -> str | None:
        return influence.too_few(self.top_k, classes)

    def prepare(self, given: Given) -> dict[str, Any]:
        known = _Known.of(given)
        influence.check_top_k(self.top_k, len(given.classes))
        if len(given.classes) == 1:
            log.warning("`isal` has one class to tell apart: every influence is zero")
        damping = DAMPING[self.params] if self.damping is None else self.damping
        if self.params == "all_weights":
            s_P = self._solved(_of_network(known, self.curvature, damping * known.count))
            return {"network": known.network, "direction": s_P.float().cpu().numpy()}
        s_CH = self._solved(_of_last_layer(known, damping * known.count))
        return {"weight": s_CH[:, :-1].float().numpy(), "bias": s_CH[:, -1].float().numpy()}

    def _solved(self, problem: _Problem) -> Tensor:
        """Return s = H⁻¹v, H of the summed objective."""
        if self.solver == "lissa":
            h = lissa(problem.times_row, problem.v, problem.rows, **self.lissa.model_dump())
            return h / (self.lissa.scale * problem.rows)
        found = conjugate_gradients.solve(
            problem.times, problem.v, tol=self.tol, iterations=self.iterations, precondition=problem.precondition
        )
        level = log.warning if found.residual > self.tol else log.info
        level("isal: %d products, residual %.1e (`tol` %.1e)", found.iterations, found.residual, self.tol)
        return found.s

    def score(self, rows: Table, prepared: dict[str, Any]) -> Tensor:
        if self.params == "all_weights":
            pictures, network = rows["pictures"], prepared["network"]
            direction_P = as_tensor(prepared["direction"], pictures)
            logits_NC, along_NC = all_weights.along(network.module(pictures.device), direction_P, pictures)
            probs_NC = logits_NC.softmax(dim=1)
        else:
            hidden_NH, probs_NC = rows["hidden"], rows["probs"]
            weight_CH, bias_C = (as_tensor(prepared[name], hidden_NH) for name in ("weight", "bias"))
            along_NC = affine(hidden_NH, weight_CH, bias_C)
        return influence.benefit(probs_NC, along_NC, self.top_k, weighted=self.weighted).float()


@dataclass(frozen=True)
class _Known:
    """What has to be there: the head, the rows that it was fitted on, and those that it is to be good at."""

    head: Head
    labelled: Table
    label_M: Tensor
    weight_M: Tensor
    reference: Table
    label_R: Tensor
    l2: float
    network: Network | None

    @staticmethod
    def of(given: Given) -> _Known:
        head, rows, label_M, others, label_R = (
            given.head,
            given.labelled,
            given.label_M,
            given.reference,
            given.reference_label_M,
        )
        if head is None or rows is None or label_M is None or not len(rows):
            raise StrategyError(
                "`isal` asks what a row would change in a head that was fitted on labels, and there are none to train "
                "on. Give labels, or start with `strategy: random`."
            )
        if others is None or label_R is None or not len(others):
            raise StrategyError(
                "`isal` measures influence on a reference set, labelled rows that were drawn at random and that no "
                "model was trained on, and there is none. In a campaign set `training.holdout` above 0 before it "
                "begins, and let `budget.initial` or `budget.control` draw enough rows for some of them to be held "
                "out; a campaign that is under way can go on with another `strategy` meanwhile."
            )
        weight_M = torch.ones(len(rows)) if given.weight_M is None else given.weight_M
        return _Known(head, rows, label_M, weight_M, others, label_R, given.l2, given.network)

    @property
    def count(self) -> int:
        """M, how many rows the head was fitted on."""
        return len(self.labelled)


def _of_last_layer(known: _Known, damping: float) -> _Problem:
    weight_CH, bias_C = known.head.last
    curve = Curvature.of(
        known.labelled["hidden"], weight_CH, bias_C, weight_M=known.weight_M, l2=known.l2, damping=damping
    )
    v_CH = last_layer.gradient(known.reference["hidden"], known.label_R, weight_CH, bias_C)
    factor_HH = curve.precondition()
    solve = None if factor_HH is None else lambda r_CH: torch.cholesky_solve(r_CH.T, factor_HH).T
    return _Problem(v_CH, known.count, curve.times, curve.times_row, solve)


def _of_network(known: _Known, curvature: str, damping: float) -> _Problem:
    assert known.network is not None  # the pipeline has asked for it
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = known.network.module(device)
    product = all_weights.CURVATURES[curvature]
    pictures, label_M, weight_M = (x.to(device) for x in (known.labelled["pictures"], known.label_M, known.weight_M))
    l2_P = known.network.l2 * all_weights.decayed(all_weights.weights_of(module)).double()

    def times(s_P: Tensor) -> Tensor:
        bent_P = product(module, s_P.float(), pictures, label_M, weight_M)
        return bent_P + (l2_P + damping) * s_P

    def times_row(row: int, s_P: Tensor) -> Tensor:
        one = slice(row, row + 1)
        bent_P = product(module, s_P.float(), pictures[one], label_M[one], weight_M[one])
        return bent_P + l2_P / known.count * s_P

    others, label_R = known.reference["pictures"].to(device), known.label_R.to(device)
    share_R = torch.full((len(others),), 1 / len(others), device=device)
    return _Problem(all_weights.gradient(module, others, label_R, share_R), known.count, times, times_row)
