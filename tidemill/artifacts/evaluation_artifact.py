"""The evaluation artifact: `metrics.json`, `report.html`, and `BLESSED` or `NOT_BLESSED`.

`EvaluationDocument` is the content of `metrics.json`. `BLESSED` or `NOT_BLESSED` holds the reasons, one per line: the
failed gates, or all gates if none failed. The
manifest's metadata is an `EvaluationFacts`, so that `publish` can choose a member without reading the metrics.
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.metric_definitions import goodness

METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
BLESSED = "BLESSED"
NOT_BLESSED = "NOT_BLESSED"
BASE_RATE_KEY = "evaluation.better_than_base_rate"
"""The experiment's key that the reason of a model names whose log loss is above that of the base rate."""


class Estimate(TypedDict):
    """A metric with its confidence interval. Numbers that do not exist are None."""

    value: float | None
    low: float | None
    high: float | None
    reason: NotRequired[str]
    """Why the metric does not exist; only if `value` is None."""


class SplitMetrics(TypedDict):
    """Metrics of the rows of a split."""

    rows: int
    positives: NotRequired[int]
    """Rows of class 1; absent from means over labels."""
    metrics: dict[str, Estimate]


class Comparison(TypedDict):
    """The comparison with the published model on the same rows: either `skipped`, or `metrics` and `gain`."""

    uri: NotRequired[str]
    """URI of the published version; absent from slices."""
    skipped: NotRequired[str]
    """Why the published model was not scored."""
    metrics: NotRequired[dict[str, Estimate]]
    gain: NotRequired[dict[str, Estimate]]
    """How much better the model is than the published one; positive is better for every metric."""


class ComparedMetrics(SplitMetrics):
    """Metrics of rows of the test split, with the published model's on the same rows."""

    baseline: NotRequired[Comparison | None]
    """None if no published model predicts the label; absent from means over labels."""


class SliceMetrics(ComparedMetrics):
    """Metrics of one slice of the test split."""

    name: str
    values: list[str] | None
    """One value for each column of the slicing; None for `(other)`."""


class Slicing(TypedDict):
    """One entry of `evaluation.slices`: its columns and the metrics of each slice."""

    columns: list[str]
    slices: list[SliceMetrics]


class CalibrationBin(TypedDict):
    """One equal-frequency bin of the scores: mean score, share of class 1 with its interval, and rows."""

    score: float
    share: float
    low: float
    high: float
    rows: int


class Histogram(TypedDict):
    """A histogram of scores: the rows of each class. `edges` has one more entry than `negatives` and `positives`."""

    edges: list[float]
    negatives: list[int]
    positives: list[int]


class ThresholdCounts(TypedDict):
    """The rows of the test split that are positive at each of many thresholds, in ascending order."""

    threshold: list[float]
    """A score of at least the threshold counts as positive."""
    true_positives: list[int]
    """Rows of class 1 that are positive."""
    false_positives: list[int]
    """Rows of class 0 that are positive."""


class Curves(TypedDict):
    """The curves of one model; see `tidemill.evaluation.curves`."""

    roc: list[tuple[float, float, float]]
    precision_recall: list[tuple[float, float, float]]
    calibration: list[CalibrationBin]
    histogram: Histogram


class ModelCurves(TypedDict):
    """The curves of the model, and those of the published model; None if it was not scored."""

    model: Curves
    baseline: Curves | None


class Objective(TypedDict):
    """The metric that ranks members, with its value on the valid split."""

    metric: str
    value: float | None


class GateCheck(TypedDict):
    """The outcome of one condition of a gate; see `tidemill.evaluation.blessing`."""

    metric: str
    condition: str
    wanted: float
    value: float | None
    holds: bool
    text: str


class LabelMetrics(TypedDict):
    """The measurements of one label."""

    objective: Objective
    valid: SplitMetrics
    """Metrics of the valid split, without intervals."""
    test: ComparedMetrics
    slices: list[Slicing]
    confusion: list[list[int]]
    """`[[tn, fp], [fn, tp]]` of the test split."""
    thresholds: NotRequired[ThresholdCounts]
    """Absent from evaluations of earlier versions."""
    curves: ModelCurves
    gates: list[GateCheck]


