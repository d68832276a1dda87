"""Charts are well-formed, show what they are given, and cannot be broken by a name."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from alray.sweeps import svg
from alray.sweeps.svg import Series

HOSTILE = '</text><script>alert("x")</script>\x00&'


def texts(picture: str) -> list[str]:
    root = ElementTree.fromstring(picture)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    return [e.text or "" for e in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.57, 0.93, [0.6, 0.7, 0.8, 0.9]),
        (20, 260, [50, 100, 150, 200, 250]),
        (-3, 3, [-2, 0, 2]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[float]) -> None:
    assert svg.ticks(low, high) == pytest.approx(expected)


def test_a_curve_runs_through_its_points_inside_its_band() -> None:
    series = [Series("a", [(10, 0.5), (30, 0.9)], [(0.4, 0.6), (0.8, 1.0)]), Series("b", [(10, 0.1), (30, 0.2)])]
    picture = svg.curves("title", "labels", "accuracy", series)
    assert {"title", "labels", "accuracy", "a", "b", "0.4", "20"} <= set(texts(picture))
    axes = svg.Axes("", "", "", [10, 30], [0.1, 1.0])
    for x, y in [(10, 0.5), (30, 0.9), (10, 0.1), (30, 0.2)]:
        assert f'cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}"' in picture
    assert picture.count("<polygon") == 1 and f"{axes.x(30):.1f},{axes.y(0.8):.1f}" in picture
    assert axes.y(0.9) < axes.y(0.5) and axes.x(30) > axes.x(10)


def test_a_single_point_and_equal_values_have_axes() -> None:
    for points in ([(5.0, 0.5)], [(5.0, 0.0)], [(0.0, 0.0), (0.0, 0.0)]):
        picture = svg.scatter("t", "x", "y", [Series("a", points)], points)
        assert "nan" not in picture and "inf" not in picture
        assert picture.count("<circle") == len(points)


def test_a_matrix_shows_every_share_but_the_diagonal() -> None:
    found = texts(svg.matrix("t", ["a", "b"], [[0.0, 0.25], [1.0, 0.0]]))
    assert "0.25" in found and "1.00" in found and "0.00" not in found
    assert "1 a" in found and "2 b" in found


def test_names_are_text_whatever_they_are() -> None:
    series = [Series(HOSTILE, [(1, 1)])]
    for picture in (
        svg.curves(HOSTILE, HOSTILE, HOSTILE, series),
        svg.scatter(HOSTILE, "x", "y", series, [(1, 1)]),
        svg.matrix("t", [HOSTILE], [[0.0]]),
    ):
        assert any(text.endswith('</text><script>alert("x")</s…') or "<script>" in text for text in texts(picture))


def test_many_names_end_with_how_many_more() -> None:
    series = [Series(f"name {n}", [(n, n)]) for n in range(60)]
    picture = svg.curves("t", "x", "y", series)
    told = texts(picture)
    [more] = [text for text in told if text.startswith("and ")]
    assert int(more.split()[1]) + sum(text.startswith("name") for text in told) == 60
    heights = [
        float(e.get("y", math.nan)) for e in ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert max(heights) <= svg.HEIGHT
