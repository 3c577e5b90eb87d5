"""The `evaluate` step: measures a model and decides whether it is blessed.

It measures all rows of the valid and test splits and the slices of test, compares with the published model, and checks
the gates. `tidemill.artifacts.evaluation_artifact` describes the files that it writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np

from tidemill import storage
from tidemill.artifacts import artifact, evaluation_artifact
from tidemill.artifacts.evaluation_artifact import (
    ComparedMetrics,
    Curves,
    Estimate,
    EvaluationDocument,
    LabelMetrics,
    Slicing,
    SplitMetrics,
)
from tidemill.artifacts.examples import Dataset
from tidemill.artifacts.model import ModelDocument
from tidemill.errors import Code, TidemillError
from tidemill.evaluation import bootstrap, curves, metric_values, thresholds
from tidemill.evaluation.blessing import check_base_rate, check_gates
from tidemill.evaluation.slices import Slice, slice_rows
from tidemill.experiment.evaluation import Evaluation
from tidemill.metric_definitions import METRICS, goodness, mean
from tidemill.models import load_model
from tidemill.models.core.inputs import read_labels
from tidemill.reports import evaluation_page
from tidemill.runtime import Progress
from tidemill.steps.evaluate import EvaluateSpec

_NOT_COMPARABLE = (Code.MISSING_COLUMN, Code.FEATURE_TYPE, Code.TRANSFORM_FAILED)


@dataclass(frozen=True)
class EvaluationSummary:
    """The results that the step logs.

    Attributes:
        blessed: Whether all gates pass.
        reasons: One sentence for each failed gate, or for each gate if none failed.
        metrics: Values on the test split; None for a metric that has no value. With several labels these are means,
            and `<metric>_<label>` holds each label's value.
        roc: Points (false positive rate, true positive rate, threshold), at most 200. Empty if a class is missing or
            there are several labels.
        confusion: `[[tn, fp], [fn, tp]]`; empty with several labels.
        fingerprint: Fingerprint of the evaluation's content.
    """

    blessed: bool
    reasons: list[str]
    metrics: dict[str, float | None]
    roc: list[tuple[float, float, float]]
    confusion: list[list[int]]
    fingerprint: str


@dataclass(frozen=True)
class _Baseline:
    """The baseline: the published model's scores of the test rows for one label.

    Attributes:
        scores: [rows] float64; None if there are none.
        skipped: Why there are none; None also if no published model predicts the label.
    """

    scores: np.ndarray | None = None
    skipped: str | None = None


def evaluate(
    spec: EvaluateSpec,
    examples: str,
    transformed: str,
    model: str,
    *,
    evaluation: str,
    report: str,
    progress: Progress,
) -> EvaluationSummary:
    """Measures a model on the valid and test splits and checks the gates on test, for each label.

    Args:
        spec: Slices, gates, bootstrap and the baseline.
        examples: Folder of the raw examples, which are sliced and scored by the baseline.
        transformed: Folder of the transformed examples, with the same rows in the same order.
        model: Folder of the model.
        evaluation: Folder to write: `metrics.json`, `report.html`, and `BLESSED` or `NOT_BLESSED` with the reasons.
        report: File for a copy of the page.
        progress: Receives phases and slices.

    Raises:
        TidemillError: `empty-split` if test has no rows; `missing-column` if a slice's column is missing;
            `training-diverged` if a score is not a number; `incomplete-artifact`, also for a model of other labels.
    """
    raw, data, member = Dataset(examples), Dataset(transformed), load_model(model)
    for split in ("valid", "test"):
        if raw.rows(split) != data.rows(split):
            got = f"{data.rows(split)} rows of {split}, but {raw.rows(split)} in the examples"
            raise artifact.incomplete_error(transformed, got, "run preprocess again on these examples")
    if list(member.layout.labels) != spec.labels:
        got = f"a model of {', '.join(member.layout.labels)}, not of {', '.join(spec.labels)}"
        raise artifact.incomplete_error(model, got, "train the model again")
    if not data.rows("test"):
        want = "give the test split rows; they decide whether a model is blessed"
        raise TidemillError(Code.EMPTY_SPLIT, "test", "no rows", want)
    slicings = slice_rows(raw, "test", spec.evaluation.slices, spec.evaluation.max_slices)
    scores = {}
    for split in ("valid", "test"):
        progress.phase(f"score {split}")
        scores[split] = _check_scores(member.predict(data, split), data.rows(split), split)
    labels = {split: read_labels(data, split, spec.labels).astype(np.int8) for split in ("valid", "test")}
    baselines = dict.fromkeys(spec.labels, _Baseline())
    if spec.baseline is not None:
        progress.phase("score the baseline")
        baselines = _score_baseline(spec.baseline, raw, spec.labels)
    progress.phase("metrics")
    shares = read_labels(data, "train", spec.labels).mean(axis=0) if data.rows("train") else [None] * len(spec.labels)
    by_label = {}
    for i, label in enumerate(spec.labels):
        y = {split: each[:, i] for split, each in labels.items()}
        p = {split: each[:, i] for split, each in scores.items()}
        by_label[label] = _measure_label(spec, y, p, baselines[label], shares[i], slicings, progress)
    fingerprint = artifact.read_manifest(model)["metadata"]["model_fingerprint"]
    document = _document(spec, member.name, member.family, fingerprint, by_label)
    document["warnings"] = ModelDocument.read(Path(model)).warnings()
    progress.phase("report")
    page = evaluation_page.render(document, evaluation_page.read_model(model))
    content = evaluation_artifact.write(evaluation, document, page)
    storage.write_text(report, page)
    return _summary(document, content)


def _check_scores(scores: np.ndarray, rows: int, split: str) -> np.ndarray:
    bad = rows - int(np.isfinite(scores).all(axis=1).sum())
    if bad:
        want = "lower the learning rate, or look for extreme feature values"
        raise TidemillError(Code.TRAINING_DIVERGED, split, f"{bad} of {rows} scores that are not numbers", want)
    return np.asarray(scores, np.float64)


def _score_baseline(uri: str, raw: Dataset, labels: Sequence[str]) -> dict[str, _Baseline]:
    """Scores the raw test rows with the published model and returns the scores of each label.

    Labels are matched by name. If both models have only one label, they are compared whatever its name is.
    """
    from tidemill.serving.scorer import Scorer

    with Scorer(uri) as scorer:
        try:
            scores = np.asarray(scorer.score_split(raw, "test"), np.float64)
        except TidemillError as error:
            if error.code not in _NOT_COMPARABLE:
                raise
            skipped = f"the published model cannot score these examples ({error.where}: {error.got})"
            return dict.fromkeys(labels, _Baseline(skipped=skipped))
        known = list(labels) if len(labels) == len(scorer.outputs) == 1 else scorer.labels
    baselines = {}
    for label in labels:
        if label not in known:
            baselines[label] = _Baseline()
            continue
        column = scores[:, known.index(label)]
        bad = len(column) - int(np.isfinite(column).sum())
        skipped = f"{bad} of its {len(column)} scores are not numbers"
        baselines[label] = _Baseline(skipped=skipped) if bad else _Baseline(column)
    return baselines


def _measure_label(
    spec: EvaluateSpec,
    labels: Mapping[str, np.ndarray],
    scores: Mapping[str, np.ndarray],
    baseline: _Baseline,
    base_rate: float | None,
    slicings: Sequence[Sequence[Slice]],
    progress: Progress,
) -> LabelMetrics:
    """Returns the measurements of one label.

    Args:
        spec: The step's spec.
        labels: [rows] int8, by split.
        scores: [rows] float64, by split.
        baseline: The published model's scores of test.
        base_rate: The share of label 1 in train. None: the dataset has no train split.
        slicings: The slices of test, for each entry of `evaluation.slices`.
        progress: Receives the number of slices done.
    """
    settings, y, p = spec.evaluation, labels["test"], scores["test"]
    test = measure_rows(y, p, baseline.scores, settings)
    if compared := test.get("baseline"):
        test["baseline"] = {"uri": spec.baseline or "", **compared}
    elif baseline.skipped is not None:
        test["baseline"] = {"uri": spec.baseline or "", "skipped": baseline.skipped}
    total, done = sum(len(slices) for slices in slicings), 0
    measured: list[Slicing] = []
    for columns, slices in zip(settings.slices, slicings, strict=True):
        measured.append({"columns": list(columns), "slices": []})
        for each in slices:
            published = None if baseline.scores is None else baseline.scores[each.rows]
            name = f"{'/'.join(columns)}:{each.name}"
            result = measure_rows(y[each.rows], p[each.rows], published, settings, name)
            values = None if each.values is None else list(each.values)
            measured[-1]["slices"].append({"name": each.name, "values": values, **result})
            done += 1
            progress.rows(done, total, "slices", unit="slices")
    gates = check_gates(settings.gates, test, measured)
    if settings.better_than_base_rate and base_rate is not None:
        gates.append(check_base_rate(float(base_rate), y, test))
    without_intervals = settings.model_copy(update={"bootstrap": _NO_BOOTSTRAP})
    valid = measure_rows(labels["valid"], scores["valid"], None, without_intervals)
    published_curves = None if baseline.scores is None else _curves(y, baseline.scores)
    return {
        "objective": {"metric": settings.objective, "value": valid["metrics"][settings.objective]["value"]},
        "valid": {"rows": valid["rows"], "positives": int(labels["valid"].sum()), "metrics": valid["metrics"]},
        "test": test,
        "slices": measured,
        "confusion": metric_values.confusion(y, p, settings.threshold),
        "thresholds": thresholds.count(y, p, settings.threshold),
        "curves": {"model": _curves(y, p), "baseline": published_curves},
        "gates": gates,
    }


def _document(
    spec: EvaluateSpec, name: str, family: str, fingerprint: str, by_label: Mapping[str, LabelMetrics]
) -> EvaluationDocument:
    """Returns the content of `metrics.json`. The model is blessed if every gate passes for every label."""
    several = len(by_label) > 1
    checks = [
        (f"for {label}: " if several else "", check) for label, part in by_label.items() for check in part["gates"]
    ]
    failed = [prefix + check["text"] for prefix, check in checks if not check["holds"]]
    reasons = failed or [prefix + check["text"] for prefix, check in checks] or ["the experiment has no gates"]
    settings = spec.evaluation
    head = {
        "format": 1,
        "experiment": spec.experiment,
        **({"labels": spec.labels} if several else {"label": spec.labels[0]}),
        "name": name,
        "family": family,
        "model_fingerprint": fingerprint,
        "threshold": settings.threshold,
        "confidence": settings.bootstrap.confidence,
        "resamples": settings.bootstrap.resamples,
    }
    if several:
        valid = _means("valid", by_label)
        objective = {"metric": settings.objective, "value": valid["metrics"][settings.objective]["value"]}
        body = {"objective": objective, "valid": valid, "test": _means("test", by_label), "by_label": by_label}
    else:
        (body,) = by_label.values()
    return cast(EvaluationDocument, {**head, **body, "blessed": not failed, "reasons": reasons})


def _means(split: Literal["valid", "test"], by_label: Mapping[str, LabelMetrics]) -> SplitMetrics:
    """Returns the means of all metrics over labels. A mean has no value if the metric of one label has none."""
    means: dict[str, Estimate] = {}
    for metric in METRICS:
        means[metric] = {"value": None, "low": None, "high": None}
        estimates = {label: part[split]["metrics"][metric] for label, part in by_label.items()}
        values = [estimate["value"] for estimate in estimates.values() if estimate["value"] is not None]
        if len(values) == len(estimates):
            means[metric]["value"] = mean(metric, values)
        else:
            label = next(label for label, estimate in estimates.items() if estimate["value"] is None)
            means[metric]["reason"] = f"{label}: {estimates[label].get('reason')}"
    return {"rows": next(iter(by_label.values()))[split]["rows"], "metrics": means}


_NO_BOOTSTRAP = Evaluation().bootstrap.model_copy(update={"resamples": 0})


def measure_rows(
    labels: np.ndarray, scores: np.ndarray, baseline: np.ndarray | None, settings: Evaluation, name: str = ""
) -> ComparedMetrics:
    """Returns the metrics of some rows with their intervals.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
        baseline: [rows], the published model's probabilities; None if there are none.
        settings: Threshold and bootstrap.
        name: Name of the slice, which seeds the resampling. Defaults to the name of all rows.
    """
    rows, positives = len(labels), int(labels.sum())
    values = metric_values.measure(metric_values.group(labels, scores, settings.threshold))
    if baseline is None:
        intervals = bootstrap.intervals(labels, scores, settings.threshold, settings.bootstrap, name)
        estimates = _estimates(rows, positives, values, intervals)
        return {"rows": rows, "positives": positives, "metrics": estimates, "baseline": None}
    intervals, published_intervals, gain_intervals = bootstrap.paired_intervals(
        labels, scores, baseline, settings.threshold, settings.bootstrap, name
    )
    published = metric_values.measure(metric_values.group(labels, baseline, settings.threshold))
    gains = {m: goodness(m, values[m]) - goodness(m, published[m]) for m in METRICS}
    return {
        "rows": rows,
        "positives": positives,
        "metrics": _estimates(rows, positives, values, intervals),
        "baseline": {
            "metrics": _estimates(rows, positives, published, published_intervals),
            "gain": _estimates(rows, positives, gains, gain_intervals),
        },
    }


def _estimates(
    rows: int,
    positives: int,
    values: Mapping[str, np.ndarray],
    intervals: Mapping[str, bootstrap.Interval | None],
) -> dict[str, Estimate]:
    estimates: dict[str, Estimate] = {}
    for metric in METRICS:
        low, high = intervals[metric] or (None, None)
        reason = metric_values.undefined(metric, rows, positives)
        estimates[metric] = {"value": None if reason else float(values[metric]), "low": low, "high": high}
        if reason:
            estimates[metric]["reason"] = reason
    return estimates


def _curves(labels: np.ndarray, scores: np.ndarray) -> Curves:
    exact = metric_values.group(labels, scores)
    return {
        "roc": curves.roc(exact),
        "precision_recall": curves.precision_recall(exact),
        "calibration": curves.calibration(labels, scores),
        "histogram": curves.histogram(labels, scores),
    }


def _summary(document: EvaluationDocument, fingerprint: str) -> EvaluationSummary:
    values = {name: estimate["value"] for name, estimate in document["test"]["metrics"].items()}
    for label, part in document.get("by_label", {}).items():
        values |= {f"{name}_{label}": estimate["value"] for name, estimate in part["test"]["metrics"].items()}
    return EvaluationSummary(
        blessed=document["blessed"],
        reasons=document["reasons"],
        metrics=values,
        roc=document["curves"]["model"]["roc"] if "curves" in document else [],
        confusion=document.get("confusion", []),
        fingerprint=fingerprint,
    )
