"""The preprocess step: writes the transform graph and the transformed examples."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill import storage
from tidemill.artifacts import artifact
from tidemill.artifacts.examples import Dataset, finish_dataset
from tidemill.errors import Code, TidemillError
from tidemill.experiment.features import raw_column_names
from tidemill.given_schema import schema_text
from tidemill.runtime import Progress
from tidemill.steps.preprocess import PreprocessSpec
from tidemill.transform import module_function, text_numbers
from tidemill.transform.engine import Engine, open_engine, uses_beam
from tidemill.transform.features_function import FeaturesFunction, feature_columns
from tidemill.transform.graph import TRANSFORM_FN, TransformGraph
from tidemill.transform.raw import PreprocessingFn, RawColumn, all_null, raw_columns
from tidemill.transform.transformed import transformed_schema

if TYPE_CHECKING:
    from tensorflow_metadata.proto.v0 import schema_pb2

SCHEMA = "schema.pbtxt"


@dataclass(frozen=True)
class PreprocessSummary:
    """The result of the step: rows by split, number of features, content fingerprint of the transformed examples, and
    by kind what to know about the data."""

    rows: dict[str, int]
    features: int
    fingerprint: str
    notes: dict[str, list[str]]


def preprocess(
    spec: PreprocessSpec,
    examples: str,
    schema: str,
    *,
    transform_graph: str,
    transformed: str,
    progress: Progress,
    root: str | None = None,
    engine: Engine | None = None,
) -> PreprocessSummary:
    """Analyzes the train split with TensorFlow Transform and transforms all splits.

    Args:
        spec: The features or the transform module, the labels, and the engine.
        examples: Folder of the raw rows, a `Dataset`.
        schema: Folder with `schema.pbtxt`.
        transform_graph: Folder to write the transform graph to, see `TransformGraph`.
        transformed: Folder to write the transformed examples to: a `Dataset` with the splits, shards and row order of
            the examples; ids as int32, numbers and labels as float32. Its metadata holds `labels`, `features` and
            `transform_fingerprint`.
        progress: Reports the progress of the step.
        root: URI of the run's root folder. Required if the spec sets `analyzer_cache`.
        engine: The engine. Defaults to the one that the spec selects.

    Raises:
        TidemillError: `missing-column`, `feature-type`, `feature-all-null`, `empty-split`, `label-null`, `label-type`,
            `leakage`, `transform-failed`, `unsupported`, `missing-package`, `invalid-value`, `missing-file` or
            `incomplete-artifact`. Then neither folder exists.
    """
    data = Dataset(examples)
    if data.rows("train") == 0:
        raise TidemillError(Code.EMPTY_SPLIT, "train", "no rows", "change the split so that train has rows")
    raw_schema = _read_schema(schema)
    function, columns, order = _preprocessing_fn(spec, data, raw_schema)
    folders = _write_both(transform_graph, transformed)
    user_errors = module_function.user_errors(spec.transform_module, data.check_bytes)
    with _analyzer_cache(spec, data, root) as analyzer_cache, folders as (graph_folder, rows_folder), user_errors:
        engine = engine or open_engine(spec, data, analyzer_cache)
        from tidemill.transform.canonical import canonicalize
        from tidemill.transform.describe import describe

        progress.phase("analyze")
        with artifact.write_folder(graph_folder) as folder:
            engine.analyze(function, columns, data, folder, progress)
            canonicalize(folder / TRANSFORM_FN)
            describe(folder, spec.labels, columns, order, raw_schema)
        graph = TransformGraph(graph_folder)
        _refuse_unknown_labels(graph.given_labels, data)
        progress.phase("transform")
        rows_folder.mkdir(parents=True)
        engine.transform(graph, data, rows_folder, progress)
        names = {name: [file.name for file in split.files] for name, split in data.splits.items()}
        metadata = {"labels": spec.labels, "features": graph.features, "transform_fingerprint": graph.fingerprint}
        fingerprint = finish_dataset(rows_folder, transformed_schema(graph), names, metadata)
        lost = _lost_integers(graph, data) if spec.transform_module is not None else []
    rows = {name: split.rows for name, split in data.splits.items()}
    return PreprocessSummary(rows, len(graph.features), fingerprint, {"lost values": lost} if lost else {})


def _preprocessing_fn(
    spec: PreprocessSpec, data: Dataset, raw_schema: schema_pb2.Schema
) -> tuple[PreprocessingFn, list[RawColumn], list[str] | None]:
    """Returns the preprocessing_fn, its raw columns, and the features' order if it is known."""
    schema = data.schema()
    if spec.transform_module is not None:
        module_function.load(spec.transform_module)
        columns = raw_columns(schema, exclude=spec.key)
        shapes = _shapes(raw_schema, columns) if spec.schema_given else {}
        return module_function.ModuleFunction(spec.transform_module, shapes), columns, None
    features = spec.features or {}
    _refuse_unknown_labels(spec.labels, data)
    if label := next((label for label in spec.labels if label in features), None):
        raise TidemillError(
            Code.INVALID_VALUE, f"features.{label}", "the label's name", "give the feature another name"
        )
    names = raw_column_names(features)
    _refuse_all_null(data, [name for name in names if name in schema.names])
    text_numbers.check(features, schema, data)
    return FeaturesFunction(features), feature_columns(features, schema), list(features)


