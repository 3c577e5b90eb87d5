"""Plots as SVG text. Colors come from the style sheet of the page, which has a light and a dark theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from tidemill.artifacts.evaluation_artifact import CalibrationBin, Curves, Estimate, Histogram

WIDTH, HEIGHT = 360, 270
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 10, 10, 40
Point = tuple[float, float]


@dataclass(frozen=True)
class Series:
    """One line of a plot.

    Attributes:
        name: Name of the line.
        style: Class of the style sheet that colors it.
        points: Points in data units.
        dots: Whether to draw a dot at each point. Defaults to False.
    """

    name: str
    style: str
    points: Sequence[Point]
    dots: bool = False


class Axes:
    """Axes over a range of data, on which lines are drawn.

    Args:
        x: Lowest and highest value of the horizontal axis.
        y: Lowest and highest value of the vertical axis.
        x_label: Text below the horizontal axis.
        y_label: Text along the vertical axis.
    """

    def __init__(self, x: Point, y: Point, x_label: str, y_label: str):
        self.x, self.y = _widened(x), _widened(y)
        self._labels = (x_label, y_label)
        self._parts: list[str] = []

    def at(self, point: Point) -> Point:
        """Returns the position in the drawing of a point in data units."""
        x_share = (point[0] - self.x[0]) / (self.x[1] - self.x[0])
        y_share = (point[1] - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + x_share * (WIDTH - _LEFT - _RIGHT), HEIGHT - _BOTTOM - y_share * (HEIGHT - _TOP - _BOTTOM)

    def line(self, series: Series) -> None:
        """Draws a line, with dots if the series has them or is a single point."""
        positions = [self.at(p) for p in series.points]
        if len(positions) > 1:
            self._parts.append(f'<path class="line {series.style}" d="{_path(positions)}"/>')
        if series.dots or len(positions) == 1:
            self._parts += [
                f'<circle class="dot {series.style}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in positions
            ]

    def area(self, series: Series) -> None:
        """Draws a line and fills the area below it."""
        positions = [self.at(p) for p in series.points]
        if positions:
            floor = self.at((0, self.y[0]))[1]
            closed = [(positions[0][0], floor), *positions, (positions[-1][0], floor)]
            self._parts.append(f'<path class="area {series.style}" d="{_path(closed)}Z"/>')
            self._parts.append(f'<path class="line {series.style}" d="{_path(positions)}"/>')

    def guide(self, start: Point, end: Point) -> None:
        """Draws a dashed reference line."""
        self._parts.append(f'<path class="guide" d="{_path([self.at(start), self.at(end)])}"/>')

    def whisker(self, x: float, low: float, high: float, style: str) -> None:
        """Draws a vertical interval."""
        positions = [self.at((x, low)), self.at((x, high))]
        self._parts.append(f'<path class="whisker {style}" d="{_path(positions)}"/>')

    def svg(self, title: str) -> Markup:
        """Returns the whole plot."""
        axes = [self._tick(v, True) for v in ticks(*self.x)] + [self._tick(v, False) for v in ticks(*self.y)]
        horizontal, vertical = (escape(label) for label in self._labels)
        middle_x, middle_y = (_LEFT + WIDTH - _RIGHT) / 2, (_TOP + HEIGHT - _BOTTOM) / 2
        axes.append(f'<text class="label" x="{middle_x:.0f}" y="{HEIGHT - 4}" text-anchor="middle">{horizontal}</text>')
        rotated = f'transform="translate(10 {middle_y:.0f}) rotate(-90)"'
        axes.append(f'<text class="label" {rotated} text-anchor="middle">{vertical}</text>')
        body = "".join([*axes, *self._parts])
        head = f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        return Markup(f"{head}{body}</svg>")

    def _tick(self, value: float, is_horizontal: bool) -> str:
        text = tick_text(value)
        if is_horizontal:
            x, y = self.at((value, self.y[0]))
            grid = f'<path class="grid" d="{_path([(x, _TOP), (x, y)])}"/>'
            return f'{grid}<text x="{x:.1f}" y="{y + 14:.1f}" text-anchor="middle">{text}</text>'
        x, y = self.at((self.x[0], value))
        grid = f'<path class="grid" d="{_path([(x, y), (WIDTH - _RIGHT, y)])}"/>'
        return f'{grid}<text x="{x - 5:.1f}" y="{y + 3.5:.1f}" text-anchor="end">{text}</text>'


def lines(
    series: Sequence[Series], x: Point, y: Point, labels: tuple[str, str], title: str, diagonal: bool = False
) -> Markup:
    """Returns a plot of lines, the first on top.

    Args:
        series: The lines.
        x: Range of the horizontal axis.
        y: Range of the vertical axis.
        labels: Texts of the horizontal and the vertical axis.
        title: Title for screen readers.
        diagonal: Whether to draw the diagonal as a reference. Defaults to False.
    """
    axes = Axes(x, y, *labels)
    if diagonal:
        low, high = max(axes.x[0], axes.y[0]), min(axes.x[1], axes.y[1])
        axes.guide((low, low), (high, high))
    for each in reversed(series):
        axes.line(each)
    return axes.svg(title)


def points_of(key: Literal["roc", "precision_recall"], curves: Curves) -> list[Point]:
    """Returns the points of a curve to draw.

    The precision at a recall below 0.005 is left out: it depends on a few rows.
    """
    start = 0.005 if key == "precision_recall" else 0.0
    return [(p[0], p[1]) for p in curves[key] if p[0] >= start]


def calibration(models: Sequence[tuple[str, str, Sequence[CalibrationBin]]]) -> Markup:
    """Returns a plot of the share of class 1 over the mean score, with the interval of each bin.

    Args:
        models: Name, style and bins of each model.
    """
    series = [
        (Series(name, style, [(p["score"], p["share"]) for p in bins], dots=True), bins) for name, style, bins in models
    ]
    most = max((max(p["score"], p["high"]) for _, bins in series for p in bins), default=1.0)
    axes = Axes((0, most), (0, most), "mean score", "share of class 1")
    axes.guide((0, 0), (axes.x[1], axes.x[1]))
    for line, bins in reversed(series):
        for p in bins:
            axes.whisker(p["score"], p["low"], p["high"], line.style)
        axes.line(line)
    return axes.svg("Calibration")


def histogram(data: Histogram) -> Markup:
    """Returns a plot of the scores of both classes, each as shares of its own rows."""
    edges = data["edges"]
    shares = {}
    for name, counts in (("negatives", data["negatives"]), ("positives", data["positives"])):
        total = sum(counts)
        shares[name] = [count / total if total else 0.0 for count in counts]
    most = max([*shares["negatives"], *shares["positives"]], default=1.0)
    axes = Axes((edges[0], edges[-1]), (0, most * 1.05), "score", "share of the class")
    for name, heights in shares.items():
        steps = [p for k, v in enumerate(heights) for p in ((edges[k], v), (edges[k + 1], v))]
        axes.area(Series(name, name, steps))
    return axes.svg("Scores by class")


def interval_bar(estimate: Estimate, low: float, high: float, mark: float | None, style: str = "model") -> Markup:
    """Returns a small drawing of a value with its interval, for a cell of a table.

    An arrow marks an end of the interval that lies beyond the range.

    Args:
        estimate: The value; the drawing is empty if it does not exist.
        low: Lowest value of the range that all rows of the table share.
        high: Highest value of that range.
        mark: Value of the reference line; None draws none.
        style: Class of the style sheet that colors it. Defaults to `model`.
    """
    if estimate["value"] is None:
        return Markup('<svg class="bar" viewBox="0 0 120 14" aria-hidden="true"></svg>')
    width = max(high - low, 1e-12)

    def at(value: float) -> float:
        return 4 + min(max((value - low) / width, 0.0), 1.0) * 112

    parts = []
    if mark is not None:
        parts.append(f'<path class="mark" d="M{at(mark):.1f} 0V14"/>')
    if estimate["low"] is not None and estimate["high"] is not None:
        parts.append(f'<path class="range {style}" d="M{at(estimate["low"]):.1f} 7H{at(estimate["high"]):.1f}"/>')
        if estimate["low"] < low - width * 1e-6:
            parts.append(f'<path class="clip {style}" d="M5 2L1 7L5 12"/>')
        if estimate["high"] > high + width * 1e-6:
            parts.append(f'<path class="clip {style}" d="M115 2L119 7L115 12"/>')
    parts.append(f'<circle class="dot {style}" cx="{at(estimate["value"]):.1f}" cy="7" r="3.2"/>')
    return Markup(f'<svg class="bar" viewBox="0 0 120 14" aria-hidden="true">{"".join(parts)}</svg>')


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Returns 3 to 7 round numbers within a range."""
    step = 10 ** math.floor(math.log10((high - low) / about))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (step * f) <= about + 0.5)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """Returns the number of a tick in at most six digits."""
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def _widened(bounds: Point) -> Point:
    """Returns the range, widened if it is a single value."""
    low, high = bounds
    return (low, high) if high - low > 1e-9 else (low - 0.5e-3, high + 0.5e-3)


def _path(positions: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in positions)
