"""What stops a run after validation, each as the error that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.errors import Code, TidemillError
from tidemill.validation import statistics
from tidemill.validation.anomalies import Anomaly
from tidemill.validation.columns import Column
from tidemill.validation.drift import Distance
from tidemill.validation.leakage import LeakageReport

_SHOWN = 5


def failures(
    train: statistics_pb2.DatasetFeatureStatistics,
    columns: Sequence[Column],
    anomalies: Sequence[Anomaly],
    leakage: Mapping[str, LeakageReport],
    distances: Sequence[Distance],
) -> list[TidemillError]:
    """The errors of all gates that do not hold, in the order in which they should be mended: the labels, features
    without values, leakage (`leakage` by label), the schema, drift."""
    found = [
        *_label(columns, anomalies),
        *_all_null(train, columns),
        *_leakage(leakage),
        *_schema(columns, anomalies),
        *_drift(distances),
    ]
    return found


def _label(columns: Sequence[Column], anomalies: Sequence[Anomaly]) -> Iterator[TidemillError]:
    labels = [column.name for column in columns if column.role == "label"]
    codes = {
        "label not binary": (Code.LABEL_TYPE, "turn the label into 0 and 1 in the query"),
        "label missing": (Code.LABEL_NULL, "leave out rows without a label in the query"),
        "one class": (Code.LABEL_ONE_CLASS, "take rows with both labels"),
    }
    broken = [a for a in anomalies if a.column in labels and a.severity == "ERROR" and a.short in codes]
    for anomaly in broken:
        code, want = codes[anomaly.short]
        place = f" in {anomaly.split}" if anomaly.split else ""
        got = f"{anomaly.column!r}{place}, where {anomaly.description}"
        yield TidemillError(code, "label" if len(labels) == 1 else "labels", got, want, {"column": anomaly.column})


def _all_null(train: statistics_pb2.DatasetFeatureStatistics, columns: Sequence[Column]) -> Iterator[TidemillError]:
    stats = statistics.by_name(train)
    features = [column.name for column in columns if column.role == "feature"]
    empty = [name for name in features if not statistics.common(stats[name]).num_non_missing]
    if empty:
        got = f"no value in train of {', '.join(map(repr, empty))}"
        yield TidemillError(
            Code.FEATURE_ALL_NULL, "features", got, "remove them or mend the query", {"features": empty}
        )


def _leakage(reports: Mapping[str, LeakageReport]) -> Iterator[TidemillError]:
    for label, report in reports.items():
        if report.leaks:
            given_away = "the label" if len(reports) == 1 else f"the label {label!r}"
            got = f"features that all but give {given_away} away: {', '.join(map(str, report.leaks))}"
            want = "remove them, or list those that are known before the label in validation.leakage.allow"
            details = [{"feature": s.feature, "with": s.partner, "auc": s.auc} for s in report.leaks]
            yield TidemillError(Code.LEAKAGE, "validation.leakage", got, want, {"label": label, "leaks": details})


def _schema(columns: Sequence[Column], anomalies: Sequence[Anomaly]) -> Iterator[TidemillError]:
    errors = [anomaly for anomaly in anomalies if anomaly.severity == "ERROR"]
    if errors:
        more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        got = f"data that contradict the schema: {'; '.join(map(str, errors[:_SHOWN]))}{more}"
        details = [{"column": a.column, "split": a.split, "type": a.type, "description": a.description} for a in errors]
        want = "mend the data or the schema"
        yield TidemillError(Code.SCHEMA_ANOMALY, "validation.schema", got, want, {"anomalies": details})


def _drift(distances: Sequence[Distance]) -> Iterator[TidemillError]:
    beyond = [distance for distance in distances if distance.beyond]
    if beyond:
        got = f"features that drifted: {'; '.join(map(str, beyond))}"
        want = "mend the data, train on newer rows, or raise the thresholds"
        details = [
            {"feature": d.feature, "other": d.other, "distance": d.distance, "threshold": d.threshold} for d in beyond
        ]
        yield TidemillError(Code.DRIFT, "validation.drift", got, want, {"drifted": details})
