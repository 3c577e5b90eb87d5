"""Charts of the validation report: SVG histograms for numbers, rows of bars for categories."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 300, 92
TOP_VALUES = 7


@dataclass(frozen=True)
class Bar:
    """One row of a category's chart.

    Attributes:
        label: The value, or the name of a group of values.
        special: Whether the row is not for a single value, but for the missing or all other values.
        shares: For each split: the share of its rows, the number of rows, and the bar's length in percent of the
            longest bar (0: no bar).
    """

    label: str
    special: bool
    shares: list[tuple[float, int, float]]


def histogram(splits: Mapping[str, np.ndarray], edges: np.ndarray, *, is_time: bool, unit_bars: bool) -> Markup:
    """Draws the histograms of several splits in one chart: train as an area, the others as lines.

    The heights are shares of each split's own values.

    Args:
        splits: For each split the number of rows in each bin, int64 [e + 1] (`distribution.bins`). The first and the
            last bar include the values beyond the edges.
        edges: Edges of the bars, float64 [e], at least one.
        is_time: Whether the numbers are seconds since 1970.
        unit_bars: Whether each bar is one integer.

    Returns:
        Inline SVG. Empty if no split has a value.
    """
    shares = {name: _shares(counts, len(edges)) for name, counts in splits.items() if counts.sum()}
    if not shares:
        return Markup("")
    bars = len(next(iter(shares.values())))
    top = max(float(s.max()) for s in shares.values()) or 1.0
    step = WIDTH / bars
    paths = []
    for index, (name, share) in enumerate(shares.items()):
        heights = HEIGHT - share / top * (HEIGHT - 4)
        points = " ".join(f"{i * step:.1f},{y:.1f} {(i + 1) * step:.1f},{y:.1f}" for i, y in enumerate(heights))
        if name == "train":
            paths.append(f'<polygon class="area s{index}" points="0,{HEIGHT} {points} {WIDTH},{HEIGHT}"/>')
        else:
            paths.append(f'<polyline class="line s{list(splits).index(name)}" points="{points}"/>')
    hovers = []
    for bar in range(bars):
        lines = [_range(edges, bar, bars, is_time, unit_bars)]
        lines += [f"{name} {percent(float(share[bar]))}" for name, share in shares.items()]
        title = escape("\n".join(lines))
        hovers.append(f'<rect x="{bar * step:.1f}" width="{step:.1f}" height="{HEIGHT}"><title>{title}</title></rect>')
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="histogram">'
        f'{"".join(paths)}<g class="hover">{"".join(hovers)}</g></svg>'
    )


def top_bars(
    values: Mapping[str, Mapping[str, int]], rows: Mapping[str, int], missing: Mapping[str, int], unique: int
) -> list[Bar]:
    """Returns the rows of a category's chart: the most frequent values of train, all other values together (without a
    bar), and the missing values.

    Args:
        values: For each split the counts of its most frequent values.
        rows: Number of rows of each split.
        missing: Number of missing values of each split.
        unique: Number of distinct values of the first split.
    """
    names = [name for name in values if rows[name]]
    if not names:
        return []
    shown = list(values[names[0]])[:TOP_VALUES]
    counted = [(value or "(empty)", not value, [values[n].get(value, 0) for n in names]) for value in shown]
    missed = [missing[n] for n in names]
    drawn = [counts for _, _, counts in counted] + [missed]
    longest = max(c / rows[n] for counts in drawn for n, c in zip(names, counts, strict=True)) or 1.0
    rest = [rows[n] - missing[n] - sum(values[n].get(v, 0) for v in shown) for n in names]
    if any(rest):
        more = max(unique - len(shown), 0)
        counted.append((f"{more:,} more" if more else "not in train", True, rest))
    if any(missed):
        counted.append(("missing", True, missed))
    bars = []
    for label, special, counts in counted:
        scale = 0.0 if counts is rest else 100 / longest
        shares = [(c / rows[n], c, scale * c / rows[n]) for n, c in zip(names, counts, strict=True)]
        bars.append(Bar(label, special, shares))
    return bars


def axis(edges: np.ndarray, low: float, high: float, *, is_time: bool) -> tuple[str, str]:
    """Returns the labels below the two ends of a histogram.

    Args:
        edges: Edges of the bars, float64 [e].
        low: The smallest value. If it lies below the first edge, the label says `less than …`.
        high: The largest value. If it lies above the last edge, the label says `… and more`.
        is_time: Whether the numbers are seconds since 1970.
    """
    left, right = number(max(low, float(edges[0])), is_time=is_time), number(high, is_time=is_time)
    if len(edges) > 1 and low < edges[0]:
        left = f"less than {number(float(edges[1]), is_time=is_time)}"
    if len(edges) > 1 and high > edges[-1]:
        right = f"{number(float(edges[-2]), is_time=is_time)} and more"
    return left, right


def percent(share: float) -> str:
    """Returns a share as text: `0 %`, `<0.01 %`, `12.3 %`."""
    value = 100 * share
    if value == 0 or value == 100:
        return f"{value:.0f} %"
    if value < 0.01:
        return "<0.01 %"
    return f"{value:.2f} %" if value < 1 else f"{min(value, 99.9):.1f} %"


def number(value: float, *, is_time: bool = False) -> str:
    """Returns a number with about four digits, or an instant as date and time."""
    if is_time:
        try:
            return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M")
        except (OverflowError, OSError, ValueError):
            return f"{value:g}"
    if math.isfinite(value) and abs(value) < 1e7 and (value == int(value) or abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _shares(counts: np.ndarray, edges: int) -> np.ndarray:
    """Returns the share of each bar; the values beyond the edges are added to the outer bars."""
    if edges == 1:
        return np.array([1.0])
    inner = counts[1:-1].astype(np.float64)
    inner[0] += counts[0]
    inner[-1] += counts[-1]
    return inner / counts.sum()


def _range(edges: np.ndarray, bar: int, bars: int, is_time: bool, unit_bars: bool) -> str:
    if len(edges) == 1 or unit_bars:
        return number(float(edges[bar]), is_time=is_time)
    low, high = (number(float(edges[i]), is_time=is_time) for i in (bar, bar + 1))
    if bar == 0:
        return f"less than {high}"
    return f"{low} and more" if bar == bars - 1 else f"{low} to {high}"
