"""Gates: the conditions that decide whether a model is blessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.evaluation.metrics import NAMES
from tidemill.experiment.evaluation import Gate

NO_BASELINE = "no published model predicts this yet"
TOLERANCE = 1e-6
"""A gain may fall short by this much: published models give float32 scores, and an equal model must not fail for it."""


@dataclass(frozen=True)
class Check:
    """One condition of a gate and how it came out.

    Attributes:
        metric: The metric.
        condition: `min`, `max` or `better_than_baseline`.
        wanted: The number that the experiment file gives.
        value: The model's metric (`min`, `max`) or its gain over the baseline; None where there is none.
        holds: Whether the condition holds.
        text: The outcome in a sentence, with the numbers.
    """

    metric: str
    condition: str
    wanted: float
    value: float | None
    holds: bool
    text: str


def check(gates: Mapping[str, Gate], result: dict) -> list[Check]:
    """Checks all gates on the test split.

    Args:
        gates: Gates by metric.
        result: The `test` part of `metrics.json` (see `tidemill.evaluation.evaluate`): `metrics`, and with a baseline
            `baseline`, its `metrics` and `gain`. `baseline` is None where no published model predicts the label; then
            `better_than_baseline` holds. Where it could not be scored `baseline["skipped"]` says why; then it does not.

    Returns:
        One `Check` a condition, in the order of the file. The model is blessed when all hold.
    """
    checks = []
    for metric, gate in gates.items():
        if gate.min is not None:
            checks.append(_bound(metric, "min", gate.min, result["metrics"][metric]))
        if gate.max is not None:
            checks.append(_bound(metric, "max", gate.max, result["metrics"][metric]))
        if gate.better_than_baseline is not None:
            checks.append(_against_baseline(metric, gate.better_than_baseline, result))
    return checks


def _bound(metric: str, condition: str, bound: float, estimate: dict) -> Check:
    value = estimate["value"]
    if value is None:
        text = f"{NAMES[metric]} has no value ({estimate['reason']}), and the gate wants {condition} {bound:g}"
        return Check(metric, condition, bound, None, False, text)
    holds = value >= bound if condition == "min" else value <= bound
    words = {"min": ("is below", "is at least"), "max": ("is above", "is at most")}[condition]
    text = f"{NAMES[metric]} {number(value)} {words[holds]} {bound:g}"
    return Check(metric, condition, bound, value, holds, text)


def _against_baseline(metric: str, margin: float, result: dict) -> Check:
    name, baseline = "better_than_baseline", result["baseline"]
    if baseline is None:
        return Check(metric, name, margin, None, True, f"{NAMES[metric]}: {NO_BASELINE}, to be better than")
    if skipped := baseline.get("skipped"):
        text = f"{NAMES[metric]} cannot be compared with the published model: {skipped}"
        return Check(metric, name, margin, None, False, text)
    own, theirs, gain = result["metrics"][metric], baseline["metrics"][metric], baseline["gain"][metric]
    if gain["value"] is None:
        text = f"{NAMES[metric]} has no value ({own.get('reason')}) to compare with the published model's"
        return Check(metric, name, margin, None, False, text)
    holds = gain["value"] >= margin - TOLERANCE
    sides = f"{NAMES[metric]} {number(own['value'])} against the published model's {number(theirs['value'])}"
    text = (
        f"{sides}: gain {signed(gain['value'])}{interval(gain)}, {'' if holds else 'but '}at least {margin:g} is wanted"
    )
    return Check(metric, name, margin, gain["value"], holds, text)


def number(value: float) -> str:
    """A metric for readers, with four decimals."""
    return f"{value:.4f}"


def signed(value: float) -> str:
    """A difference for readers, with its sign."""
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def interval(estimate: dict) -> str:
    """` (low to high)` of a difference, empty where it has no interval."""
    if estimate.get("low") is None:
        return ""
    return f" ({signed(estimate['low'])} to {signed(estimate['high'])})"
