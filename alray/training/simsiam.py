"""SimSiam: a backbone learns, without labels, that two views of a picture are the same picture.

Chen & He, "Exploring Simple Siamese Representation Learning", CVPR 2021. Each view goes through backbone and projector,
z, and one of the two through a predictor besides, p; −cos(p, z) is lowered with z taken as given. Nothing keeps all
pictures from being mapped to one point but that stop of the gradient and the predictor, hence `Spread`.

Batch norm ends the projector with a scale and a shift of its own, as in the paper's text. Without them (the official
code) every z of a batch has unit deviations by construction, and a collapse could not be seen in z.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alray import seeds
from alray.models.backbone import Backbone


class SimSiam(nn.Module):
    """A backbone (to D), a projector (D to `dim`) and a predictor (`dim` to `hidden` to `dim`)."""

    def __init__(self, body: Backbone, *, dim: int, hidden: int, layers: int, seed: int) -> None:
        super().__init__()
        self.body = body
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.key(seed, "projector and predictor") & (2**63 - 1))
            self.projector = _projector(body.dim, dim, layers)
            self.predictor = nn.Sequential(*_layer(dim, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, dim))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each row's loss, fp32 [N], and both views' projections, [N, dim], which carry no gradient."""
        z1, z2 = self.projector(self.body(first)), self.projector(self.body(second))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        return 0.5 * (distance(p1, z2) + distance(p2, z1)), z1.detach(), z2.detach()


def distance(p_ND: Tensor, z_ND: Tensor) -> Tensor:
    """Return D(p, z) = −cos(p, stopgrad(z)) of each row, fp32 [N] (equations 1 and 3 of the paper)."""
    return -F.cosine_similarity(p_ND.float(), z_ND.detach().float(), dim=1)


def _projector(features: int, dim: int, layers: int) -> nn.Sequential:
    steps = _layer(features, dim)
    for _ in range(layers - 1):
        steps += [nn.ReLU(inplace=True), *_layer(dim, dim)]
    return nn.Sequential(*steps)


def _layer(before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after)]  # the norm takes a bias away again


class Spread:
    """How far the projections are spread over the sphere: 1 when even, 0 when all are one point.

    It is the mean over dimensions of the standard deviation of z / |z|, times √dim (figure 2 of the paper). Variances
    are within a step and a worker, so that neither the moving weights nor the number of workers can pass for spread.
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        # Variance × rows of each dimension, and rows; those of several workers can be added.
        self.sums = torch.zeros(dim + 1, dtype=torch.float64, device=device)

    def add(self, z_ND: Tensor) -> None:
        """Count the projections of one view in one step."""
        if len(z_ND) > 1:
            variance_D = F.normalize(z_ND.float(), dim=1).var(0).double()
            self.sums += len(z_ND) * F.pad(variance_D, (0, 1), value=1.0)

    @staticmethod
    def of(sums: Tensor) -> float | None:
        """Return the spread that the sums over steps and workers say; None when no step had two rows."""
        rows, dim = float(sums[-1]), len(sums) - 1
        return float((sums[:-1] / rows).sqrt().mean() * dim**0.5) if rows else None
