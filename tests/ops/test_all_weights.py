"""Slopes, gradients and curvature over all weights of small networks, against autograd one picture at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alray.ops import all_weights, influence

N, C = 150, 5


def convolutions() -> nn.Module:
    """Return convolutions, norms, a shortcut of its own, pooling, two layers: [N, 3, 8, 8] to logits [N, 5]."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(8, 12, 2)]
        net = nn.Sequential(*body, nn.GroupNorm(3, 12), nn.GELU(), nn.Flatten(), nn.Linear(48, 16), nn.Tanh())
        net.append(nn.Linear(16, C))
        norm = net[1]
        assert isinstance(norm, nn.BatchNorm2d)
        nn.init.normal_(norm.running_mean, std=0.3)  # type: ignore[arg-type]
        nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
        nn.init.normal_(norm.weight)
    return net.eval()


class Looking(nn.Module):
    """One block of attention over patches, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.1, batch_first=True)
        self.last = nn.Linear(16, C)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.block(self.patches(x).flatten(2).transpose(1, 2)).mean(1))
        return out


def attention() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Looking().eval()


MODULES = {"convolutions": convolutions, "attention": attention}


@pytest.fixture(params=sorted(MODULES))
def module(request: pytest.FixtureRequest) -> nn.Module:
    return MODULES[request.param]()


def drawn(*size: int, seed: int = 1) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def direction(module: nn.Module) -> Tensor:
    return drawn(sum(p.numel() for p in module.parameters()), seed=2)


def one_by_one(module: nn.Module, pictures: Tensor, s_P: Tensor, top_k: int) -> np.ndarray:
    """Return G·s by one backward pass a picture, its loss weighted by the probabilities of its top classes."""
    out = []
    for picture in pictures:
        logp = module(picture[None])[0].log_softmax(0)
        p = logp.detach().exp()
        top = p.argsort(descending=True)[:top_k]
        factor = torch.ones(1) if top_k == 1 else p[top]
        slopes = torch.autograd.grad(-(factor * logp[top]).sum(), list(module.parameters()))
        out.append(float(torch.dot(torch.cat([slope.reshape(-1) for slope in slopes]), s_P)))
    return np.array(out)


@pytest.mark.parametrize("top_k", [1, 3])
def test_p37_forward_mode_is_a_backward_pass_a_picture(module: nn.Module, top_k: int) -> None:
    """P37 over all weights: fp32, correlation ≥ 0.9999, at K = 1 and K = 3."""
    pictures, s_P = drawn(N, 3, 8, 8), direction(module)
    logits_NC, along_NC = all_weights.along(module, s_P, pictures)
    found = influence.benefit(logits_NC.softmax(1), along_NC, top_k, weighted=False).numpy()
    wanted = one_by_one(module, pictures, s_P, top_k)
    assert np.corrcoef(found, wanted)[0, 1] >= 0.9999999
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())
    np.testing.assert_allclose(logits_NC, module(pictures).detach(), atol=1e-5)


@pytest.mark.parametrize("small", [0, all_weights.SMALL])
def test_a_picture_meets_the_same_bits_whichever_are_beside_it(
    module: nn.Module, small: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In small batches as in large ones: more than one of them, the last not full."""
    monkeypatch.setattr(all_weights, "SMALL", small)
    pictures, s_P = drawn(2 * N, 3, 8, 8), direction(module)
    whole = all_weights.along(module, s_P, pictures)
    order = torch.randperm(2 * N, generator=torch.Generator().manual_seed(3))
    shuffled = all_weights.along(module, s_P, pictures[order])
    alone = all_weights.along(module, s_P, pictures[7:8])
    for part in range(2):
        assert torch.equal(shuffled[part], whole[part][order])
        assert torch.equal(alone[part], whole[part][7:8])


def test_batches_are_large_where_all_maps_are_small() -> None:
    class Watched(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            out: Tensor = super().forward(x)
            return out

    seen = list[int]()
    for channels in (4, 512):  # of maps of 8 pixels square: 256 and 32,768 numbers
        wide = nn.Conv2d(3, channels, 3, padding=1)
        net = Watched(wide, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, C)).eval()
        all_weights.along(net, direction(net), drawn(3, 3, 8, 8))
        assert not any(part._forward_hooks for part in net.modules())
    assert seen == [1, 4 * all_weights.BATCH, 1, all_weights.BATCH]


