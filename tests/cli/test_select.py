"""`alray select`: refusals before any work, the picks, what is printed, and the same picks again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from alray import storage
from alray.errors import ConfigError, StoragePathError
from alray.models import Head
from alray.selection import Picks

Alray = Callable[..., tuple[int, str, str]]
ROWS, DIM = 300, 8


@pytest.fixture
def pool(tmp_path: Path) -> str:
    """Three clouds of 100 rows, one of which is unreadable; `labels.csv` has four labels of each cloud."""
    draw = np.random.default_rng(0)
    centres_3D = draw.normal(size=(3, DIM)) * 2
    features_ND = (draw.normal(size=(ROWS, DIM)) + np.repeat(centres_3D, ROWS // 3, axis=0)).astype(np.float16)
    features_ND[50] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(features_ND.ravel()), DIM)
    ids = [f"row-{i:03d}" for i in range(ROWS)]
    columns = {"id": ids, "features": column, "source": ["web", "phone", "drone"] * 100}
    storage.write_parquet(str(tmp_path / "pool.parquet"), pa.table(columns))
    rows = [f"row-{c * 100 + i:03d},class-{c}" for c in range(3) for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *rows]))
    return str(tmp_path / "pool.parquet")


def words(pool: str, **changed: str) -> list[str]:
    folder = Path(pool).parent
    options = {"pool": pool, "labels": str(folder / "labels.csv"), "strategy": "margin", "budget": "20"}
    options |= {"out": str(folder / "picks.csv"), "runtime": "local", **changed}
    return ["select", *(f"--{name}={value}" for name, value in options.items() if value)]


def test_picks_are_written_and_their_digest_is_printed(pool: str, alray: Alray) -> None:
    code, out, err = alray(*words(pool))
    picks = Picks.read(str(Path(pool).with_name("picks.csv")))
    assert code == 0, err
    assert len(set(picks.ids)) == 20
    assert not {*picks.ids} & {f"row-{c * 100 + i:03d}" for c in range(3) for i in range(4)}
    assert f"sha256       {picks.digest()}" in out
    assert "budget       20" in out
    assert "score" in out


def test_the_rows_that_could_not_be_read_are_written_beside_the_picks(pool: str, alray: Alray) -> None:
    out = alray(*words(pool)).out  # type: ignore[attr-defined]
    rejected = str(Path(pool).with_name("picks.csv.quarantine.parquet"))
    assert "quarantined  1 rows in " + rejected in out
    assert storage.read_parquet(rejected)["id"].to_pylist() == ["row-050"]


def test_the_same_words_give_the_same_file_and_may_replace_it(pool: str, alray: Alray) -> None:
    picks = Path(pool).with_name("picks.csv")
    assert alray(*words(pool))[0] == 0
    first = picks.read_bytes()
    assert alray(*words(pool))[0] == 0
    assert picks.read_bytes() == first


def test_words_are_fields_of_the_strategy_or_of_selection(pool: str, alray: Alray) -> None:
    code, _, err = alray(*words(pool, strategy="alfa_mix"), "kapa=0.1", "selection.regim=central", "head.l2=-1")
    assert (code, err.splitlines()[0]) == (2, "alray: alray select has 3 mistakes:")
    assert "  strategy.kapa: unknown key" in err
    assert "  selection.regim: unknown key. Did you mean `regime`?" in err


def test_the_space_of_a_selection_is_a_word(pool: str, alray: Alray) -> None:
    mlp = ["head.kind=mlp", "head.epochs=2", "selection.space=features"]
    assert alray(*words(pool), *mlp)[0] == 0
    assert alray(*words(pool, strategy="alfa_mix"), *mlp)[0] == 0


def test_quotas_and_near_duplicates_are_words(pool: str, alray: Alray) -> None:
    rules = ["selection.quotas.source.at_most=8", "selection.min_distance=0.001"]
    code, out, _ = alray(*words(pool), *rules)
    line = next(line for line in out.splitlines() if line.startswith("of source "))
    assert code == 0 and "near_duplicates" in out
    assert all(int(part.split()[-1]) <= 8 for part in line.removeprefix("of source ").split(","))
    code, _, err = alray(*words(pool), "selection.quotas.sauce.at_most=8")
    assert code == 2 and "has no column `sauce`" in err
    code, _, err = alray(*words(pool), "selection.quotas.source.at_most=-8", "selection.min_distance=2")
    assert code == 2 and "selection.quotas.source.at_most.*: is -8 (expected a whole number, 0 or more)" in err
    assert "selection.min_distance: is 2 (expected a finite number, 0 or more, below 1)" in err


def test_many_values_make_no_long_line() -> None:
    from alray.cli.select import _counted

    assert _counted({"b": 1, "a": 1, "c": 4}) == "c 4, a 1, b 1"
    assert _counted({str(n): 1 for n in range(9)}).endswith("5 1 and 3 more")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"strategy": "marign"}, "Did you mean `margin`?"),
        ({"budget": "0"}, "budget: is 0 (expected a whole number, 1 or more)"),
        ({"runtime": "rya"}, "runtime.name: is 'rya' (expected one of ray, local) Did you mean `ray`?"),
        ({"workers": "0"}, "runtime.workers: is 0"),
        ({"out": "picks.json"}, "`picks.json`: the format of picks follows the suffix; expected .parquet or .csv."),
    ],
)
def test_a_mistake_is_said_before_the_pool_is_read(pool: str, alray: Alray, changed: dict[str, str], said: str) -> None:
    Path(pool).unlink()
    code, out, err = alray(*words(pool, **changed))
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize("name", ["labels.csv", "pool.parquet"])
def test_a_file_that_is_not_picks_is_never_overwritten(pool: str, alray: Alray, name: str) -> None:
    precious = Path(pool).with_name(name)
    before = precious.read_bytes()
    code, _, err = alray(*words(pool, out=str(precious)))
    assert code == StoragePathError.exit_code
    assert "exists and is not a picks file, so it is left alone" in err
    assert precious.read_bytes() == before


def test_picks_with_labels_beside_them_are_never_overwritten(pool: str, alray: Alray) -> None:
    out = Path(pool).with_name("picks.csv")
    assert alray(*words(pool, out=str(out))).code == 0
    header, *rows = out.read_text().splitlines()
    out.write_text("\n".join([f"{header},label", *(f"{row},cat" for row in rows)]) + "\n")
    before = out.read_bytes()
    code, _, err = alray(*words(pool, out=str(out)))
    assert code == StoragePathError.exit_code
    assert "exists and is not a picks file, so it is left alone" in err
    assert out.read_bytes() == before


def test_a_strategy_that_needs_labels_says_so(pool: str, alray: Alray) -> None:
    code, _, err = alray(*words(pool, labels=""))
    assert code == ConfigError.exit_code
    assert "label" in err


def test_random_needs_no_labels(pool: str, alray: Alray) -> None:
    code, _, err = alray(*words(pool, labels="", strategy="random"))
    assert code == 0, err


def test_a_given_head_is_used(pool: str, alray: Alray) -> None:
    code, _, err = alray(*words(pool), "--head=none.safetensors")
    assert code == 2
    assert "none.safetensors" in err


def test_what_a_given_head_makes_idle_is_refused(pool: str, alray: Alray) -> None:
    path = str(Path(pool).parent / "head.safetensors")
    Head.linear(np.eye(3, DIM, dtype=np.float32), np.zeros(3, np.float32), [f"class-{c}" for c in range(3)]).save(path)
    head = f"--head={path}"
    for more, said in (
        (["head.l2=2"], "`head.l2` says how a head is to be fitted"),
        (["head.kind=mlp"], "`head.kind` says how"),
        (["classes=[a, b, c]"], "`classes` says"),
    ):
        code, _, err = alray(*words(pool), head, *more)
        assert code == 2 and said in err
    isal = words(pool, strategy="isal")
    assert alray(*isal, head, "head.l2=2")[0] == 0  # how the given one was fitted
    code, _, err = alray(*isal, head, "head.kind=mlp")
    assert code == 2 and "head.safetensors` is linear" in err
