"""Gates: the conditions that decide whether a model is blessed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidemill.experiment.evaluation import Gate

NO_BASELINE = "no model is published yet"


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
            `baseline`, its `metrics` and `gain`. `baseline` is None where no model is published; then
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
        text = f"{metric} has no value ({estimate['reason']}), and the gate wants {condition} {bound:g}"
        return Check(metric, condition, bound, None, False, text)
    holds = value >= bound if condition == "min" else value <= bound
    words = {("min", True): "is at least", ("min", False): "is below", ("max", True): "is at most", ("max", False): "is above"}
    text = f"{metric} {number(value)} {words[condition, holds]} {bound:g}"
    return Check(metric, condition, bound, value, holds, text)


def _against_baseline(metric: str, margin: float, result: dict) -> Check:
    name, baseline = "better_than_baseline", result["baseline"]
    if baseline is None:
        return Check(metric, name, margin, None, True, f"{metric}: {NO_BASELINE} to be better than")
    if skipped := baseline.get("skipped"):
        return Check(metric, name, margin, None, False, f"{metric} cannot be compared with the published model: {skipped}")
    own, theirs, gain = result["metrics"][metric], baseline["metrics"][metric], baseline["gain"][metric]
    if gain["value"] is None:
        reason = own.get("reason") or theirs.get("reason")
        return Check(metric, name, margin, None, False, f"{metric} has no value ({reason}) to compare with the published model's")
    holds = gain["value"] >= margin
    sides = f"{metric} {number(own['value'])} against the published model's {number(theirs['value'])}"
    outcome = f"better by {signed(gain['value'])}{interval(gain)}"
    wanted = f"which is {'at least' if holds else 'less than'} {margin:g}"
    return Check(metric, name, margin, gain["value"], holds, f"{sides}: {outcome}, {wanted}")


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