def _lost_integers(graph: TransformGraph, data: Dataset) -> list[str]:
    from tidemill.transform import lost_integers

    return lost_integers.find(graph, data)


def _shapes(schema: schema_pb2.Schema, columns: Sequence[RawColumn]) -> dict[str, list[int]]:
    """Returns the shape of a row for each raw column that has one in the schema."""
    names = {column.name for column in columns}
    features = [feature for feature in schema.feature if feature.name in names and schema_text.is_checked(feature)]
    shapes = {feature.name: schema_text.shape_of(feature) for feature in features}
    return {name: list(shape) for name, shape in shapes.items() if shape is not None}


def _analyzer_cache(
    spec: PreprocessSpec, data: Dataset, root: str | None
) -> contextlib.AbstractContextManager[Path | None]:
    """Opens the analyzer cache of the files of train; yields None if the spec does not use it."""
    if not spec.analyzer_cache or uses_beam(spec, data):
        return contextlib.nullcontext()
    if root is None:
        raise ValueError("root is required for the analyzer cache")
    from tidemill.transform.analyzer_cache import open_analyzer_cache

    return open_analyzer_cache(root, [file.fingerprint for file in data.splits["train"].files])


def _refuse_unknown_labels(labels: Sequence[str], data: Dataset) -> None:
    names = data.schema().names
    if label := next((label for label in labels if label not in names), None):
        want = f"name one of {', '.join(names)}"
        where = "label" if len(labels) == 1 else "labels"
        raise TidemillError(Code.MISSING_COLUMN, where, f"{label!r}, not a column of the examples", want)


def _refuse_all_null(data: Dataset, names: Sequence[str]) -> None:
    if empty := all_null(data.batches("train", names), list(names)):
        want = "drop the feature, or fix the query that makes the column"
        raise TidemillError(
            Code.FEATURE_ALL_NULL, f"features.{empty[0]}", "no value in train", want, {"columns": empty}
        )


def _read_schema(folder: str) -> schema_pb2.Schema:
    """Returns the schema artifact as a `schema_pb2.Schema`."""
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    path = Path(folder) / SCHEMA
    if not path.is_file():
        raise TidemillError(Code.MISSING_FILE, str(path), "no such file", "run the validate step first")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), schema_pb2.Schema())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise TidemillError(
            Code.UNREADABLE_FILE, str(path), f"not a schema ({error})", "use a text protocol buffer"
        ) from error


@contextlib.contextmanager
def _write_both(graph: str, rows: str) -> Iterator[tuple[Path, Path]]:
    """Yields temporary folders for the two artifacts, which are renamed if the block succeeds."""
    targets = [Path(graph), Path(rows)]
    partials = [path.with_name(path.name + ".partial") for path in targets]
    try:
        for path in [*partials, *targets]:
            storage.refuse_file(path)
        for path in partials:
            storage.remove_folder(path)
        yield partials[0], partials[1]
        for partial, target in zip(partials, targets, strict=True):
            storage.remove_folder(target)
            os.replace(partial, target)
    finally:
        for path in partials:
            storage.remove_folder(path)
