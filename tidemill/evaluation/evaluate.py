"""The `evaluate` step: metrics of a model, overall and by slice, beside the published model's, and the verdict.

`metrics.json` holds (an *estimate* is `{"value", "low", "high"}` with nulls where the number does not exist, and then
`"reason"`):

    format, experiment, label, name, family, model_fingerprint
    threshold, confidence, resamples
    objective     {"metric", "value"}: on the valid split
    valid         {"rows", "positives", "metrics": {metric: estimate}}; no intervals
    test          {"rows", "positives", "metrics": {metric: estimate}, "baseline": null where no model is published, or
                   {"uri", "skipped": why it could not be scored}, or
                   {"uri", "metrics": {metric: estimate}, "gain": {metric: estimate}}}
    slices        [{"columns", "slices": [{"name", "values", and as `test`, without uri}]}]
    confusion     [[tn, fp], [fn, tp]] on the test split
    curves        {"model": {"roc", "precision_recall", "calibration", "histogram"}, "baseline": the same or null};
                   see `tidemill.evaluation.curves`
    gates         [{"metric", "condition", "wanted", "value", "holds", "text"}]
    blessed, reasons

With several labels there is `labels` for `label`, and `by_label`: for each what stands above from `objective` to
`gates`. In their place are `objective`, `valid` and `test` with means over labels: `{"rows", "metrics": {metric:
estimate}}`, without intervals. The gates must hold for every label.

A gain says by how much the model is better than the baseline, whichever way the metric counts.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.evaluation import bootstrap, curves, gates, metrics, report
from tidemill.evaluation.slices import slice_rows
from tidemill.experiment.evaluation import Evaluation
from tidemill.models import load_model
from tidemill.models.core.inputs import read_labels
from tidemill.runtime import Progress
from tidemill.steps.evaluate import EvaluateSpec

BLESSED, NOT_BLESSED = "BLESSED", "NOT_BLESSED"
METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
_NOT_COMPARABLE = (Code.MISSING_COLUMN, Code.FEATURE_TYPE)
_Baseline = tuple[np.ndarray | None, str | None]
"""Scores [rows] of the published model for a label, or why there are none."""


@dataclass(frozen=True)
class EvaluationSummary:
    """What the step logs.

    Attributes:
        blessed: Whether all gates hold.
        reasons: A sentence for each gate that decided: those that failed, or where none did all of them.
        metrics: Values on the test split, None where one does not exist. With several labels the means, and those of
            each label as `<metric>_<label>`.
        roc: (false positive rate, true positive rate, threshold), at most 200 points; empty without both classes, and
            with several labels.
        confusion: `[[tn, fp], [fn, tp]]`; empty with several labels.
        fingerprint: Of the evaluation's content.
    """

    blessed: bool
    reasons: list[str]
    metrics: dict[str, float | None]
    roc: list[tuple[float, float, float]]
    confusion: list[list[int]]
    fingerprint: str


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
    """Measures a model on the valid and test splits and decides by the gates on test, which must hold for every label,
    whether it is blessed.

    Args:
        spec: Slices, gates, bootstrap and the baseline.
        examples: Folder of the raw examples: slices are made of them, and the baseline scores them.
        transformed: Folder of the transformed examples, with the same rows in the same order.
        model: Folder of the model.
        evaluation: Folder to write: `metrics.json`, `report.html`, and `BLESSED` or `NOT_BLESSED` with the reasons.
        report: The page to write, the same as in the folder.
        progress: Where to report.

    Raises:
        TidemillError: `empty-split` when test has no rows; `missing-column` when a slice's column is not there;
            `training-diverged` when the model gives scores that are not numbers; `incomplete-artifact`, also for a
            model of other labels.
    """
    raw, data, member = Dataset(examples), Dataset(transformed), load_model(model)
    for split in ("valid", "test"):
        if raw.rows(split) != data.rows(split):
            got = f"{data.rows(split)} rows of {split} where the examples have {raw.rows(split)}"
            raise TidemillError(Code.INCOMPLETE_ARTIFACT, transformed, got, "run preprocess again on these examples")
    if list(member.layout.labels) != spec.labels:
        got = f"a model of {', '.join(member.layout.labels)} where {', '.join(spec.labels)} is asked for"
        raise TidemillError(Code.INCOMPLETE_ARTIFACT, model, got, "train the model again")
    if not data.rows("test"):
        raise TidemillError(Code.EMPTY_SPLIT, "test", "no rows", "give the test split rows, they decide about a model")
    slicings = slice_rows(raw, "test", spec.evaluation.slices, spec.evaluation.max_slices)
    scores = {}
    for split in ("valid", "test"):
        progress.phase(f"score {split}")
        scores[split] = _checked(member.predict(data, split), data.rows(split), split)
    labels = {split: read_labels(data, split, spec.labels).astype(np.int8) for split in ("valid", "test")}
    baselines: dict[str, _Baseline] = dict.fromkeys(spec.labels, (None, None))
    if spec.baseline is not None:
        progress.phase("score the baseline")
        baselines = _score_baseline(spec.baseline, raw, spec.labels)
    progress.phase("metrics")
    parts = {}
    for place, label in enumerate(spec.labels):
        y, p = ({split: each[:, place] for split, each in found.items()} for found in (labels, scores))
        parts[label] = _measure(spec, y, p, *baselines[label], slicings, progress)
    document = {
        "format": 1,
        "experiment": spec.experiment,
        **({"label": spec.labels[0]} if len(spec.labels) == 1 else {"labels": spec.labels}),
        "name": member.name,
        "family": member.family,
        "model_fingerprint": artifact.read_manifest(model)["metadata"]["model_fingerprint"],
        **_together(spec.evaluation, parts),
    }
    progress.phase("report")
    return _write(spec, document, model, evaluation, report)


def _checked(scores: np.ndarray, rows: int, where: str) -> np.ndarray:
    bad = rows - int(np.isfinite(scores).all(axis=1).sum())
    if bad:
        got = f"{bad} of {rows} scores that are no numbers"
        want = "lower the learning rate, or look for extreme feature values"
        raise TidemillError(Code.TRAINING_DIVERGED, where, got, want)
    return np.asarray(scores, np.float64)


def _score_baseline(uri: str, raw: Dataset, labels: list[str]) -> dict[str, _Baseline]:
    """Of the raw test rows, by label; none for a label that the published model does not predict. Where both models
    have one label they are compared, whatever it is called."""
    from tidemill.serving.scorer import Scorer

    with Scorer(uri) as scorer:
        try:
            scores = np.asarray(scorer.score_split(raw, "test"), np.float64)
        except TidemillError as error:
            if error.code not in _NOT_COMPARABLE:
                raise
            why = f"the published model cannot score these examples ({error.where}: {error.got})"
            return dict.fromkeys(labels, (None, why))
        known = labels if len(labels) == len(scorer.outputs) == 1 else scorer.labels
    found: dict[str, _Baseline] = {}
    for label in labels:
        if label not in known:
            found[label] = None, None
            continue
        column = scores[:, known.index(label)]
        bad = len(column) - int(np.isfinite(column).sum())
        found[label] = (None, f"{bad} of its {len(column)} scores are no numbers") if bad else (column, None)
    return found


def _measure(spec, labels, scores, baseline, skipped, slicings, progress) -> dict:
    """What there is to say about one label."""
    how, y, p = spec.evaluation, labels["test"], scores["test"]
    test = summarise(y, p, baseline, how)
    if test["baseline"] is not None:
        test["baseline"] = {"uri": spec.baseline, **test["baseline"]}
    elif skipped is not None:
        test["baseline"] = {"uri": spec.baseline, "skipped": skipped}
    total, done, sliced = sum(len(s) for s in slicings), 0, []
    for columns, slices in zip(how.slices, slicings, strict=True):
        rows = []
        for each in slices:
            theirs = None if baseline is None else baseline[each.rows]
            found = summarise(y[each.rows], p[each.rows], theirs, how, f"{'/'.join(columns)}:{each.name}")
            rows.append({"name": each.name, "values": each.values and list(each.values), **found})
            done += 1
            progress.rows(done, total, "slices")
        sliced.append({"columns": list(columns), "slices": rows})
    valid = summarise(labels["valid"], scores["valid"], None, how.model_copy(update={"bootstrap": _NONE}))
    return {
        "objective": {"metric": how.objective, "value": valid["metrics"][how.objective]["value"]},
        "valid": {key: valid[key] for key in ("rows", "positives", "metrics")},
        "test": test,
        "slices": sliced,
        "confusion": metrics.confusion(y, p, how.threshold),
        "curves": {"model": _curves(y, p), "baseline": None if baseline is None else _curves(y, baseline)},
        "gates": [asdict(check) for check in gates.check(how.gates, test)],
    }


def _together(how: Evaluation, parts: dict[str, dict]) -> dict:
    """What `metrics.json` says of all labels."""
    several = len(parts) > 1
    checks = [(f"for {label}: " if several else "", check) for label, part in parts.items() for check in part["gates"]]
    failed = [label + check["text"] for label, check in checks if not check["holds"]]
    reasons = failed or [label + check["text"] for label, check in checks] or ["the experiment sets no gates"]
    if several:
        valid, test = (_means(split, parts) for split in ("valid", "test"))
        objective = {"metric": how.objective, "value": valid["metrics"][how.objective]["value"]}
        measured = {"objective": objective, "valid": valid, "test": test, "by_label": parts}
    else:
        (measured,) = parts.values()
    return {
        "threshold": how.threshold,
        "confidence": how.bootstrap.confidence,
        "resamples": how.bootstrap.resamples,
        **measured,
        "blessed": not failed,
        "reasons": reasons,
    }


def _means(split: str, parts: dict[str, dict]) -> dict:
    estimates = {}
    for metric in metrics.METRICS:
        each = {label: part[split]["metrics"][metric] for label, part in parts.items()}
        estimates[metric] = {"value": None, "low": None, "high": None}
        if lacking := next((label for label, estimate in each.items() if estimate["value"] is None), None):
            estimates[metric]["reason"] = f"{lacking}: {each[lacking]['reason']}"
        else:
            estimates[metric]["value"] = metrics.mean(metric, [estimate["value"] for estimate in each.values()])
    return {"rows": next(iter(parts.values()))[split]["rows"], "metrics": estimates}


_NONE = Evaluation().bootstrap.model_copy(update={"resamples": 0})


def summarise(
    labels: np.ndarray, scores: np.ndarray, baseline: np.ndarray | None, how: Evaluation, name: str = ""
) -> dict:
    """The metrics of some rows with their intervals.

    Args:
        labels: [rows], 0 or 1.
        scores: [rows], probabilities of class 1.
        baseline: [rows], the published model's probabilities, or None.
        how: Threshold and bootstrap.
        name: Name of the slice, for the random numbers. Defaults to that of all rows.

    Returns:
        `rows`, `positives`, `metrics` and `baseline` as in `metrics.json`.
    """
    rows, positives = len(labels), int(labels.sum())
    own = metrics.measure(metrics.group(labels, scores, how.threshold))
    if baseline is None:
        found = bootstrap.intervals(labels, scores, how.threshold, how.bootstrap, name)
        return _result(rows, positives, own, found, None)
    found, theirs_found, gain_found = bootstrap.paired(labels, scores, baseline, how.threshold, how.bootstrap, name)
    theirs = metrics.measure(metrics.group(labels, baseline, how.threshold))
    gain = {m: metrics.goodness(m, own[m]) - metrics.goodness(m, theirs[m]) for m in metrics.METRICS}
    compared = {
        "metrics": _estimates(rows, positives, theirs, theirs_found),
        "gain": _estimates(rows, positives, gain, gain_found),
    }
    return _result(rows, positives, own, found, compared)


def _result(rows: int, positives: int, values: dict, intervals: dict, baseline: dict | None) -> dict:
    estimates = _estimates(rows, positives, values, intervals)
    return {"rows": rows, "positives": positives, "metrics": estimates, "baseline": baseline}


def _estimates(rows: int, positives: int, values: dict, intervals: dict) -> dict[str, dict]:
    result = {}
    for metric in metrics.METRICS:
        low, high = intervals[metric] or (None, None)
        reason = metrics.undefined(metric, rows, positives)
        result[metric] = {"value": None if reason else float(values[metric]), "low": low, "high": high}
        if reason:
            result[metric]["reason"] = reason
    return result


def _curves(labels: np.ndarray, scores: np.ndarray) -> dict:
    cells = metrics.group(labels, scores)
    return {
        "roc": curves.roc(cells),
        "precision_recall": curves.precision_recall(cells),
        "calibration": curves.calibration(labels, scores),
        "histogram": curves.histogram(labels, scores),
    }


def _write(spec: EvaluateSpec, document: dict, model: str, evaluation: str, page: str) -> EvaluationSummary:
    metadata = {key: document[key] for key in ("name", "family", "model_fingerprint", "blessed", "reasons")}
    metadata |= {"objective": spec.evaluation.objective, "objective_value": document["objective"]["value"]}
    with artifact.write_folder(evaluation, metadata) as folder:
        storage.write_json(folder / METRICS_FILE, document)
        verdict = folder / (BLESSED if document["blessed"] else NOT_BLESSED)
        verdict.write_text("".join(f"{line}\n" for line in document["reasons"]), encoding="utf-8")
        html = report.render(document, report.read_model(model))
        (folder / REPORT_FILE).write_text(html, encoding="utf-8")
    _copy(Path(evaluation) / REPORT_FILE, Path(page))
    values = {name: estimate["value"] for name, estimate in document["test"]["metrics"].items()}
    for label, part in document.get("by_label", {}).items():
        values |= {f"{name}_{label}": estimate["value"] for name, estimate in part["test"]["metrics"].items()}
    return EvaluationSummary(
        blessed=document["blessed"],
        reasons=document["reasons"],
        metrics=values,
        roc=document["curves"]["model"]["roc"] if "curves" in document else [],
        confusion=document.get("confusion", []),
        fingerprint=artifact.read_manifest(evaluation)["fingerprint"],
    )


def _copy(source: Path, target: Path) -> None:
    """Writes the page beside the artifact under a temporary name and renames it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.copyfile(source, partial)
    os.replace(partial, target)
