"""The gates of an evaluation: the conditions that decide whether a model is blessed.

Each condition of `evaluation.gates` becomes one `GateCheck`, whose text states the measured number and the limit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from tidemill.artifacts.evaluation_artifact import (
    BASE_RATE_KEY,
    ComparedMetrics,
    Comparison,
    Estimate,
    GateCheck,
    SliceMetrics,
    Slicing,
)
from tidemill.auc_and_log_loss import row_log_loss
from tidemill.experiment.evaluation import Bounds, Gate, SliceGate
from tidemill.metric_definitions import Metric, name_of

NO_BASELINE = "no published model predicts this label"
TOLERANCE = 1e-6
"""A gain may miss its limit by this much: published models return float32 scores, and an equal model must pass."""
_LISTED_SLICES = 3
_BOUND_TEXTS = {"min": ("is below", "is at least"), "max": ("is above", "is at most")}


def check_gates(
    gates: Mapping[Metric, Gate], result: ComparedMetrics, slicings: Sequence[Slicing] = ()
) -> list[GateCheck]:
    """Checks all gates against the metrics of the test split and of its slices.

    If no published model predicts the label, `better_than_baseline` passes. If the published model was skipped, it
    fails.

    Args:
        gates: Gates by metric.
        result: The `test` entry of `metrics.json`.
        slicings: The `slices` entry of `metrics.json`. Defaults to none.

    Returns:
        One check for each condition, in the order of the experiment file; a condition on slices has one check for all
        slices of one slicing. The model is blessed if all pass.
    """
    checks: list[GateCheck] = []
    baseline = result.get("baseline")
    skipped = baseline if baseline is not None and "skipped" in baseline else None
    for metric, gate in gates.items():
        checks += _check_bounds(metric, gate, result)
        for slice_gate in gate.slices:
            for slicing in slicings:
                if slice_gate.columns in (None, slicing["columns"]):
                    checks += _check_slices(metric, slice_gate, slicing, skipped)
    return checks


def check_base_rate(share: float, labels: np.ndarray, result: ComparedMetrics) -> GateCheck:
    """Checks that the log loss is at most that of the base rate.

    Args:
        share: The share of label 1 in train.
        labels: [rows] 0 and 1, of the test split.
        result: The `test` entry of `metrics.json`.
    """
    loss = float(row_log_loss(labels, np.full(len(labels), share)).mean())
    check = _check_bound("log_loss", "max", loss, result["metrics"]["log_loss"])
    text = f"{name_of('log_loss')} has no value ({BASE_RATE_KEY})"
    if check["value"] is not None:
        words = "is at most" if check["holds"] else "is above"
        key = "" if check["holds"] else f" ({BASE_RATE_KEY})"
        text = (
            f"{name_of('log_loss')} {_number(check['value'])} {words} {_number(loss)}, that of the base rate of train"
            f"{key}"
        )
    return cast(GateCheck, {**check, "condition": "better_than_base_rate", "text": text})


def _check_bounds(metric: Metric, bounds: Bounds, result: ComparedMetrics) -> list[GateCheck]:
    checks = []
    if bounds.min is not None:
        checks.append(_check_bound(metric, "min", bounds.min, result["metrics"][metric]))
    if bounds.max is not None:
        checks.append(_check_bound(metric, "max", bounds.max, result["metrics"][metric]))
    if bounds.better_than_baseline is not None:
        checks.append(_check_gain(metric, bounds.better_than_baseline, result))
    return checks


def _check_slices(metric: Metric, gate: SliceGate, slicing: Slicing, skipped: Comparison | None) -> list[GateCheck]:
    """Returns one check for each condition: the slices that fail, the worst first, or the number of those that pass.

    Args:
        metric: The metric.
        gate: The conditions.
        slicing: The slices.
        skipped: Why the published model was not scored, if so.
    """
    columns, name = "/".join(slicing["columns"]), name_of(metric)
    judged = [s for s in slicing["slices"] if s["rows"] >= gate.min_rows and s["metrics"][metric]["value"] is not None]
    if not judged:
        text = f"{name}: no slice by {columns} has a value and at least {gate.min_rows:,} rows"
        condition = f"slices by {columns}"
        return [{"metric": metric, "condition": condition, "wanted": 0.0, "value": None, "holds": True, "text": text}]
    if skipped is not None:
        judged = [cast(SliceMetrics, {**each, "baseline": skipped}) for each in judged]
    by_slice = [_check_bounds(metric, gate, each) for each in judged]
    checks: list[GateCheck] = []
    for same in zip(*by_slice, strict=True):
        sign = -1 if same[0]["condition"] == "max" else 1
        failed = [(each["name"], check) for each, check in zip(judged, same, strict=True) if not check["holds"]]
        failed.sort(key=lambda item: sign * (item[1]["value"] or 0.0))
        first = failed[0][1] if failed else same[0]
        text = f"{name}: all {len(same)} slices by {columns} meet {first['condition']} {first['wanted']:g}"
        if failed:
            text = "; ".join(f"slice {slice_}: {check['text']}" for slice_, check in failed[:_LISTED_SLICES])
        if len(failed) > _LISTED_SLICES:
            text += f"; and {len(failed) - _LISTED_SLICES} more slices by {columns}"
        check: GateCheck = {
            "metric": metric,
            "condition": f"{first['condition']} by {columns}",
            "wanted": first["wanted"],
            "value": first["value"],
            "holds": not failed,
            "text": text,
        }
        checks.append(check)
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
