"""ALFA-Mix as a strategy: its anchors, its score, its switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
import numpy as np
import official_alfa as official
import pytest
import torch
from benchmarks import alfa_candidates as brute
from scipy import stats

from alray import seeds
from alray.errors import StrategyError
from alray.models.head import SHAPES, Head
from alray.ops.probability import symmetric_kl
from alray.runtime import Runtime
from alray.selection import Selection, select
from alray.strategies import Given, find
from alray.strategies.alfa_mix import AlfaMix
from alray.table import Table


def given(case: brute.Case, label: np.ndarray, labelled: np.ndarray) -> Given:
    """Return what a round gives the strategy: labelled rows, their classes, a head."""
    names = [f"c{c}" for c in range(len(case.weight_CD))]
    rows = torch.from_numpy(labelled.astype(np.float32))
    table = Table([f"l{i}" for i in range(len(rows))], {"features": rows, "hidden": rows})
    head = Head.linear(case.weight_CD, case.bias_C, names)
    return Given(budget=5, seed=0, round=0, labelled=table, label_M=torch.from_numpy(label), head=head)


@pytest.mark.parametrize("frozen", [True, False])
def test_score_is_minus_the_cap_of_the_official_loop(frozen: bool) -> None:
    rng = np.random.default_rng(1)
    labelled = np.maximum(rng.normal(size=(4, 24)), 0).astype(np.float16)
    label = np.arange(4)  # of five classes
    case = brute.make("relu", 600, 24, 5, 1, 1)
    case = brute.Case("own anchors", case.rows_ND, case.weight_CD, case.bias_C, brute.anchors_of(labelled, label, 5))
    strategy = AlfaMix(freeze_equal=frozen)
    prepared = strategy.prepare(given(case, label, labelled))
    hidden = torch.from_numpy(case.rows_ND.astype(np.float32))
    score = strategy.score(Table(range(600), {"hidden": hidden}), prepared)  # type: ignore[arg-type]
    assert score.dtype == torch.float32
    found = -score.numpy().astype(np.float64)[None] < brute.CAPS[:, None]
    differs = found != brute.official(case)
    assert brute.official(case)[-1].sum() > 20 and differs.any() != frozen  # most rows share a zero with an anchor
    assert brute.outside_band(case, differs if frozen else differs & ~brute.touching(case)) == 0


def test_prepared_survives_a_process_that_makes_it_read_only() -> None:
    case = brute.make("gaussian", 10, 8, 3, 2, 0)
    strategy = AlfaMix()
    prepared = strategy.prepare(given(case, np.arange(6) % 3, case.rows_ND[:6]))
    for array in prepared.values():
        if isinstance(array, np.ndarray):
            array.setflags(write=False)
    strategy.score(Table(range(10), {"hidden": torch.from_numpy(case.rows_ND.astype(np.float32))}), prepared)  # type: ignore[arg-type]


def test_without_labels_it_says_what_to_do() -> None:
    with pytest.raises(StrategyError, match=r"there are no labels\. Give labels, or start with `strategy: random`"):
        AlfaMix().prepare(Given(budget=1, seed=0, round=0))


@pytest.mark.parametrize("field", [{"cap_step": 0}, {"cap_step": 1.5}, {"shortlist_multiple": 1}, {"cap": 0.2}])
def test_wrong_fields_are_refused(field: dict[str, float]) -> None:
    with pytest.raises(StrategyError, match=next(iter(field))):
        find({"name": "alfa_mix", **field})


@pytest.mark.parametrize("frozen", [True, False])
def test_equal_coordinates_stay_below_an_mlp_head_only_with_the_switch(frozen: bool) -> None:
    """P7: rows behind a ReLU share zeros with the one labelled row of each class."""
    rng = np.random.default_rng(1)
    x = np.maximum(rng.normal(size=(304, 6)), 0).astype(np.float16).astype(np.float32)
    layers = [rng.normal(size=size).astype(np.float32) for size in ((9, 6), 9, (4, 9), 4)]
    head = Head("mlp", ("a", "b", "c", "d"), dict(zip(SHAPES["mlp"], layers, strict=True)))
    rows = [
        Table([f"r{i}" for i in range(len(part))], {"features": part, "hidden": head.hidden(part)})
        for part in map(torch.from_numpy, (x[:4], x[4:]))
    ]
    known = Given(budget=5, seed=0, round=0, labelled=rows[0], label_M=torch.arange(4), head=head, space="features")
    strategy = AlfaMix(freeze_equal=frozen, cap_step=0.05)
    found = -strategy.score(rows[1], strategy.prepare(known)).numpy()
    caps = (0.05 * np.arange(1, 21)).tolist()
    truth = official.loop(x[4:], official.mlp(layers), x[:4], caps, np.inf).first_cap_N
    assert (np.isclose(found, truth).mean() > 0.99) == frozen


# whole selections against the official loop


class Pool:
    """A pool of features on disk, labels of some rows, and a head of one or two layers; class c4 has no labels."""

    def __init__(self, folder: Path, hidden: int, rows: int = 240, dim: int = 6) -> None:
        rng = np.random.default_rng([7, hidden])
        self.names = ["c0", "c1", "c2", "c3", "c4"]
        matrix, truth = builders.features(rows, dim, seed=3, classes=4)
        self.ids, self.x = builders.ids(rows), matrix.astype(np.float64)
        self.path = str(folder / "*.parquet")
        for number, part in enumerate(np.split(np.arange(rows), [50, 51, 170])):
            columns = {"id": [self.ids[i] for i in part], "features": builders.vectors(matrix[part])}
            builders.parquet(folder / f"{number}.parquet", columns, row_group=32)
        self.known = list(range(0, rows, 12))
        self.label = np.array([int(truth[i][-1]) for i in self.known])
        self.free = np.setdiff1d(np.arange(rows), self.known)
        sizes = [(hidden, dim), hidden, (5, hidden), 5] if hidden else [(5, dim), 5]
        self.layers = [(0.7 * rng.normal(size=size)).astype(np.float32) for size in sizes]

    def head(self) -> Head:
        kind: Any = "mlp" if len(self.layers) == 4 else "linear"
        return Head(kind, tuple(self.names), dict(zip(SHAPES[kind], self.layers, strict=True)))

    def labels(self) -> dict[str, str]:
        return {self.ids[i]: f"c{c}" for i, c in zip(self.known, self.label, strict=True)}

    def select(self, budget: int, space: Any = "features", **fields: Any) -> Selection:
        strategy = {"name": "alfa_mix", "cap_step": 0.1, **fields}
        given: dict[str, Any] = {"labels": self.labels(), "head": self.head(), "seed": 3, "round": 2}
        return select(strategy, self.path, budget=budget, space=space, **given)

    def official(
        self, budget: int, alpha: str = "closed_form", *, caps: Any = None, skip: bool = False, keep: bool = False
    ) -> official.Found:
        """Return what the official loop finds in the rows without labels."""
        classes = [0, 1, 2, 3] if skip else [0, 1, 2, 3, 4]
        anchors = brute.anchors_of(self.x[self.known].astype(np.float16), self.label, 5)[classes]
        hashes, stream = seeds.hash_ids([self.ids[i] for i in self.free]), seeds.key(3, "alfa_mix", 2)

        def weights(number: int, anchor: int, cap: float) -> np.ndarray:
            drawn = seeds.uniforms(stream, hashes, (number * 5 + classes[anchor]) * self.x.shape[1], self.x.shape[1])
            return np.clip(cap / 2 + cap / 2 * stats.norm.ppf(drawn), 1e-8, cap)

        caps = 0.1 * np.arange(1, 11) if caps is None else caps
        how: dict[str, Any] = {"weights": None if alpha == "closed_form" else weights, "guard": 1e-14}
        how["learning"] = official.Learning(keep=keep) if alpha == "learned" else None
        return official.loop(self.x[self.free], official.mlp(self.layers), anchors, caps, budget, **how)

    def rows_of(self, found: Selection, reason: str = "strategy") -> list[int]:
        """Return where among the rows without labels the picks are."""
        at = {self.ids[row]: place for place, row in enumerate(self.free)}
        return [at[i] for i, why in zip(found.picks.ids, found.picks.reasons, strict=True) if why == reason]


@pytest.fixture(params=[0, 9], ids=["linear", "mlp"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Pool:
    return Pool(tmp_path, request.param)


MODES: dict[str, dict[str, Any]] = {
    "closed form": {},
    "random": {"alpha": "random"},
    "learned": {"alpha": "learned"},
    "kept": {"alpha": "learned", "keep_optimizer": True},
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("budget", [3, 90])
def test_a_selection_has_the_candidates_and_the_cap_of_the_official_loop(pool: Pool, mode: str, budget: int) -> None:
    """P4, P9: growth by κ until strictly more than B, and only candidates are picked while there are enough."""
    fields = MODES[mode]
    found = pool.select(budget, **fields)
    truth = pool.official(budget, fields.get("alpha", "closed_form"), keep="keep_optimizer" in fields)
    assert (found.report["candidates"], found.report["cap"]) == (truth.candidates_N.sum(), pytest.approx(truth.cap))
    picked = pool.rows_of(found)
    assert truth.candidates_N[picked].all() and len(set(found.picks.ids)) == budget
    assert len(picked) == min(budget, found.report["candidates"])


@pytest.mark.parametrize("mode", MODES)
def test_all_of_too_few_candidates_are_picked_and_the_rest_is_random(pool: Pool, mode: str) -> None:
    """P9: a single cap with fewer candidates than the budget."""
    fields = {**MODES[mode], "cap_max": 0.1}
    truth = pool.official(200, fields.get("alpha", "closed_form"), caps=[0.1], keep="keep_optimizer" in fields)
    found = pool.select(200, **fields)
    assert 0 < truth.candidates_N.sum() < 200 and found.report["cap"] == pytest.approx(0.1)
    assert sorted(pool.rows_of(found)) == np.flatnonzero(truth.candidates_N).tolist()
    assert len(set(pool.rows_of(found, "fill"))) == 200 - truth.candidates_N.sum()
    assert len(set(found.picks.ids)) == 200 and not set(found.picks.ids) & set(pool.labels())


@pytest.mark.parametrize("mode", MODES)
def test_a_class_without_labels_may_be_no_anchor(pool: Pool, mode: str) -> None:
    """P8: the mean of all labelled rows stands in for it, or nothing does."""
    fields = MODES[mode]
    alpha, keep = fields.get("alpha", "closed_form"), "keep_optimizer" in fields
    found = {way: pool.select(30, **fields, absent_class=way).report["candidates"] for way in ("skip", "global_mean")}
    for way, count in found.items():
        assert count == pool.official(30, alpha, skip=way == "skip", keep=keep).candidates_N.sum()


def test_a_class_far_from_all_rows_is_no_anchor_when_it_has_no_labels() -> None:
    case = brute.make("gaussian", 10, 8, 3, 2, 0)
    labelled, label = case.rows_ND[:6], np.array([0, 0, 2, 2, 2, 2])
    prepared = {w: AlfaMix(absent_class=w).prepare(given(case, label, labelled)) for w in ("skip", "global_mean")}  # type: ignore[arg-type]
    assert prepared["skip"]["classes_A"].tolist() == [0, 2] and prepared["global_mean"]["classes_A"].tolist() == [
        0,
        1,
        2,
    ]
    found = prepared["skip"]["anchors_CD"] + prepared["skip"]["centre_D"]
    np.testing.assert_allclose(found, brute.anchors_of(labelled, label, 3)[[0, 2]], atol=1e-6)


# diversity


@pytest.mark.parametrize("mode", ["random", "learned"])
def test_norm_takes_the_least_weights_that_flip(pool: Pool, mode: str) -> None:
    truth = pool.official(20, mode)
    found = pool.rows_of(pool.select(20, alpha=mode, diversify="norm"))
    norm_N = np.where(truth.candidates_N, truth.least_norm_N, np.inf)
    np.testing.assert_allclose(np.sort(norm_N[found]), np.sort(norm_N)[:20], rtol=1e-5)


def test_norm_of_the_closed_form_takes_the_least_caps(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 0)
    found = pool.select(20, diversify="norm")
    best = pool.select(20, diversify="norm", cap_max=0.1, cap_step=1.0)  # all are candidates
    assert found.picks.digest() == best.picks.digest()
    critical = official.loop(
        pool.x[pool.free],
        official.mlp(pool.layers),
        brute.anchors_of(pool.x[pool.known].astype(np.float16), pool.label, 5),
        (0.001 * np.arange(1, 1001)).tolist(),
        20,
        guard=1e-14,
    ).candidates_N
    assert critical.sum() >= 21 - 1 and critical[pool.rows_of(found)].all()


def test_norm_below_an_mlp_head_takes_the_least_linearised_caps(tmp_path: Path) -> None:
    pool = Pool(tmp_path, 9)
    found, wide = (pool.select(count, diversify="norm") for count in (5, 20))
    assert found.report["cap"] == wide.report["cap"] and set(found.picks.ids) < set(wide.picks.ids)


@pytest.mark.parametrize("mode", ["closed form", "random", "kept"])
def test_symmetric_kl_takes_the_most_changed_predictions(pool: Pool, mode: str) -> None:
    # Kept, and with large caps: weights learned by signs have norms alike, of which rounding would choose.
    step, fields = 0.5 if mode == "kept" else 0.1, MODES[mode]
    caps = step * np.arange(1, round(1 / step) + 1)
    truth = pool.official(20, fields.get("alpha", "closed_form"), caps=caps, keep=mode == "kept")
    own = official.mlp(pool.layers)(torch.from_numpy(pool.x[pool.free]))
    kl_N = symmetric_kl(own, torch.from_numpy(truth.mixed_NC)).numpy()
    if mode == "closed form":  # the farthest anchor's mixture, not that of the least weights
        anchors = brute.anchors_of(pool.x[pool.known].astype(np.float16), pool.label, 5)
        kl_N = farthest_kl(pool, truth, anchors)
    kl_N[~truth.candidates_N] = -np.inf
    found = pool.rows_of(pool.select(20, **fields, diversify="symmetric_kl", cap_step=step))
    np.testing.assert_allclose(np.sort(kl_N[found]), np.sort(kl_N)[-20:], rtol=1e-3)


def farthest_kl(pool: Pool, truth: official.Found, anchors: np.ndarray) -> np.ndarray:
    """Return ½KL + ½KL of each row and its mixture with the farthest anchor that flips it at its first cap."""
    z, model = torch.from_numpy(pool.x[pool.free]), official.mlp(pool.layers)
    p, out, far = model(z).softmax(1).numpy(), np.zeros(len(z)), np.zeros(len(z))
    for anchor in torch.from_numpy(anchors.astype(np.float64)):
        for cap in np.unique(truth.first_cap_N[np.isfinite(truth.first_cap_N)]):
            q = model(z + official.closed_form(z, model, anchor, cap, 1e-14) * (anchor - z)).softmax(1).numpy()
            away = (anchor - z).norm(dim=1).numpy()
            here = (truth.first_cap_N == cap) & (q.argmax(1) != p.argmax(1)) & (away > far)
            out[here] = 0.5 * ((p - q) * np.log(p / q)).sum(axis=1)[here]
            far[here] = away[here]
    return out


@pytest.mark.parametrize("way", ["uniform", "kcenter", "kmeans"])
def test_other_ways_pick_candidates(pool: Pool, way: str) -> None:
    truth, found = pool.official(20), pool.select(20, diversify=way)
    picked = pool.rows_of(found)
    assert len(picked) == 20 and truth.candidates_N[picked].all()
    if way == "kcenter":  # the first pick is the candidate farthest from the labelled rows, as unit rows
        unit = pool.x / np.linalg.norm(pool.x, axis=1, keepdims=True)
        far = np.linalg.norm(unit[pool.free][:, None] - unit[pool.known][None], axis=2).min(axis=1)
        assert picked[0] == np.where(truth.candidates_N, far, -1).argmax()


# everywhere the same


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", ["norm", "symmetric_kl"])
def test_the_cut_of_the_pool_leaves_no_trace_in_any_mode(tmp_path: Path, mode: str, way: str) -> None:
    from alray.pool import Pool as Shards

    pool = Pool(tmp_path, 9)
    digests = set()
    for rows_per_shard in (41, 1000):
        pool.path = Shards.open(str(tmp_path / "*.parquet"), rows_per_shard=rows_per_shard)  # type: ignore[assignment]
        picks = pool.select(20, **MODES[mode], diversify=way, cap_step=0.3).picks
        digests.add((picks.digest(), picks.scores.tobytes()))
    assert len(digests) == 1


def test_random_weights_follow_seed_and_round(pool: Pool) -> None:
    found = {}
    for seed, number in ((3, 2), (3, 3), (4, 2)):
        given: dict[str, Any] = {"labels": pool.labels(), "head": pool.head(), "seed": seed, "round": number}
        strategy = {"name": "alfa_mix", "alpha": "random", "diversify": "norm"}
        found[seed, number] = select(strategy, pool.path, budget=20, **given).picks.digest()
    assert len(set(found.values())) == 3


@pytest.mark.ray
def test_learned_weights_on_ray_are_those_of_one_process(tmp_path: Path, ray_runtime: Runtime) -> None:
    pool = Pool(tmp_path, 9)
    given: dict[str, Any] = {"labels": pool.labels(), "head": pool.head(), "budget": 20, "space": "features"}
    strategy = {"name": "alfa_mix", "alpha": "learned", "diversify": "symmetric_kl"}
    local, spread = (select(strategy, pool.path, runtime=runtime, **given) for runtime in ("local", ray_runtime))
    assert local.picks.digest() == spread.picks.digest() and (local.picks.scores == spread.picks.scores).all()


# awkward pools


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("matrix", ["one class", "identical", "zero", "one number"])
def test_awkward_pools_fill_the_budget(tmp_path: Path, mode: str, kind: str, matrix: str) -> None:
    """C = 1, rows that are all alike, D = 1: what cannot flip is filled at random."""
    rng = np.random.default_rng(0)
    rows, dim, classes = 40, 1 if matrix == "one number" else 4, 1 if matrix == "one class" else 3
    made = {"identical": np.ones((rows, dim)), "zero": np.zeros((rows, dim))}
    x = made.get(matrix, rng.normal(size=(rows, dim))).astype(np.float16)
    ids = builders.ids(rows)
    builders.parquet(tmp_path / "0.parquet", {"id": ids, "features": builders.vectors(x)})
    sizes = {"linear": [(classes, dim), classes], "mlp": [(5, dim), 5, (classes, 5), classes]}[kind]
    weights = {name: rng.normal(size=size) for name, size in zip(SHAPES[kind], sizes, strict=True)}
    head = Head(kind, tuple(f"c{c}" for c in range(classes)), weights)  # type: ignore[arg-type]
    labels = {i: f"c{n % classes}" for n, i in enumerate(ids[:6])}
    for way in ("norm", "symmetric_kl") if matrix != "one number" else ("kmeans", "kcenter"):
        strategy = {"name": "alfa_mix", **MODES[mode], "diversify": way, "cap_step": 0.5}
        found = select(strategy, str(tmp_path / "*.parquet"), budget=9, labels=labels, head=head, space="features")
        assert len(set(found.picks.ids)) == 9 and not np.isnan(found.picks.scores).any()
        if matrix in ("one class", "identical", "zero"):
            assert found.report["candidates"] == 0 and set(found.picks.reasons) == {"fill"}
