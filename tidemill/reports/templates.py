"""The templates of the pages, with the filters that they use.

A page is one HTML file that loads nothing: no font, no script, nothing from a network. `page.html.jinja` holds the
style that the pages of this package share.
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2

from tidemill.artifacts.evaluation_artifact import Estimate
from tidemill.metric_definitions import DEFINITIONS

NEGLIGIBLE = 5e-5
"""A gain below this rounds to 0 and is never called better or worse."""
STYLES = ("c1", "c2", "c3", "c4", "c5", "c6")
"""Colors of the members of a page, as classes of the style sheet."""
_HINTS = {"high": ("↑", "higher is better"), "low": ("↓", "lower is better"), "one": ("→ 1", "1 is best")}


@functools.cache
def environment(package: str = "tidemill.reports") -> jinja2.Environment:
    """Returns the templates of a package, which can extend the templates of this package.

    Args:
        package: The package that holds the templates. Defaults to this one.
    """
    names = dict.fromkeys([package, "tidemill.reports"])
    env = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, ".") for name in names]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "number": number,
        "signed": signed,
        "percent": percent,
        "count": lambda value: f"{value:,}",
        "duration": duration,
        "size": size,
        "coverage": lambda share: f"{round(share * 100, 1):g} %",
        "sentence": lambda text: text[:1].upper() + text[1:],
        "verdict": verdict,
        "gain": gain,
    }
    return env


def metric_display(key: str) -> dict[str, Any]:
    """Returns how templates show a metric: `key`, `name`, `hint` with `hint_text`, and `digits` after the point."""
    hint, hint_text = _HINTS[DEFINITIONS[key].best]
    digits = 3 if key == "calibration" else 4
    return {"key": key, "name": DEFINITIONS[key].name, "hint": hint, "hint_text": hint_text, "digits": digits}


def style_of(index: int) -> str:
    """Returns the color of a member by its position on the page."""
    return STYLES[index % len(STYLES)]


def number(value: float, digits: int = 4) -> str:
    """Returns a number with a fixed number of digits after the point."""
    return _minus(f"{value:.{digits}f}")


def signed(value: float, digits: int = 4) -> str:
    """Returns a difference with its sign."""
    return _minus(f"{value:+.{digits}f}")


def percent(share: float) -> str:
    """Returns a share as a percentage, for example `12.3 %`."""
    return f"{share * 100:.1f} %"


def duration(seconds: float) -> str:
    """Returns a duration as text: `0.8 s`, `12 s`, `3 min 05 s`, `2 h 03 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def size(count: float) -> str:
    """Returns a number of bytes as text: `873 B`, `1.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def verdict(gain: Estimate) -> str:
    """Returns the style of a gain: `good` or `bad` if its interval is on one side of 0, else `faint`."""
    if gain["value"] is None or gain["low"] is None or gain["high"] is None or abs(gain["value"]) < NEGLIGIBLE:
        return "faint"
    return "good" if gain["low"] > 0 else "bad" if gain["high"] < 0 else "faint"


def gain(estimate: Estimate, digits: int = 4) -> str:
    """Returns a gain in words, for example `+0.0120 better`. Its value must exist."""
    word = {"good": "better", "bad": "worse", "faint": "no clear difference"}[verdict(estimate)]
    return f"{signed(estimate['value'] or 0.0, digits)} {word}"


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
