"""The failures of validation: errors that stop the run, in the order in which they are reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tensorflow_metadata.proto.v0 import statistics_pb2

from tidemill.duckdb_session import plain_name
from tidemill.errors import Code, TidemillError
from tidemill.validation import statistics
from tidemill.validation.anomalies import Anomaly
from tidemill.validation.charts import percent
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.drift import Distance
from tidemill.validation.leakage import LeakageReport
from tidemill.validation.lost_values import LostValues
from tidemill.validation.unseen import UnseenShare

_SHOWN = 5


def find(
    train: statistics_pb2.DatasetFeatureStatistics,
    columns: Sequence[ExampleColumn],
    anomalies: Sequence[Anomaly],
    leakage: Mapping[str, LeakageReport],
    distances: Sequence[Distance],
    unseen: Sequence[UnseenShare],
    dropped: Sequence[LostValues],
) -> list[TidemillError]:
    """Returns the errors of all gates that fail, in the order in which a user should correct them.

    The order is: labels, features without values, leakage, schema, drift, unseen values, dropped tokens.

    Args:
        train: Statistics of train.
        columns: From `columns.resolve`.
        anomalies: From `anomalies.find`.
        leakage: Leakage reports by label.
        distances: From `drift.compare`.
        unseen: From `unseen.measure`.
        dropped: The features of which a vocabulary drops more tokens than is tolerated.
    """
    return [
        *_broken_labels(columns, anomalies),
        *_all_null_features(train, columns),
        *_leakage(leakage),
        *_schema_anomalies(anomalies),
        *_drift(distances),
        *_unseen(unseen),
        *_dropped(dropped),
    ]


def _broken_labels(columns: Sequence[ExampleColumn], anomalies: Sequence[Anomaly]) -> Iterator[TidemillError]:
    labels = [column.name for column in columns if column.role == "label"]
    codes = {
        "label not binary": (Code.LABEL_TYPE, "convert the label to 0 and 1 in the query"),
        "label missing": (Code.LABEL_NULL, "exclude rows without a label in the query"),
        "one class": (Code.LABEL_ONE_CLASS, "select rows with both labels"),
    }
    broken = [a for a in anomalies if a.column in labels and a.severity == "ERROR" and a.short in codes]
    for anomaly in broken:
        code, want = codes[anomaly.short]
        split = f" in {anomaly.split}" if anomaly.split else ""
        got = f"{anomaly.column!r}{split}, where {anomaly.description}"
        yield TidemillError(code, "label" if len(labels) == 1 else "labels", got, want, {"column": anomaly.column})


def _all_null_features(
    train: statistics_pb2.DatasetFeatureStatistics, columns: Sequence[ExampleColumn]
) -> Iterator[TidemillError]:
    stats = statistics.by_name(train)
    features = [column.name for column in columns if column.role == "feature"]
    empty = [name for name in features if not statistics.common(stats[name]).num_non_missing]
    if empty:
        got = f"features without any value in train: {', '.join(map(repr, empty))}"
        want = "remove them, or correct the query"
        yield TidemillError(Code.FEATURE_ALL_NULL, "features", got, want, {"features": empty})


def _leakage(reports: Mapping[str, LeakageReport]) -> Iterator[TidemillError]:
    for label, report in reports.items():
        if report.leaks:
            predicted = "the label" if len(reports) == 1 else f"the label {label!r}"
            got = f"features that predict {predicted} implausibly well: {', '.join(map(str, report.leaks))}"
            want = "remove them, or list those that are known before the label in validation.leakage.allow"
            details = [{"feature": s.feature, "with": s.partner, "auc": s.auc} for s in report.leaks]
            yield TidemillError(Code.LEAKAGE, "validation.leakage", got, want, {"label": label, "leaks": details})


def _schema_anomalies(anomalies: Sequence[Anomaly]) -> Iterator[TidemillError]:
    errors = [anomaly for anomaly in anomalies if anomaly.severity == "ERROR"]
    if errors:
        more = f" and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        got = f"data that contradicts the schema: {'; '.join(map(str, errors[:_SHOWN]))}{more}"
        details = [{"column": a.column, "split": a.split, "type": a.type, "description": a.description} for a in errors]
        want = "correct the data or the schema"
        yield TidemillError(Code.SCHEMA_ANOMALY, "validation.schema", got, want, {"anomalies": details})


def _drift(distances: Sequence[Distance]) -> Iterator[TidemillError]:
    drifted = [distance for distance in distances if distance.exceeds_threshold]
    if drifted:
        got = f"features that drifted: {'; '.join(map(str, drifted))}"
        want = "correct the data, train on newer rows, or raise the thresholds"
        details = [
            {"feature": d.feature, "other": d.other, "distance": d.distance, "threshold": d.threshold} for d in drifted
        ]
        yield TidemillError(Code.DRIFT, "validation.drift", got, want, {"drifted": details})


def _unseen(shares: Sequence[UnseenShare]) -> Iterator[TidemillError]:
    if over := [share for share in shares if share.exceeds_threshold]:
        got = f"features with values that train does not contain: {'; '.join(map(str, over))}"
        want = "remove them, split the rows in another way, train on newer rows, or raise the threshold"
        details = [{"feature": u.feature, "split": u.split, "share": u.share, "threshold": u.threshold} for u in over]
        yield TidemillError(Code.UNSEEN_VALUES, "validation.unseen", got, want, {"unseen": details})


def _dropped(features: Sequence[LostValues]) -> Iterator[TidemillError]:
    if features:
        shares = ", ".join(f"{each.column} ({percent(each.share)} of its values)" for each in features)
        got = f"features with line breaks, whose tokens a vocabulary drops: {shares}"
        want = f"replace the line breaks in the query: replace({plain_name(features[0].column)}, chr(10), ' ')"
        details = {"features": {each.column: each.share for each in features}}
        yield TidemillError(Code.DROPPED_TOKENS, "validation.max_dropped_tokens", got, want, details)
