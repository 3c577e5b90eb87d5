"""The gates of an evaluation: the conditions that decide whether a model is blessed.

Each condition of `evaluation.gates` becomes one `GateCheck`, whose text states the measured number and the limit.
"""

from __future__ import annotations

from collections.abc import Mapping

from tidemill.artifacts.evaluation_artifact import ComparedMetrics, Estimate, GateCheck
from tidemill.experiment.evaluation import Gate
from tidemill.metric_definitions import Metric, name_of

NO_BASELINE = "no published model predicts this label"
TOLERANCE = 1e-6
"""A gain may miss its limit by this much: published models return float32 scores, and an equal model must pass."""
_BOUND_TEXTS = {"min": ("is below", "is at least"), "max": ("is above", "is at most")}


def check_gates(gates: Mapping[Metric, Gate], result: ComparedMetrics) -> list[GateCheck]:
    """Checks all gates against the metrics of the test split.

    If no published model predicts the label, `better_than_baseline` passes. If the published model was skipped, it
    fails.

    Args:
        gates: Gates by metric.
        result: The `test` entry of `metrics.json`.

    Returns:
        One check for each condition, in the order of the experiment file. The model is blessed if all pass.
    """
    checks = []
    for metric, gate in gates.items():
        if gate.min is not None:
            checks.append(_check_bound(metric, "min", gate.min, result["metrics"][metric]))
        if gate.max is not None:
            checks.append(_check_bound(metric, "max", gate.max, result["metrics"][metric]))
        if gate.better_than_baseline is not None:
            checks.append(_check_gain(metric, gate.better_than_baseline, result))
    return checks


def _check_bound(metric: str, condition: str, bound: float, estimate: Estimate) -> GateCheck:
    value = estimate["value"]
    if value is None:
        text = f"{name_of(metric)} has no value ({estimate.get('reason')}), but the gate requires {condition} {bound:g}"
        holds = False
    else:
        holds = value >= bound if condition == "min" else value <= bound
        text = f"{name_of(metric)} {_number(value)} {_BOUND_TEXTS[condition][holds]} {bound:g}"
    return {"metric": metric, "condition": condition, "wanted": bound, "value": value, "holds": holds, "text": text}


def _check_gain(metric: str, margin: float, result: ComparedMetrics) -> GateCheck:
    value, holds = None, False
    baseline, name = result.get("baseline"), name_of(metric)
    if baseline is None:
        holds, text = True, f"{name}: {NO_BASELINE}, so there is nothing to compare with"
    elif "metrics" not in baseline or "gain" not in baseline:
        text = f"{name} cannot be compared with the published model: {baseline.get('skipped')}"
    else:
        own, published, gain = result["metrics"][metric], baseline["metrics"][metric], baseline["gain"][metric]
        value = gain["value"]
        if value is None or own["value"] is None or published["value"] is None:
            text = f"{name} cannot be compared with the published model: it has no value ({own.get('reason')})"
        else:
            holds = value >= margin - TOLERANCE
            text = (
                f"{name} {_number(own['value'])}, published model {_number(published['value'])}: "
                f"gain {_signed(value)}{_interval(gain)} {'is at least' if holds else 'is below'} {margin:g}"
            )
    return {
        "metric": metric,
        "condition": "better_than_baseline",
        "wanted": margin,
        "value": value,
        "holds": holds,
        "text": text,
    }


def _number(value: float) -> str:
    return f"{value:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "\N{MINUS SIGN}")


def _interval(estimate: Estimate) -> str:
    """Returns ` (low to high)`; empty without an interval."""
    if estimate["low"] is None or estimate["high"] is None:
        return ""
    return f" ({_signed(estimate['low'])} to {_signed(estimate['high'])})"
