"""Substitutes the local engine for Beam in TFT's tests.

`assertAnalyzeAndTransformResults` runs the local engine and compares the rows as TFT's own method does. Three tests
call Beam's transforms directly; for them `AnalyzeDataset`, `WriteTransformFn` and the pipeline are replaced.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import tensorflow_transform as tft
from tensorflow.python.util.protobuf import compare
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import beam as tft_beam
from tensorflow_transform.beam import impl, tft_unit
from tensorflow_transform.beam.tft_beam_io import transform_fn_io
from tfx_bsl.coders import example_coder

from tests.transform.row_engine import analyze_rows, transform_rows
from tests.transform.tft_suite.formats import Form, adapter_config, open_rows, read, with_dense

WHOLE = "tukey"
"""Part of the name of the module whose tests need all rows in one batch: TFT merges L-moments only approximately, so
their expected values are right only for one batch."""


class Calls:
    """Counts the runs of the local engine."""

    def __init__(self) -> None:
        self.count = 0


@contextlib.contextmanager
def local_engine(form: Form, calls: Calls) -> Iterator[None]:
    """Runs TFT's tests on the local engine instead of Beam."""

    def analyze(data, metadata, preprocessing_fn, folder: Path, batch_rows: int = 2) -> None:
        calls.count += 1
        rows, dense = open_rows(read(data, metadata, batch_rows), adapter_config(metadata), form)
        analyze_rows(with_dense(preprocessing_fn, dense) if dense else preprocessing_fn, rows, folder)

    def assert_results(
        case,
        input_data,
        input_metadata,
        preprocessing_fn,
        expected_data=None,
        expected_metadata=None,
        expected_vocab_file_contents=None,
        test_data=None,
        desired_batch_size=None,
        temp_dir=None,
        **_,
    ):
        folder = Path(temp_dir or tempfile.mkdtemp(dir=case.get_temp_dir()))
        batch_rows = desired_batch_size if desired_batch_size == 1 or WHOLE in type(case).__module__ else 2
        analyze(input_data, input_metadata, preprocessing_fn, folder, batch_rows)
        output = tft.TFTransformOutput(str(folder))
        data = input_data if test_data is None else test_data
        batches = read(data, input_metadata, batch_rows)
        rows, _ = open_rows(batches, adapter_config(input_metadata), form)
        schema = output.transformed_metadata.schema
        coder = example_coder.RecordBatchToExamplesEncoder(schema)
        examples = [example for batch in transform_rows(folder, rows) for example in coder.encode(batch)]
        if expected_data is not None:
            shapes = {f.name: [d.size for d in f.shape.dim] if f.HasField("shape") else [-1] for f in schema.feature}
            made = [tft_unit._format_example_as_numpy_dict(example, shapes) for example in examples]
            case.assertDataCloseOrEqual(expected_data, made)
        if expected_metadata:
            _assert_schema(case, expected_metadata.schema, schema)
        for name, contents in (expected_vocab_file_contents or {}).items():
            case.AssertVocabularyContents(output.vocabulary_file_by_name(name), contents)

    class AnalyzeDataset:
        def __init__(self, preprocessing_fn):
            self._preprocessing_fn = preprocessing_fn

        def __ror__(self, dataset):
            folder = Path(impl.Context.create_base_temp_dir())
            analyze(*dataset, self._preprocessing_fn, folder)
            return _Analyzed(folder)

    class WriteTransformFn:
        def __init__(self, path):
            self.path = path

    with (
        mock.patch.object(tft_unit.TransformTestCase, "assertAnalyzeAndTransformResults", assert_results),
        mock.patch.object(tft_unit.TransformTestCase, "_makeTestPipeline", lambda case: _Lists()),
        mock.patch.object(tft_beam, "AnalyzeDataset", AnalyzeDataset),
        mock.patch.object(impl, "AnalyzeDataset", AnalyzeDataset),
        mock.patch.object(transform_fn_io, "WriteTransformFn", WriteTransformFn),
    ):
        yield


@dataclass
class _Analyzed:
    """The result of `AnalyzeDataset`: the input of `WriteTransformFn`, or a pair of function and metadata."""

    folder: Path

    def __or__(self, write) -> None:
        shutil.copytree(self.folder, write.path, dirs_exist_ok=True)

    def __iter__(self) -> Iterator:
        asset_map = self.folder / tft.TFTransformOutput.TRANSFORMED_METADATA_DIR / tft.TFTransformOutput.ASSET_MAP
        yield self.folder
        yield SimpleNamespace(asset_map=json.loads(asset_map.read_text()) if asset_map.exists() else {})


class _Lists(contextlib.AbstractContextManager):
    """A pipeline whose `Create` returns the values."""

    def __or__(self, create) -> list:
        return list(getattr(create, "transform", create).values)

    def __exit__(self, *_) -> None:
        """Does nothing: all is computed already."""


def _assert_schema(case, expected: schema_pb2.Schema, schema: schema_pb2.Schema) -> None:
    """Asserts that schemas are equal except for annotations, because `assertProtoEqual` cannot show long protos."""
    plain = schema_pb2.Schema()
    plain.CopyFrom(schema)
    plain.ClearField("annotation")
    for feature in plain.feature:
        feature.ClearField("annotation")
    if expected != plain:
        compare.assertProtoEqual(case, expected, plain)
