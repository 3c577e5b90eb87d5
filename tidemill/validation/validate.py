"""The validate step: measures the examples, writes the results, and then checks the gates."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2

from tidemill import fingerprint, storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import MALFORMED, NULL_WORDS, Dataset
from tidemill.errors import Code, TidemillError
from tidemill.given_schema import schema_text
from tidemill.runtime import Progress
from tidemill.steps.validate import ValidateSpec
from tidemill.validation import anomalies as anomalies_
from tidemill.validation import columns as columns_
from tidemill.validation import (
    comparators,
    domain_counts,
    drift,
    failures,
    leakage,
    lost_values,
    outliers,
    page,
    scan,
    unseen,
)
from tidemill.validation import schema as schemas
from tidemill.validation import statistics as stats
from tidemill.validation.columns import ExampleColumn
from tidemill.validation.domain_counts import DomainRequests
from tidemill.validation.drift import Distance
from tidemill.validation.statistics import ExtraCounts, SplitStatistics


@dataclass(frozen=True)
class ValidationSummary:
    """Summary of a validation that passed all gates.

    Attributes:
        anomalies: Number of anomalies, all of them warnings.
        unseen: The largest share of rows with a value that train does not contain, by feature, if it is notable.
        outliers: Features whose outliers squeeze their other values.
        notes: What to know about the data, as sentences: `unseen`, `outliers`, and `lost values`, which a model does
            not get as they are. Kinds without a sentence are absent.
        drifted: Features whose distance exceeds the threshold of `validation.drift`, or 0.1 without a threshold.
        strongest: Area under the ROC curve of the ten features that predict a label best by themselves, the best first.
        fingerprint: Fingerprint of the statistics, the schema and the anomalies.
    """

    anomalies: int
    unseen: dict[str, float]
    outliers: list[str]
    notes: dict[str, list[str]]
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

    Writes all outputs before it raises the error of a gate, so that the report explains the failure.

    Args:
        spec: The step's spec.
        examples: Folder of a `Dataset` with the split train and any others.
        statistics: Folder to write: `Split-<name>/FeatureStats.pb`.
        schema: Folder to write: only `schema.pbtxt`, the given or the inferred schema.
        anomalies: Folder to write: `Split-<name>/SchemaDiff.pb` and `anomalies.json`.
        report: HTML file to write.
        progress: Reports the progress.

    Raises:
        TidemillError: `incomplete-artifact`, `empty-split` (train), `missing-column`, `invalid-value` or `unsupported`
            (the schema), or `unreadable-file` (the previous model's statistics) before anything is written. Afterwards
            the first of `label-type`, `label-null`, `label-one-class`, `feature-all-null`, `leakage`, `schema-anomaly`,
            `drift`, `unseen-values` and `dropped-tokens`.
    """
    dataset = Dataset(examples)
    if not dataset.rows("train"):
        want = "select more rows in the source, or change split.fractions"
        raise TidemillError(Code.EMPTY_SPLIT, "split", "no rows in train", want, {"split": "train"})
    given = schema_text.parse(spec.schema_text) if spec.schema_text is not None else None
    environment = schema_text.environment(given, spec.environment) if given is not None else None
    flat = schema_text.flatten(given, environment) if given is not None else None
    columns = columns_.resolve(spec, dataset.schema(), flat)
    scratch = Path(statistics).absolute().parent
    scratch.mkdir(parents=True, exist_ok=True)
    with scan.connect(scratch) as connection:
        results = _measure(connection, dataset, spec, columns, flat, environment, progress)
    progress.phase("report")
    stats.write(statistics, results.splits)
    schemas.write(schema, given or results.schema)
    measured = {name: _measured(name, results) for name in results.splits}
    paths = {column.name: column.steps for column in columns}
    anomalies_.write(anomalies, results.splits, results.anomalies, given or results.schema, measured, paths)
    errors = failures.find(
        results.splits["train"].proto,
        columns,
        results.anomalies,
        results.leakage,
        results.distances,
        results.unseen,
        [each for each in results.lost if each.is_dropped and each.share > spec.max_dropped_tokens],
    )
    storage.write_text(report, page.render(results, spec, errors))
    if errors:
        raise errors[0]
    return ValidationSummary(
        anomalies=len(results.anomalies),
        unseen={u.feature: u.share for u in reversed(results.unseen) if u.is_notable},
        outliers=[each.feature for each in results.outliers],
        notes=_notes(results),
        drifted=sorted({d.feature for d in results.distances if d.is_notable}),
        strongest=_strongest(results.leakage.values()),
        fingerprint=fingerprint.of_json(
            [
                artifact.read_manifest(statistics)["fingerprint"],
                fingerprint.of_file(Path(schema) / schemas.FILE),
                artifact.read_manifest(anomalies)["fingerprint"],
            ]
        ),
    )