class EvaluationDocument(TypedDict):
    """The content of `metrics.json`.

    With one label it has `label` and the entries of `LabelMetrics`. With several labels it has `labels` and `by_label`;
    then `objective`, `valid` and `test` hold means over labels, and the other entries of `LabelMetrics` are absent.
    """

    format: int
    experiment: str
    label: NotRequired[str]
    labels: NotRequired[list[str]]
    name: str
    family: str
    model_fingerprint: str
    threshold: float
    confidence: float
    resamples: int
    objective: Objective
    valid: SplitMetrics
    test: ComparedMetrics
    slices: NotRequired[list[Slicing]]
    confusion: NotRequired[list[list[int]]]
    thresholds: NotRequired[ThresholdCounts]
    curves: NotRequired[ModelCurves]
    gates: NotRequired[list[GateCheck]]
    by_label: NotRequired[dict[str, LabelMetrics]]
    blessed: bool
    reasons: list[str]
    warnings: NotRequired[list[str]]
    """What to know about the training. Absent from evaluations of earlier versions."""


@dataclass(frozen=True)
class EvaluationFacts:
    """The metadata of an evaluation's manifest.

    Attributes:
        name: The member's name.
        family: The member's family.
        model_fingerprint: Fingerprint of the evaluated model.
        blessed: Whether all gates pass.
        reasons: One sentence for each failed gate, or for each gate if none failed.
        objective: The metric that ranks members.
        objective_value: Its value on the valid split; None if it does not exist.
    """

    name: str
    family: str
    model_fingerprint: str
    blessed: bool
    reasons: list[str]
    objective: str
    objective_value: float | None

    @classmethod
    def of(cls, document: EvaluationDocument) -> EvaluationFacts:
        """Returns the metadata for a document."""
        return cls(
            name=document["name"],
            family=document["family"],
            model_fingerprint=document["model_fingerprint"],
            blessed=document["blessed"],
            reasons=document["reasons"],
            objective=document["objective"]["metric"],
            objective_value=document["objective"]["value"],
        )

    def rank(self) -> float:
        """Returns a number that is higher for a better objective; minus infinity if the objective has no value."""
        value = self.objective_value
        return -math.inf if value is None else float(goodness(self.objective, value))


def write(path: str | os.PathLike[str], document: EvaluationDocument, report: str) -> str:
    """Writes the artifact.

    Args:
        path: The artifact's folder.
        document: The content of `metrics.json`.
        report: The HTML of `report.html`.

    Returns:
        The content fingerprint.
    """
    with artifact.write_folder(path, asdict(EvaluationFacts.of(document))) as folder:
        storage.write_json(folder / METRICS_FILE, document)
        verdict = folder / (BLESSED if document["blessed"] else NOT_BLESSED)
        storage.write_text(verdict, "".join(f"{line}\n" for line in document["reasons"]))
        storage.write_text(folder / REPORT_FILE, report)
    return artifact.read_manifest(path)["fingerprint"]


def read_facts(path: str | os.PathLike[str]) -> EvaluationFacts:
    """Checks that the artifact is whole and returns its metadata.

    Raises:
        TidemillError: `incomplete-artifact`.
    """
    return facts_of(artifact.open_folder(path)["metadata"])


def facts_of(metadata: dict[str, Any]) -> EvaluationFacts:
    """Returns the typed metadata of an evaluation's manifest, without other entries."""
    return EvaluationFacts(**{field.name: metadata[field.name] for field in fields(EvaluationFacts)})


def read_document(path: str | os.PathLike[str]) -> EvaluationDocument:
    """Returns the content of `metrics.json`.

    Args:
        path: The artifact's folder, or the folder `tidemill/` of a published version.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    return storage.read_json(Path(path) / METRICS_FILE)


def by_label(document: EvaluationDocument) -> dict[str, LabelMetrics]:
    """Returns the measurements by label; with one label, the document itself."""
    if (parts := document.get("by_label")) is not None:
        return parts
    return {document["label"]: cast(LabelMetrics, document)} if "label" in document else {}
