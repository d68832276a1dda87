"""Mixing by trial: where each cap, anchor by anchor, is a forward pass of the mixture through the head.

The closed form of `flips.py` needs an affine head and its own displacement. Everything else of ALFA-Mix is tried:
displacements through a head with a hidden layer (here), random and learned α (`alphas.py`). What cannot flip is left
out: no class can gain on a row's label faster than `steepest` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from alray.ops import flips
from alray.ops.affine import affine

SLACK = 0.99
"""Of a bound on where a row can flip first: more than rounding takes from it."""


class Net(NamedTuple):
    """A head and its anchors, seen from `centre_D`: one affine layer, or two with a ReLU between.

    `above_*` is the second layer. The first four fields are those of `flips.Frame`, whose head has one layer.
    """

    centre_D: Tensor
    weight_CD: Tensor
    bias_C: Tensor
    anchors_CD: Tensor
    above_CH: Tensor | None = None
    above_C: Tensor | None = None

    @staticmethod
    def of(layers: Sequence[Tensor], anchors_CD: Tensor) -> Net:
        """Return a head of two layers (weight, bias, weight, bias) and its class anchors, centred as `Frame`, fp64."""
        below_HD, below_H, above_CH, above_C = (layer.double() for layer in layers)
        anchors_CD = anchors_CD.double()
        centre_D = anchors_CD.mean(dim=0).float().double()
        shifted_H = below_H + below_HD @ centre_D
        above_CH, above_C = above_CH - above_CH.mean(dim=0), above_C - above_C.mean()
        return Net(centre_D, below_HD, shifted_H, anchors_CD - centre_D, above_CH, above_C)

    def to(self, like: Tensor) -> Net:
        """Return the net in the precision and on the device of `like`."""
        return Net(*(None if part is None else part.to(like) for part in self))  # type: ignore[arg-type]

    def below(self, z_ND: Tensor) -> Tensor:
        """Return what the first layer makes of centred rows, [N, H]; the logits where it is the only one."""
        return affine(z_ND, self.weight_CD, self.bias_C)

    def above(self, pre_NH: Tensor) -> Tensor:
        """Return the logits [N, C] for what `below` returned."""
        if self.above_CH is None or self.above_C is None:
            return pre_NH
        return affine(pre_NH.relu(), self.above_CH, self.above_C)

    def push(self, step_NH: Tensor, pre_NH: Tensor) -> Tensor:
        """Return the slopes of the logits along what `below` would make of a displacement without its bias, [N, C]."""
        if self.above_CH is None:
            return step_NH
        return affine(step_NH * (pre_NH > 0), self.above_CH, torch.zeros_like(self.above_CH[:, 0]))

    def pull(self, v_NC: Tensor, pre_NH: Tensor) -> Tensor:
        """Return the gradient of v·logits with respect to the rows, [N, D]; at a kink the ReLU's slope is 0."""
        if self.above_CH is not None:
            v_NC = affine(v_NC, self.above_CH.T, torch.zeros_like(self.above_CH[0])) * (pre_NH > 0)
        return affine(v_NC, self.weight_CD.T, torch.zeros_like(self.weight_CD[0]))


def steepest(move_NH: Tensor, weight_CH: Tensor, label_N: Tensor) -> Tensor:
    """Return how much each class can gain on the label at most while coordinate h moves by 0 … 1 times move_h, [N, C].

    Σ_h max(0, Δw_h move_h) for Δw = w_c − w_y ≤ Σ_h max(0, w_ch move_h) + Σ_h max(0, −w_yh move_h): GEMMs alone.
    """
    zero_C = torch.zeros_like(weight_CH[:, 0])
    ups_NC = affine(move_NH.relu(), weight_CH.relu(), zero_C) + affine((-move_NH).relu(), (-weight_CH).relu(), zero_C)
    downs_NC = (ups_NC - affine(move_NH, weight_CH, zero_C)).clamp_min(0)
    return ups_NC + downs_NC.gather(1, label_N[:, None])


def earliest(logits_NC: Tensor, label_N: Tensor, gain_NC: Tensor) -> Tensor:
    """Return a share of the move before which no class overtakes the label, [N], given what `steepest` returned."""
    return SLACK * flips.first_crossing(logits_NC, label_N, gain_NC.scatter(1, label_N[:, None], 0.0))


class Trial(NamedTuple):
    """What trying one cap and anchor on some rows gave: the mixtures' logits, and which of several flips is kept."""

    logits_NC: Tensor
    key_N: Tensor  # the least is kept


class Mixer(Protocol):
    """A way of mixing all anchors into the same rows."""

    logits_NC: Tensor  # of the rows themselves
    anchors: int

    def floor(self, anchor: int) -> Tensor:
        """Return a cap up to which no mixture with this anchor flips, [N]."""

    def mix(self, rows: Tensor, number: int, cap: float, anchor: int) -> Trial:
        """Return the mixtures of some rows with an anchor at cap `cap`, the `number`-th."""


class Flips(NamedTuple):
    """Each row's first flip: its cap (∞ where no cap has one, NaN where the row has no logits), key and logits.

    Of several anchors that flip a row at that cap, the one with the least key; where none does, the row's own logits.
    """

    cap_N: Tensor  # fp64
    key_N: Tensor
    logits_NC: Tensor
    own_NC: Tensor  # the row's own logits


