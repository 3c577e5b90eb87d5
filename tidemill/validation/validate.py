"""The validate step: looks at the examples, writes down what it saw, and only then judges."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
from tensorflow_metadata.proto.v0 import schema_pb2

from tidemill import fingerprint
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset
from tidemill.errors import Code, TidemillError
from tidemill.runtime import Progress
from tidemill.steps.validate import ValidateSpec
from tidemill.validation import anomalies as anomaly
from tidemill.validation import columns as columns_
from tidemill.validation import drift, gates, leakage, page, scan
from tidemill.validation import schema as schemas
from tidemill.validation import statistics as stats
from tidemill.validation.columns import Column
from tidemill.validation.drift import Distance
from tidemill.validation.statistics import Asked, SplitStatistics


@dataclass(frozen=True)
class ValidationSummary:
    """What a validation found, where nothing stopped the run.

    Attributes:
        anomalies: Number of contradictions to the schema, all of them warnings.
        drifted: Features whose distance exceeds the threshold of `validation.drift`, or 0.1 where there is none.
        strongest: Area under the ROC curve of the ten features that predict a label best alone, the best first.
        fingerprint: Of the statistics, the schema and the anomalies.
    """

    anomalies: int
    drifted: list[str]
    strongest: dict[str, float]
    fingerprint: str


def validate(
    spec: ValidateSpec,
    examples: str | os.PathLike,
    *,
    statistics: str | os.PathLike,
    schema: str | os.PathLike,
    anomalies: str | os.PathLike,
    report: str | os.PathLike,
    progress: Progress,
) -> ValidationSummary:
    """Validates examples.

    All outputs are written before a gate raises, so that the report explains the failure.

    Args:
        spec: The experiment's part.
        examples: A `Dataset` with the split train and any others.
        statistics: Folder to write: `Split-<name>/FeatureStats.pb`.
        schema: Folder to write: `schema.pbtxt`, the given schema or the inferred one.
        anomalies: Folder to write: `SchemaDiff.pb` and `anomalies.json`.
        report: HTML file to write.
        progress: Told how far it is.

    Raises:
        TidemillError: Before anything is written `incomplete-artifact`, `empty-split` (train), `missing-column`,
            `invalid-value` (the schema) or `unreadable-file` (the previous model's statistics); after that, the first
            of `label-type`, `label-null`, `label-one-class`, `feature-all-null`, `leakage`, `schema-anomaly` and
            `drift`.
    """
    dataset = Dataset(examples)
    if not dataset.rows("train"):
        want = "widen the source, or change split.fractions"
        raise TidemillError(Code.EMPTY_SPLIT, "split", "no rows in train", want, {"split": "train"})
    given = schemas.parse(spec.schema_text) if spec.schema_text is not None else None
    columns = columns_.resolve(spec, dataset.schema(), given)
    scratch = Path(statistics).absolute().parent
    scratch.mkdir(parents=True, exist_ok=True)
    with scan.connect(scratch) as connection:
        seen = _look(connection, dataset, spec, columns, given, progress)
    progress.phase("report")
    _write(seen, statistics, schema, anomalies)
    failed = gates.failures(seen.splits["train"].proto, columns, seen.anomalies, seen.leakage, seen.distances)
    _write_text(report, page.render(seen, spec, failed))
    if failed:
        raise failed[0]
    return ValidationSummary(
        anomalies=len(seen.anomalies),
        drifted=sorted({d.feature for d in seen.distances if d.notable}),
        strongest=_strongest(seen.leakage.values()),
        fingerprint=fingerprint.of_json(
            [artifact.read_manifest(p)["fingerprint"] for p in (statistics, schema, anomalies)]
        ),
    )


def _look(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    spec: ValidateSpec,
    columns: list[Column],
    given: schema_pb2.Schema | None,
    progress: Progress,
) -> page.Seen:
    """Everything that is measured; judges nothing."""
    features = [column for column in columns if column.role == "feature"]
    previous = drift.load_previous(spec.previous) if spec.previous else None
    probes = drift.edges_of(previous, features) if previous else {}
    asked = Asked(
        {name: {drift.PREVIOUS: edges} for name, edges in probes.items()},
        domains=schemas.string_domains(given) if given is not None else {},
    )
    train = stats.compute(connection, dataset, "train", columns, asked, progress)
    schema = given if given is not None else schemas.infer(train.proto, columns)
    probes = drift.edges_of(train.proto, features)
    asked = Asked(
        {name: {drift.PROBE: edges} for name, edges in probes.items()},
        asked.shown_edges,
        schemas.string_domains(schema),
    )
    splits = {"train": train}
    for name in dataset.splits:
        if name != "train":
            splits[name] = stats.compute(connection, dataset, name, columns, asked, progress)
    found = anomaly.find(splits, schema, columns, given=given is not None)
    broken = {a.column for a in found if a.severity == "ERROR"}
    strengths = {}
    for label in (column for column in columns if column.role == "label"):
        strengths[label.name] = (
            leakage.LeakageReport(untested="the label is broken")
            if label.name in broken
            else leakage.measure(connection, dataset, label, columns, spec.split_column, spec.leakage, progress)
        )
    return page.Seen(
        columns=columns,
        splits=splits,
        shown_edges=asked.shown_edges,
        schema_given=given is not None,
        schema=schema,
        anomalies=found,
        leakage=strengths,
        distances=_distances(splits, previous, features, spec),
        previous=spec.previous,
        previous_missing=bool(spec.previous) and previous is None,
    )


def _strongest(reports: Iterable[leakage.LeakageReport]) -> dict[str, float]:
    best: dict[str, float] = {}
    for strength in (each for report in reports for each in report.alone):
        best[strength.feature] = max(strength.auc, best.get(strength.feature, 0.0))
    return dict(sorted(best.items(), key=lambda item: (-item[1], item[0]))[:10])


def _distances(
    splits: dict[str, SplitStatistics], previous: object, features: list[Column], spec: ValidateSpec
) -> list[Distance]:
    train, found = splits["train"], []
    for name, split in splits.items():
        if name != "train":
            found += drift.compare(train.proto, split.probes, drift.PROBE, split.proto, features, name, spec.drift)
    if previous is not None:
        found += drift.compare(
            previous, train.probes, drift.PREVIOUS, train.proto, features, drift.PREVIOUS, spec.drift
        )
    return found


def _write(seen: page.Seen, statistics_path: object, schema_path: object, anomalies_path: object) -> None:
    stats.write(statistics_path, seen.splits)
    schemas.write(schema_path, seen.schema)
    anomaly.write(anomalies_path, seen.anomalies, seen.schema, drift.to_proto(seen.distances))


def _write_text(path: str | os.PathLike, text: str) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