def _notes(results: page.Measurements) -> dict[str, list[str]]:
    notes = {
        "unseen": [each.sentence() for each in results.unseen if each.is_notable],
        "outliers": [str(each) for each in results.outliers],
        "lost values": [each.text for each in results.lost],
    }
    return {kind: texts for kind, texts in notes.items() if texts}


def _measure(
    connection: duckdb.DuckDBPyConnection,
    dataset: Dataset,
    spec: ValidateSpec,
    columns: list[ExampleColumn],
    given: schema_pb2.Schema | None,
    environment: str | None,
    progress: Progress,
) -> page.Measurements:
    """Computes statistics, schema, anomalies, drift and leakage. Checks no gate."""
    features = [column for column in columns if column.role == "feature"]
    previous = drift.load_previous(spec.previous) if spec.previous else None
    previous_edges = drift.bin_edges(previous, features) if previous else {}
    extra = ExtraCounts(
        {name: {drift.PREVIOUS: edges} for name, edges in previous_edges.items()},
        domains=domain_counts.requests(given) if given is not None else DomainRequests(),
    )
    train = stats.compute(connection, dataset, "train", columns, extra, progress)
    schema = given if given is not None else schemas.infer(train.proto, columns)
    train_edges = drift.bin_edges(train.proto, features)
    extra = ExtraCounts(
        {name: {drift.TRAIN_BINS: edges} for name, edges in train_edges.items()},
        extra.chart_edges,
        domain_counts.requests(schema),
        extra.train_values,
    )
    splits = {"train": train}
    for name in dataset.splits:
        if name != "train":
            splits[name] = stats.compute(connection, dataset, name, columns, extra, progress)
    protos = {name: split.proto for name, split in splits.items()}
    comparisons = comparators.compare(given, environment, protos, previous) if given is not None else []
    anomalies = anomalies_.find(
        splits,
        schema,
        columns,
        given=given is not None,
        environment=environment,
        previous=previous,
        comparisons=comparisons,
    )
    broken = {a.column for a in anomalies if a.severity == "ERROR"}
    reports = {}
    for label in (column for column in columns if column.role == "label"):
        reports[label.name] = (
            leakage.LeakageReport(untested="the label is broken")
            if label.name in broken
            else leakage.measure(connection, dataset, label, columns, spec.split_column, spec.leakage, progress)
        )
    return page.Measurements(
        columns=columns,
        splits=splits,
        chart_edges=extra.chart_edges,
        schema_given=given is not None,
        schema=schema,
        anomalies=anomalies,
        leakage=reports,
        distances=_distances(splits, previous, features, spec),
        comparisons=comparisons,
        unseen=unseen.measure(splits, columns, spec.unseen),
        outliers=outliers.find(train.proto, columns, spec.features),
        lost=lost_values.find(
            train.lost,
            columns,
            spec.features,
            dataset.metadata.get(NULL_WORDS, {}),
            {name: count / train.proto.num_examples for name, count in train.infinite.items()},
        ),
        previous=spec.previous,
        previous_missing=bool(spec.previous) and previous is None,
        malformed=dataset.metadata.get(MALFORMED, {}),
    )


def _measured(split: str, results: page.Measurements) -> list[anomalies_pb2.DriftSkewInfo]:
    """Returns the distances of one split in TFX's form. Those from the previous model belong to train."""
    other = drift.PREVIOUS if split == "train" else split
    infos = drift.to_proto([d for d in results.distances if d.other == other])
    return infos + comparators.to_proto([c for c in results.comparisons if c.other == other])


def _strongest(reports: Iterable[leakage.LeakageReport]) -> dict[str, float]:
    best: dict[str, float] = {}
    for strength in (each for report in reports for each in report.alone):
        best[strength.feature] = max(strength.auc, best.get(strength.feature, 0.0))
    return dict(sorted(best.items(), key=lambda item: (-item[1], item[0]))[:10])


def _distances(
    splits: dict[str, SplitStatistics],
    previous: statistics_pb2.DatasetFeatureStatistics | None,
    features: list[ExampleColumn],
    spec: ValidateSpec,
) -> list[Distance]:
    train = splits["train"]
    distances: list[Distance] = []
    for name, split in splits.items():
        if name != "train":
            distances += drift.compare(
                train.proto, split.bin_counts, drift.TRAIN_BINS, split.proto, features, name, spec.drift
            )
    if previous is not None:
        distances += drift.compare(
            previous, train.bin_counts, drift.PREVIOUS, train.proto, features, drift.PREVIOUS, spec.drift
        )
    return distances
