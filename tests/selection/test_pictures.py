"""ISAL over all weights of a small network, through the pipeline: pictures in, picks out, against dense matrices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import pytest
import torch
from PIL import Image

from alray.errors import ModelError, PoolError, RuntimeFailure, StrategyError
from alray.features import FeaturesConfig, FeatureSet, build
from alray.models.backbone import plain
from alray.models.network import Network
from alray.ops import all_weights
from alray.pool import Pool
from alray.runtime.local import LocalRuntime
from alray.selection import ResidentPool, Selection, pictures, select
from alray.selection.reference import kept_back
from alray.selection.resident import Exclusion
from alray.table import as_ids

ALL = {"name": "isal", "params": "all_weights", "damping": 0.05, "tol": 1e-7}


class Shown:
    """A pool of pictures in files as a test says, their features by a small backbone, and some labels."""

    def __init__(self, folder: Path, files: tuple[int, ...] = (90, 7, 53), **more: Any) -> None:
        self.glob, self.ids, self.labels = builders.image_pool(folder / "pool", files=files)
        self.config = FeaturesConfig(
            backbone="small_backbone:make", image_size=8, path=str(folder / "features"), batch=16
        )
        self.known = {i: label for i, label in zip(self.ids[::5], self.labels[::5], strict=True)}
        self.features = self.built(**more)

    def built(self, **more: Any) -> FeatureSet:
        with LocalRuntime() as runtime:
            return build(Pool.open(self.glob, **more), self.config, runtime, seed=2)

    def select(self, strategy: dict[str, Any] | None = None, **more: Any) -> Selection:
        given = {"budget": 10, "labels": self.known, "backbone": self.config, "seed": 2, **more}
        return select(strategy or ALL, self.features, **given)


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    return Shown(tmp_path)


def oracle(shown: Shown, head: Any, top_k: int, curvature: str, damping: float) -> np.ndarray:
    """Return every row's score from whole Jacobians, the dense Hessian and its inverse, in fp64."""
    network = Network(plain(shown.config), head, seed=2)
    with LocalRuntime() as runtime, ResidentPool(shown.features, runtime) as pool:
        parts = pool.held.map(pictures.of_rows, Exclusion(frozenset(shown.ids)), network)
    place = {i: n for n, i in enumerate(i for ids, _ in parts for i in ids)}
    x = torch.from_numpy(np.concatenate([part for _, part in parts]))[[place[i] for i in shown.ids]]
    module = network.module(torch.device("cpu"))
    weights = {n: w.double() for n, w in all_weights.weights_of(module).items()}
    buffers = {n: b.double() for n, b in module.named_buffers()}
    rows = np.arange(0, len(shown.ids), 5)
    back = kept_back(as_ids([shown.ids[i] for i in rows]), 2, 0.2)
    train, others = torch.from_numpy(rows[~back]), torch.from_numpy(rows[back])
    label = torch.tensor([head.classes.index(name) for name in shown.labels])

    def logits(w: Any) -> Any:
        return torch.func.functional_call(module, (w, buffers), (x.double() / 255,))

    j = torch.cat([part.flatten(2) for part in torch.func.jacrev(logits)(weights).values()], 2)
    p = logits(weights).detach().softmax(1)
    bend = torch.diag(1.0 * all_weights.decayed(weights) + damping * len(train)).double()  # head.l2 is 1
    if curvature == "gauss_newton":
        turn = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
        bend += torch.einsum("ncp,ncd,ndq->pq", j[train], turn[train], j[train])
    else:
        flat = all_weights.flat(weights)

        def loss(w: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.cross_entropy(
                logits(all_weights.shaped(w, weights))[train], label[train], reduction="sum"
            )

        bend += torch.autograd.functional.hessian(loss, flat, vectorize=True)  # type: ignore[no-untyped-call]
    v = torch.einsum("nc,ncp->p", (p - torch.eye(4)[label])[others], j[others]) / len(others)
    u = j @ torch.linalg.solve(bend, v)
    out = []
    for pn, un in zip(p, u, strict=True):
        top = pn.argsort(descending=True)[:top_k]
        factor = torch.ones(1) if top_k == 1 else pn[top]
        out.append(float(sum(f * ((pn * un).sum() - un[c]) for f, c in zip(factor, top, strict=True))))
    return np.array(out)


@pytest.mark.parametrize(
    ("top_k", "curvature", "damping"), [(1, "gauss_newton", 0.05), (3, "gauss_newton", 0.05), (1, "exact", 20.0)]
)
def test_p37_scores_are_those_of_dense_matrices(shown: Shown, top_k: int, curvature: str, damping: float) -> None:
    found = shown.select({**ALL, "top_k": top_k, "curvature": curvature, "damping": damping}, budget=120)
    scores = dict(zip(found.picks.ids, found.picks.scores, strict=True))
    wanted = oracle(shown, found.head, top_k, curvature, damping)
    free = [n for n, i in enumerate(shown.ids) if i not in shown.known]
    assert len(scores) == len(free) == 120
    ours, theirs = np.array([scores[shown.ids[n]] for n in free]), wanted[free]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9999
    np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3 * np.abs(theirs).max())


