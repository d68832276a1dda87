"""Charts as SVG text: curves with bands, points with a front, a matrix of shares. Nothing but strings.

A browser, a README and a pull request show them as they are; the drawing libraries that could make them are larger than
alray.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT, PLOT = 820, 440, 480
"""Pixels: of the whole picture, and of the width of its axes; the names stand to their right."""

LEFT, TOP, BOTTOM = 70, 40, 60

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#8a7a00")
"""Colours that most colour-blind people tell apart (Okabe and Ito), the yellow darker; then again, dashed."""

DASHES = ("", "6 3", "2 2", "8 3 2 3")

Pair = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """Named points, from left to right; `band` are the lowest and the highest value at each, where there are any."""

    name: str
    points: Sequence[Pair]
    band: Sequence[Pair] = ()


@dataclass(frozen=True)
class Axes:
    """What is drawn over what, and the values that have to be seen."""

    title: str
    across: str
    up: str
    xs: Sequence[float] = field(default_factory=list)
    ys: Sequence[float] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Return where a value stands, in pixels from the left."""
        low, high = _span(self.xs)
        return LEFT + PLOT * (value - low) / (high - low)

    def y(self, value: float) -> float:
        """Return where a value stands, in pixels from the top."""
        low, high = _span(self.ys)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low)

    def draw(self) -> list[str]:
        """Return the frame, its ticks and its words."""
        right, floor = LEFT + PLOT, HEIGHT - BOTTOM
        out = [text(LEFT, 22, self.title, size=15), _line([(LEFT, TOP), (LEFT, floor), (right, floor)], "#444444")]
        for tick in ticks(*_span(self.xs)):
            out.append(text(self.x(tick), floor + 18, _number(tick), anchor="middle"))
        for tick in ticks(*_span(self.ys)):
            out += [text(LEFT - 8, self.y(tick) + 4, _number(tick), anchor="end")]
            out.append(_line([(LEFT, self.y(tick)), (right, self.y(tick))], "#dddddd"))
        out.append(text(LEFT + PLOT / 2, HEIGHT - 18, self.across, anchor="middle"))
        middle = (TOP + floor) / 2
        turned = f' transform="rotate(-90 18 {middle:.1f})"'
        return [*out, text(18, middle, self.up, anchor="middle", more=turned)]


def curves(title: str, across: str, up: str, series: Sequence[Series]) -> str:
    """Return curves with their bands, each with its name beside the axes."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points] + [y for one in series for pair in one.band for y in pair]
    axes = Axes(title, across, up, xs, ys)
    out = axes.draw()
    for number, one in enumerate(series):
        at = [(axes.x(x), axes.y(y)) for x, y in one.points]
        if one.band:
            low = [(axes.x(x), axes.y(b[0])) for (x, _), b in zip(one.points, one.band, strict=True)]
            high = [(axes.x(x), axes.y(b[1])) for (x, _), b in zip(one.points, one.band, strict=True)]
            out.append(f'<polygon points="{_pairs([*low, *reversed(high)])}" fill="{_colour(number)}" opacity="0.15"/>')
        out.append(_line(at, _colour(number), width=2, dash=_dash(number)))
        out += [_dot(x, y, _colour(number), 2.5) for x, y in at]
    return _picture([*out, *_names([one.name for one in series])])


def scatter(title: str, across: str, up: str, series: Sequence[Series], front: Sequence[Pair]) -> str:
    """Return points by series, and the line through the points of the front."""
    points = [pair for one in series for pair in one.points]
    axes = Axes(title, across, up, [x for x, _ in points], [y for _, y in points])
    out = axes.draw()
    out.append(_line([(axes.x(x), axes.y(y)) for x, y in front], "#444444", dash="4 3"))
    for number, one in enumerate(series):
        out += [_dot(axes.x(x), axes.y(y), _colour(number), 4, hollow=number >= len(COLOURS)) for x, y in one.points]
    return _picture([*out, *_names([one.name for one in series])])


def matrix(title: str, names: Sequence[str], shares: Sequence[Sequence[float]]) -> str:
    """Return a square of shares from 0 to 1, darker for more, rows and columns numbered by the names beside it."""
    size = min(60.0, (HEIGHT - TOP - BOTTOM) / max(1, len(names)))
    out = [text(LEFT, 22, title, size=15)]
    for i, row in enumerate(shares):
        out.append(text(LEFT - 10, TOP + 20 + size * (i + 0.6), str(i + 1), anchor="end"))
        out.append(text(LEFT + size * (i + 0.5), TOP + 12, str(i + 1), anchor="middle"))
        for j, share in enumerate(row):
            x, y, dark = LEFT + size * j, TOP + 20 + size * i, share > 0.5
            out.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{size - 1:.1f}" height="{size - 1:.1f}" fill="#0072b2" '
                f'fill-opacity="{max(0.04, share):.3f}"/>'
            )
            shown = "" if i == j else f"{share:.2f}"
            out.append(
                text(x + size / 2, y + size * 0.6, shown, anchor="middle", colour="#ffffff" if dark else "#222222")
            )
    return _picture([*out, *_names([f"{n + 1} {name}" for n, name in enumerate(names)], marked=False)])


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers from `low` to `high`: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def text(
    x: float, y: float, words: str, *, size: int = 12, anchor: str = "start", colour: str = "#222222", more: str = ""
) -> str:
    """Return words at a place, safe whatever they are."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{colour}"{more}>'
        f"{escape(_printable(words))}</text>"
    )


def _picture(parts: Iterable[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif">'
    )
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>', *parts, "</svg>"]) + "\n"


def _names(names: Sequence[str], *, marked: bool = True) -> list[str]:
    """Return the names to the right of the axes; those that find no room are counted."""
    left, room = LEFT + PLOT + 20, int((HEIGHT - TOP - 20) / 18)
    out = []
    for number, name in enumerate(names[: room if len(names) <= room else room - 1]):
        y = TOP + 10 + 18 * number
        if marked:
            out.append(_line([(left, y - 4), (left + 20, y - 4)], _colour(number), width=2, dash=_dash(number)))
        short = name if len(name) <= 34 else f"{name[:33]}…"
        out.append(text(left + (26 if marked else 0), y, short))
    if len(names) > room:
        out.append(text(left, TOP + 10 + 18 * (room - 1), f"and {len(names) - room + 1} more"))
    return out


def _line(points: Sequence[Pair], colour: str, *, width: float = 1, dash: str = "") -> str:
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'<polyline points="{_pairs(points)}" fill="none" stroke="{colour}" stroke-width="{width:g}"{dashed}/>'


def _dot(x: float, y: float, colour: str, radius: float, *, hollow: bool = False) -> str:
    fill = "#ffffff" if hollow else colour
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" fill="{fill}" stroke="{colour}"/>'


def _pairs(points: Sequence[Pair]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dash(number: int) -> str:
    return DASHES[number // len(COLOURS) % len(DASHES)]


def _span(values: Sequence[float]) -> Pair:
    """Return the range of an axis: a little more than the values', and never nothing."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = 0.04 * (high - low) or 0.04 * abs(high) or 0.5
    return low - margin, high + margin


def _number(value: float) -> str:
    return f"{round(value, 10):,.10g}"


def _printable(words: str) -> str:
    """Return the words without what XML cannot hold."""
    return "".join(c if c.isprintable() else " " for c in words)
