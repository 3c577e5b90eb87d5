"""Plots as SVG text. Colours come from the page's style sheet, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 10, 40
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """A line: its name, the class by which the style sheet colours it, and its points in data units."""

    name: str
    style: str
    points: Sequence[Point]
    dots: bool = False


class Frame:
    """Axes over a range of data.

    Args:
        x: Lowest and highest value across.
        y: Lowest and highest value upwards.
        x_label, y_label: What the axes show.
    """

    def __init__(self, x: Point, y: Point, x_label: str, y_label: str):
        self.x, self.y = _widened(x), _widened(y)
        self._labels = (x_label, y_label)
        self._parts: list[str] = []

    def at(self, point: Point) -> Point:
        """Where a point of data units lies in the drawing."""
        across = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        up = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + across * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - up * (HEIGHT - _TOP - _BOTTOM)

    def line(self, series: Series) -> None:
        """Draws a line, with dots where the series wants them."""
        places = [self.at(p) for p in series.points]
        if len(places) > 1:
            self._parts.append(f'<path class="line {series.style}" d="{_path(places)}"/>')
        if series.dots or len(places) == 1:
            self._parts += [f'<circle class="dot {series.style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in places]

    def area(self, series: Series) -> None:
        """Fills what lies between a line and the lower edge."""
        places = [self.at(p) for p in series.points]
        if places:
            floor = self.at((0, self.y[0]))[1]
            closed = [(places[0][0], floor), *places, (places[-1][0], floor)]
            self._parts.append(f'<path class="area {series.style}" d="{_path(closed)}Z"/>')
            self._parts.append(f'<path class="line {series.style}" d="{_path(places)}"/>')

    def guide(self, start: Point, end: Point) -> None:
        """Draws a dashed line that the eye may follow."""
        self._parts.append(f'<path class="guide" d="{_path([self.at(start), self.at(end)])}"/>')

    def whisker(self, x: float, low: float, high: float, style: str) -> None:
        """Draws an upright interval."""
        places = [self.at((x, low)), self.at((x, high))]
        self._parts.append(f'<path class="whisker {style}" d="{_path(places)}"/>')

    def svg(self, title: str) -> Markup:
        """The plot as a whole."""
        axes = [self._tick(v, True) for v in ticks(*self.x)] + [self._tick(v, False) for v in ticks(*self.y)]
        across, upwards = (escape(label) for label in self._labels)
        middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
        axes.append(f'<text class="label" x="{middle_x:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{across}</text>')
        turned = f'transform="translate(10 {middle_y:.0f}) rotate(-90)"'
        axes.append(f'<text class="label" {turned} text-anchor="middle">{upwards}</text>')
        body = "".join([*axes, *self._parts])
        head = f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        return Markup(f"{head}{body}</svg>")

    def _tick(self, value: float, across: bool) -> str:
        text = tick_text(value)
        if across:
            x, y = self.at((value, self.y[0]))
            grid = f'<path class="grid" d="{_path([(x, _TOP), (x, y)])}"/>'
            return f'{grid}<text x="{x:.1f}" y="{y + 14:.1f}" text-anchor="middle">{text}</text>'
        x, y = self.at((self.x[0], value))
        grid = f'<path class="grid" d="{_path([(x, y), (WIDTH - _RIGHT, y)])}"/>'
        return f'{grid}<text x="{x - 5:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'


def lines(
    series: Sequence[Series], x: Point, y: Point, labels: tuple[str, str], title: str, diagonal: bool = False
) -> Markup:
    """A plot of lines, the first on top."""
    frame = Frame(x, y, *labels)
    if diagonal:
        low, high = max(frame.x[0], frame.y[0]), min(frame.x[1], frame.y[1])
        frame.guide((low, low), (high, high))
    for each in reversed(series):
        frame.line(each)
    return frame.svg(title)


def calibration(series: Sequence[tuple[Series, Sequence[dict]]]) -> Markup:
    """Share of class 1 over mean score, with the intervals of each bin.

    Args:
        series: Each line with the bins that it was made of (`tidemill.evaluation.curves.calibration`).
    """
    most = max((max(p["score"], p["high"]) for _, bins in series for p in bins), default=1.0)
    frame = Frame((0, most), (0, most), "mean score", "share of class 1")
    frame.guide((0, 0), (frame.x[1], frame.x[1]))
    for line, bins in reversed(series):
        for p in bins:
            frame.whisker(p["score"], p["low"], p["high"], line.style)
        frame.line(line)
    return frame.svg("Calibration")


def histogram(data: dict) -> Markup:
    """The scores of both classes, each as shares of its own rows."""
    edges = data["edges"]
    shares = {}
    for side in ("negatives", "positives"):
        total = sum(data[side])
        shares[side] = [count / total if total else 0.0 for count in data[side]]
    most = max([*shares["negatives"], *shares["positives"]], default=1.0)
    frame = Frame((edges[0], edges[-1]), (0, most * 1.05), "score", "share of the class")
    for side in ("negatives", "positives"):
        steps = [p for k, v in enumerate(shares[side]) for p in ((edges[k], v), (edges[k + 1], v))]
        frame.area(Series(side, side, steps))
    return frame.svg("Scores by class")


def interval_bar(estimate: dict, low: float, high: float, mark: float | None, style: str = "model") -> Markup:
    """A value with its interval on one line, in a range that the rows of a table share.

    Args:
        estimate: `value`, `low` and `high`, nulls allowed.
        low, high: The range.
        mark: Where to draw the reference line; None for none.
        style: Class by which the style sheet colours it.
    """
    if estimate["value"] is None:
        return Markup('<svg class="bar" viewBox="0 0 120 14" aria-hidden="true"></svg>')
    width = max(high - low, 1e-12)

    def at(value: float) -> float:
        return 4 + min(max((value - low) / width, 0.0), 1.0) * 112

    parts = []
    if mark is not None:
        parts.append(f'<path class="mark" d="M{at(mark):.1f} 0V14"/>')
    if estimate["low"] is not None:
        parts.append(f'<path class="range {style}" d="M{at(estimate["low"]):.1f} 7H{at(estimate["high"]):.1f}"/>')
    parts.append(f'<circle class="dot {style}" cx="{at(estimate["value"]):.1f}" cy="7" r="3.2"/>')
    return Markup(f'<svg class="bar" viewBox="0 0 120 14" aria-hidden="true">{"".join(parts)}</svg>')


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers within a range, some 3 to 7."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= about + 0.5)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """A tick's number, as short as it goes."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def _widened(bounds: Point) -> Point:
    low, high = bounds
    return (low, high) if high - low > 1e-9 else (low - 0.5e-3, high + 0.5e-3)


def _path(places: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