def test_the_cut_of_the_pool_leaves_no_trace(shown: Shown) -> None:
    whole = shown.select()
    shown.features = shown.built(rows_per_shard=13)
    found = shown.select()
    assert found.picks.digest() == whole.picks.digest()
    np.testing.assert_array_equal(found.picks.scores, whole.picks.scores)
    gone = shown.select(exclude=whole.picks.ids.tolist())
    assert not set(gone.picks.ids) & (set(whole.picks.ids) | set(shown.known))


def test_lissa_over_all_weights(shown: Shown) -> None:
    """With its published constants s is near a similarity of gradients (trap 10): conjugate gradients, very damped."""
    lissa = {"name": "isal", "params": "all_weights", "solver": "lissa"}
    by_lissa = shown.select({**lissa, "lissa": {"depth": 40, "repetitions": 1}}, budget=120)
    damped = shown.select({**ALL, "damping": 1e6}, budget=120)
    one, two = (dict(zip(s.picks.ids, s.picks.scores, strict=True)) for s in (by_lissa, damped))
    assert np.corrcoef([one[i] for i in sorted(one)], [two[i] for i in sorted(one)])[0, 1] > 0.999
    with pytest.raises(StrategyError, match=r"LiSSA diverges"):
        shown.select({**lissa, "lissa": {"scale": 0.01}})


def test_an_indefinite_hessian_asks_for_damping(shown: Shown) -> None:
    with pytest.raises(StrategyError, match=r"curves by -.*Raise the strategy's `damping`.*`curvature: gauss_newton`"):
        shown.select({**ALL, "curvature": "exact", "damping": 1e-6})


def test_pictures_that_cannot_be_read_are_quarantined(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture that was there when features were made and is not now: in the pool it is left out."""
    real, bad = pictures.images.decode, {3}
    steps = iter(range(10**9))

    def decode(data: bytes) -> Image.Image:
        if next(steps) in bad:
            raise pictures.images.BadImage("gone")
        return real(data)

    monkeypatch.setattr(pictures.images, "decode", decode)
    with pytest.raises(RuntimeFailure, match=r"1 labelled pictures cannot be read any more: row-00015\."):
        shown.select()
    bad.clear()
    bad.add(next(steps) + 1 + len(shown.known) + 5)
    found = shown.select(max_quarantine=0.1)
    assert len(found.quarantine) == 1 and "a picture that is gone?" in next(iter(found.quarantine)).reason


def test_without_pictures_or_their_backbone_it_is_refused(shown: Shown, tmp_path: Path) -> None:
    with pytest.raises(StrategyError, match=r"needs pictures and the backbone that looks at them"):
        shown.select(backbone=None)
    with pytest.raises(
        ModelError, match=r"were not made by the backbone small_backbone:make.*seed 3\. Give the settings"
    ):
        shown.select(seed=3)
    pool, _, ids, labels = builders.features_pool(tmp_path / "features-pool")
    known = dict(zip(ids[:30], labels[:30], strict=True))
    with pytest.raises(StrategyError, match=r"which a pool of features cannot meet\. Run a campaign on a pool of pict"):
        select(ALL, pool, budget=3, labels=known, backbone=shown.config)
    with pytest.raises(PoolError, match=r"image rows and no `features`"):
        select(ALL, shown.glob, budget=3, labels=shown.known)


def test_other_strategies_still_work_on_the_same_features(shown: Shown) -> None:
    assert len(shown.select({"name": "margin"}, backbone=None).picks) == 10
    assert len(shown.select({"name": "isal"}, backbone=None).picks) == 10