def first_flips(mixer: Mixer, caps: Sequence[float]) -> Flips:
    """Return the first of the ascending caps at which each row flips towards any anchor (algorithm 1's growing cap)."""
    own_NC = mixer.logits_NC
    label_N = own_NC.argmax(dim=1)
    cap_N = torch.full_like(own_NC[:, 0], math.inf, dtype=torch.float64)
    key_N, logits_NC = torch.full_like(own_NC[:, 0], math.inf), own_NC.clone()
    floors = [mixer.floor(anchor) for anchor in range(mixer.anchors)]
    for number, cap in enumerate(caps):
        open_N = cap_N.isinf()
        for anchor, floor_N in enumerate(floors):
            rows = torch.nonzero(open_N & (floor_N < cap)).squeeze(1)
            if not len(rows):
                continue
            trial = mixer.mix(rows, number, cap, anchor)
            kept = (trial.logits_NC.argmax(dim=1) != label_N[rows]) & (trial.key_N < key_N[rows])
            flipped = rows[kept]
            cap_N[flipped], key_N[flipped], logits_NC[flipped] = cap, trial.key_N[kept], trial.logits_NC[kept]
    cap_N[~own_NC.isfinite().all(dim=1)] = math.nan
    return Flips(cap_N, key_N, logits_NC, own_NC)


def just_below(cap_N: Tensor) -> Tensor:
    """Return the largest fp32 numbers below the caps, so that a row is a candidate at its own cap; ∞ stays."""
    cap_N = cap_N.float()
    return torch.where(cap_N.isfinite(), torch.nextafter(cap_N, torch.zeros_like(cap_N)), cap_N)


class Along:
    """The closed form's displacement ε‖a − z‖u, ε = cap/√D, tried by forward passes (eq. 5 as it was run).

    u is the direction of the gradient of the label's cross-entropy at the row. It is one for all anchors, so the first
    layer is passed once: behind it, a mixture is pre + r·(W u). `freeze` keeps coordinates in which row and anchor are
    equal where they are, as the official guard does; each anchor then has a direction of its own. Of several anchors
    that flip a row, the farthest is kept.
    """

    def __init__(self, x_ND: Tensor, net: Net, *, freeze: bool = False) -> None:
        self.net, self.freeze, self.anchors = net, freeze, len(net.anchors_CD)
        self.z_ND = x_ND - net.centre_D
        self.pre_NH = net.below(self.z_ND)
        self.logits_NC = net.above(self.pre_NH)
        v_NC, self.label_N = flips.descent_weights(self.logits_NC)
        g_ND = net.pull(v_NC, self.pre_NH)
        length_N1 = torch.linalg.vector_norm(g_ND, dim=1, keepdim=True)
        self.u_ND = torch.where(length_N1 > 0, g_ND / length_N1, 0.0)
        self.step_NH = None if freeze else self._step(self.u_ND)
        self.radius_N = None if self.step_NH is None else self._least_radius(self.step_NH)

    def floor(self, anchor: int) -> Tensor:
        rows = torch.arange(len(self.z_ND), device=self.z_ND.device)
        radius_N = self._least_radius(self._steps(rows, anchor)) if self.radius_N is None else self.radius_N
        return radius_N / self._reach(rows, anchor)

    def mix(self, rows: Tensor, number: int, cap: float, anchor: int) -> Trial:
        radius_N = cap * self._reach(rows, anchor)
        pre_NH = self.pre_NH[rows] + radius_N[:, None] * self._steps(rows, anchor)
        return Trial(self.net.above(pre_NH), -radius_N)

    def linearised_cap(self) -> Tensor:
        """Return the cap at which each row would flip if its slopes stayed what they are at the row, [N].

        With a hidden layer that is an order of rows and no more.
        """
        slope_NC = self.net.push(self._step(self.u_ND), self.pre_NH)
        slope_NC = slope_NC - slope_NC.gather(1, self.label_N[:, None])
        rows = torch.arange(len(slope_NC), device=slope_NC.device)
        farthest_N = torch.stack([self._reach(rows, anchor) for anchor in range(self.anchors)]).max(dim=0).values
        cap_N = flips.first_crossing(self.logits_NC, self.label_N, slope_NC) / farthest_N
        return torch.where(farthest_N > 0, cap_N, math.inf)

    def _least_radius(self, step_NH: Tensor) -> Tensor:
        """Return a length of the displacement below which no row flips, [N]."""
        above_CH = torch.eye(step_NH.shape[1]).to(step_NH) if self.net.above_CH is None else self.net.above_CH
        return earliest(self.logits_NC, self.label_N, steepest(step_NH, above_CH, self.label_N))

    def _reach(self, rows: Tensor, anchor: int) -> Tensor:
        """Return the length of the displacement at cap 1, [n]."""
        d_ND = self.net.anchors_CD[anchor] - self.z_ND[rows]
        length_N: Tensor = torch.linalg.vector_norm(d_ND, dim=1)
        return length_N / math.sqrt(d_ND.shape[1])

    def _steps(self, rows: Tensor, anchor: int) -> Tensor:
        """Return what a displacement of length 1 adds behind the first layer, [n, H]."""
        if self.step_NH is not None:
            return self.step_NH[rows]
        d_ND = self.net.anchors_CD[anchor] - self.z_ND[rows]
        return self._step(self.u_ND[rows] * (d_ND / (d_ND + flips.GUARD)))

    def _step(self, move_ND: Tensor) -> Tensor:
        return affine(move_ND, self.net.weight_CD, torch.zeros_like(self.net.bias_C))