def test_no_weight_and_no_buffer_has_changed(module: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    pictures, label, weight = drawn(9, 3, 8, 8), torch.arange(9) % C, torch.ones(9)
    all_weights.along(module, direction(module), pictures)
    all_weights.gradient(module, pictures, label, weight)
    for product in all_weights.CURVATURES.values():
        product(module, direction(module), pictures, label, weight)
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in module.parameters())


def loss(module: nn.Module, vector_P: Tensor, pictures: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    """Return Σ wᵢ·CEᵢ at other weights."""
    weights = all_weights.shaped(vector_P, all_weights.weights_of(module))
    logits = torch.func.functional_call(module, weights, (pictures,))
    return (weight * F.cross_entropy(logits, label, reduction="none")).sum()


def test_p38_gradient_and_hessian_are_differences(module: nn.Module) -> None:
    """P38 over all weights, in fp64: H s against differences of gradients, and symmetric."""
    module = module.double()
    pictures, label, weight = drawn(70, 3, 8, 8).double(), torch.arange(70) % C, drawn(70).abs().double()
    at, a = all_weights.flat(all_weights.weights_of(module)), direction(module).double()
    b = drawn(len(a), seed=5).double()
    with all_weights.differentiable():
        leaf = at.clone().requires_grad_()
        wanted = torch.autograd.grad(loss(module, leaf, pictures, label, weight), leaf)[0]
        ends = []
        for sign in (1, -1):
            leaf = (at + sign * 1e-6 * a).requires_grad_()
            ends.append(torch.autograd.grad(loss(module, leaf, pictures, label, weight), leaf)[0])
    np.testing.assert_allclose(all_weights.gradient(module, pictures, label, weight), wanted, atol=1e-9)
    bent = all_weights.hessian(module, a, pictures, label, weight)
    np.testing.assert_allclose(bent, (ends[0] - ends[1]) / 2e-6, atol=1e-4 * float(bent.abs().max()))
    other = all_weights.hessian(module, b, pictures, label, weight)
    assert float(b @ bent) == pytest.approx(float(a @ other), rel=1e-8)


def test_gauss_newton_is_its_definition() -> None:
    """Σ wᵢ Jᵢᵀ(diag pᵢ − pᵢpᵢᵀ)Jᵢ, from whole Jacobians; on a last layer alone it is the Hessian."""
    module = convolutions().double()
    pictures, label, weight = drawn(6, 3, 8, 8).double(), torch.arange(6) % C, drawn(6).abs().double()
    weights = all_weights.weights_of(module)
    jacobian = torch.func.jacrev(lambda w: torch.func.functional_call(module, w, (pictures,)))(weights)
    j_NCP = torch.cat([part.reshape(6, C, -1) for part in jacobian.values()], dim=2)
    p_NC = module(pictures).detach().softmax(1)
    s_P = direction(module).double()
    u_NC = j_NCP @ s_P
    turned = weight[:, None] * (p_NC * u_NC - p_NC * (p_NC * u_NC).sum(1, keepdim=True))
    found = all_weights.gauss_newton(module, s_P, pictures, label, weight)
    np.testing.assert_allclose(found, torch.einsum("ncp,nc->p", j_NCP, turned), rtol=1e-8, atol=1e-8)
    assert float(s_P @ found) > 0
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, C)).double().eval()
    s_P = direction(flat).double()
    both = [product(flat, s_P, pictures, label, weight) for product in all_weights.CURVATURES.values()]
    np.testing.assert_allclose(both[0], both[1], atol=1e-9)


def test_l2_falls_on_weights_and_not_on_biases_or_norms() -> None:
    module = convolutions()
    found = all_weights.shaped(all_weights.decayed(all_weights.weights_of(module)), all_weights.weights_of(module))
    named = {name: bool(part.all()) for name, part in found.items() if bool(part.all()) == bool(part.any())}
    assert len(named) == len(found)
    assert {name for name, on in named.items() if on} == {"0.weight", "4.weight", "8.weight", "10.weight"}
