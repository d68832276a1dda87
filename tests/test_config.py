"""Settings: every mistake at once, by path, with the value, what was expected and the nearest name."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, field_validator

from alray import config
from alray.config import Config
from alray.errors import ConfigError


class Method(Config):
    """Base of a small family."""


class Margin(Method):
    name: Literal["margin"] = "margin"


class Alfa(Method):
    name: Literal["alfa"] = "alfa"
    eps: float = Field(0.2, gt=0)
    draws: int = 4


class Budget(Config):
    per_round: int = Field(ge=1)
    total: int | None = Field(None, ge=1)


METHODS = config.family(Method, {"margin": Margin, "alfa": Alfa}, hint={"bvsb": "Nearest is `margin`."}.get)


class Settings(Config):
    run: str
    seed: int = 0
    path: str | list[str] = "pool"
    classes: list[str] | None = None
    sizes: list[int] = Field(default_factory=list)
    regime: Literal["standard", "asvp"] = "standard"
    fast: bool = False
    rate: float = 1e-3
    strategy: Annotated[Method, METHODS] = Margin()
    budget: Budget

    @field_validator("run")
    @classmethod
    def _no_space(cls, run: str) -> str:
        if " " in run:
            raise ValueError(f"Run {run!r} has a space. Take it out of `run`.")
        return run


GOOD: dict[str, Any] = {"run": "r", "budget": {"per_round": 10}}


def mistakes(raw: dict[str, Any], *overrides: str) -> list[str]:
    """Return the lines of the error that `raw` gives, without its heading."""
    with pytest.raises(ConfigError) as caught:
        config.parse(raw, Settings, source="c.yaml", overrides=overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


def written(folder: Path, text: str) -> str:
    (folder / "c.yaml").write_text(text)
    return str(folder / "c.yaml")


def test_all_mistakes_are_reported_at_once_by_path() -> None:
    with pytest.raises(ConfigError) as caught:
        config.parse(
            {"seeed": 1, "strategy": "marign", "budget": {"per_round": 0, "totl": 5}},
            Settings,
            source="c.yaml",
        )
    assert str(caught.value).splitlines() == [
        "c.yaml has 5 mistakes:",
        "  run: missing (expected text)",
        "  strategy: unknown name 'marign' (expected one of alfa, margin) Did you mean `margin`?",
        "  budget.per_round: is 0 (expected a whole number, 1 or more)",
        "  budget.totl: unknown key. Did you mean `total`?",
        "  seeed: unknown key. Did you mean `seed`?",
    ]


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"seed": "x"}, "seed: is 'x' (expected a whole number)"),
        ({"seed": 1.5}, "seed: is 1.5 (expected a whole number)"),
        ({"seed": True}, "seed: is true (expected a whole number)"),
        ({"rate": False}, "rate: is false (expected a finite number)"),
        ({"rate": float("nan")}, "rate: is nan (expected a finite number)"),
        ({"rate": float("inf")}, "rate: is inf (expected a finite number)"),
        ({"sizes": [1, True]}, "sizes: is [1, True] (expected a list of whole numbers)"),
        ({"sizes": [1, "a"]}, "sizes[1]: is 'a' (expected a whole number)"),
        ({"path": 3}, "path: is 3 (expected text or a list of texts)"),
        ({"classes": "cat"}, "classes: is 'cat' (expected a list of texts or nothing)"),
        ({"classes": ["cat", False]}, "classes: is ['cat', False] (expected a list of texts or nothing)"),
        ({"regime": "asvq"}, "regime: is 'asvq' (expected one of standard, asvp) Did you mean `asvp`?"),
        ({"budget": 3}, "budget: is 3 (expected a section with `per_round`, `total`)"),
        (
            {"budget": {"per_round": 1, "total": True}},
            "budget.total: is true (expected a whole number or nothing, 1 or more)",
        ),
        ({"run": "a b"}, "run: Run 'a b' has a space. Take it out of `run`."),
        ({"strategy": {"name": "alfa", "epz": 1}}, "strategy.epz: unknown key. Did you mean `eps`?"),
        ({"strategy": {"name": "alfa", "eps": 0}}, "strategy.eps: is 0 (expected a finite number, above 0)"),
        ({"strategy": {"name": "margin", "zzzz": 1}}, "strategy.zzzz: unknown key (expected `name`)"),
        ({"strategy": {"eps": 1}}, "strategy: has no `name` (expected one of alfa, margin)"),
        ({"strategy": 7}, "strategy: unknown name 7 (expected one of alfa, margin)"),
        (
            {"strategy": "bvsb"},
            "strategy: unknown name 'bvsb' (expected one of alfa, margin) Nearest is `margin`.",
        ),
    ],
)
def test_a_mistake_names_its_path_value_and_what_was_expected(raw: dict[str, Any], line: str) -> None:
    assert mistakes({**GOOD, **raw}) == [line]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("seed", "seed: is not a setting (expected `dotted.path=value`, as in `seed=1`)"),
        ("=3", "=3: is not a setting (expected `dotted.path=value`, as in `seed=1`)"),
        ("budget..x=1", "budget..x=1: is not a setting (expected `dotted.path=value`, as in `seed=1`)"),
        ("budgt.total=9", "budgt: unknown key. Did you mean `budget`?"),
        ("budget.per_rond=9", "budget.per_rond: unknown key. Did you mean `per_round`?"),
        ("strategy.epz=1", "strategy.epz: unknown key (expected `name`)"),
        ("seed=[1", "seed: '[1' is not YAML: line 1, column 3: expected ',' or ']', but got '<stream end>'."),
        ("run.x=1", "run.x: `run` is a list or a single value, so nothing can be set inside it"),
        ("seed=.nan", "seed: is nan (expected a whole number)"),
    ],
)
def test_a_wrong_override_is_named(override: str, line: str) -> None:
    assert mistakes({**GOOD, "strategy": "margin"}, override) == [line]


def test_overrides_and_fields_are_reported_together() -> None:
    assert len(mistakes({**GOOD, "sed": 1}, "oops", "fast=3")) == 3


def test_overrides_are_yaml_and_reach_into_a_member_given_by_name() -> None:
    got = config.parse(
        {**GOOD, "strategy": "alfa"},
        Settings,
        overrides=["strategy.eps=1e-2", "budget.total=5", "classes=[a, b]", "path=x=y"],
    )
    assert got.strategy == Alfa(eps=0.01)
    assert (got.budget.total, got.classes, got.path) == (5, ["a", "b"], "x=y")


def test_an_override_of_a_whole_member_replaces_it() -> None:
    got = config.parse({**GOOD, "strategy": {"name": "alfa", "eps": 1}}, Settings, overrides=["strategy=margin"])
    assert got.strategy == Margin()


def test_apply_leaves_its_argument_alone() -> None:
    raw = {"budget": {"per_round": 1}}
    assert config.apply(raw, ["budget.per_round=2", "a.b=1"]) == {"budget": {"per_round": 2}, "a": {"b": 1}}
    assert raw == {"budget": {"per_round": 1}}


def test_dump_round_trips(tmp_path: Path) -> None:
    first = config.parse({**GOOD, "strategy": {"name": "alfa", "eps": 1e-5}}, Settings)
    assert config.load(written(tmp_path, config.dump(first)), [], Settings) == first


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.parse(GOOD, Settings).seed = 3  # type: ignore[misc]


def test_a_family_builds_by_name_by_mapping_and_from_an_instance() -> None:
    assert METHODS.build("margin") == Margin()
    assert METHODS.build({"name": "alfa", "draws": 2}) == Alfa(draws=2)
    assert METHODS.build(Alfa()) == Alfa()


def test_a_family_knows_the_name_of_an_instance() -> None:
    class Odd(Method):
        pass

    assert METHODS.name_of(Alfa(eps=1)) == "alfa"
    assert METHODS.name_of(Odd()) == "Odd"


def test_another_name_for_a_member_is_taken_and_not_advertised() -> None:
    methods = config.family(Method, {"margin": Margin, "alfa": Alfa}, aliases={"AlphaMix": "alfa"})
    assert methods.build({"name": "AlphaMix", "draws": 2}) == Alfa(draws=2)
    assert methods.expected() == "one of alfa, margin"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("marg", "strategy: unknown name 'marg' (expected one of alfa, margin) Did you mean `margin`?"),
        (
            {"name": "alfa", "eps": -1, "n": 1},
            "`strategy` has mistakes:\n  strategy.eps: is -1 (expected a finite number, above 0)\n"
            "  strategy.n: unknown key (expected `name`, `eps`, `draws`)",
        ),
    ],
)
def test_a_family_says_what_is_wrong(value: object, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        METHODS.build(value, at="strategy")
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: [1",
            "is not YAML that alray reads: line 1, column 6: expected ',' or ']', but got '<stream end>'.",
        ),
        ("- 1\n- 2\n", "holds a list at its top level; expected `key: value` settings."),
        ("", "holds nothing at its top level; expected `key: value` settings."),
        ("hello", "holds 'hello' at its top level; expected `key: value` settings."),
        ("run: a\nseed: 1\nrun: b\n", "line 3, column 1: the key `run` was given on line 1 too."),
        ("run: !!python/object/apply:os.getcwd []\n", "could not determine a constructor for the tag"),
    ],
)
def test_a_file_that_is_no_settings_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load(written(tmp_path, text), [], Settings)
    assert message in str(caught.value)
    assert "c.yaml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no config file at '.*none.yaml'"):
        config.load(str(tmp_path / "none.yaml"), [], Settings)
