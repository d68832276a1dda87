"""The error tree: exit codes, its drawing, and the nearest name."""

from __future__ import annotations

import inspect

import pytest

from alray import errors

TREE = [member for _, member in inspect.getmembers(errors, inspect.isclass) if issubclass(member, errors.AlrayError)]


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_error_is_drawn_in_the_tree_and_has_a_code(error: type[errors.AlrayError]) -> None:
    drawn = [line for line in (errors.__doc__ or "").splitlines() if error.__name__ in line]
    assert len(drawn) == 1 and error.__doc__
    assert error.exit_code == (2 if issubclass(error, errors.UserError) else 1)
    below_user = issubclass(error, errors.UserError) and error is not errors.UserError
    assert drawn[0].startswith("    │   ") == below_user


def test_the_tree_draws_no_error_that_is_not_there() -> None:
    words = {word for word in (errors.__doc__ or "").replace("─", " ").split() if word.endswith(("Error", "Failure"))}
    assert words == {error.__name__ for error in TREE}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("margn", " Did you mean `margin`?"),
        ("Margin", " Did you mean `margin`?"),
        ("entropie", " Did you mean `entropy`?"),
        ("zzz", ""),
        ("", ""),
    ],
)
def test_the_nearest_name(name: str, hint: str) -> None:
    assert errors.nearest(name, ["margin", "entropy", "random"]) == hint


def test_the_nearest_of_nothing() -> None:
    assert errors.nearest("margin", iter(())) == ""
