"""The transform by TensorFlow Transform on Beam's in-process runner.

It runs as Beam is fastest on one machine: the rows are in memory as record batches before the clock starts, and
transformed rows are written as they come.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow_transform.beam as tft_beam
from apache_beam.options.pipeline_options import PipelineOptions

from tidemill.artifacts.examples import ROW_GROUP_ROWS, Dataset, numbers_writer
from tidemill.transform.beam.beam_engine import tensor_adapter_config
from tidemill.transform.beam.runners import open_runner
from tidemill.transform.raw import raw_columns, to_lists
from transforms.work import LABEL, OUTPUTS, SCALED, preprocessing_fn

_BATCH_ROWS = 1 << 14
_batches: list[pa.RecordBatch] = []
"""The runner's workers are threads of this process, so nothing is serialized to reach them."""


def run(examples: Path, out: Path, threads: int) -> dict[str, float]:
    """Writes `transform_fn/`, `transformed_metadata/` and `rows.parquet`; returns seconds by phase."""
    data = Dataset(examples)
    columns = raw_columns(data.schema())
    _batches[:] = [to_lists(batch, columns) for batch in data.batches("train", batch_rows=_BATCH_ROWS)]
    config = tensor_adapter_config(columns)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temp, tft_beam.Context(temp_dir=temp, use_deep_copy_optimization=True):
        with beam.Pipeline(runner=open_runner("direct"), options=PipelineOptions([])) as pipeline:
            rows = pipeline | beam.Create([None], reshuffle=False) | beam.FlatMap(_read)
            transform_fn = (rows, config) | tft_beam.AnalyzeDataset(preprocessing_fn)
            _ = transform_fn | tft_beam.WriteTransformFn(str(out))
        analyzed = time.perf_counter()
        with beam.Pipeline(runner=open_runner("direct"), options=PipelineOptions([])) as pipeline:
            rows = pipeline | beam.Create([None], reshuffle=False) | beam.FlatMap(_read)
            transform_fn = pipeline | tft_beam.ReadTransformFn(str(out))
            made, _ = ((rows, config), transform_fn) | tft_beam.TransformDataset(output_record_batches=True)
            _ = made | beam.ParDo(_Write(str(out / "rows.parquet")))
    return {"analyze": analyzed - started, "transform": time.perf_counter() - analyzed}


def _read(_: None) -> Iterator[pa.RecordBatch]:
    yield from _batches


class _Write(beam.DoFn):
    """Writes record batches to one file. The runner passes them to one instance, in order."""

    def __init__(self, path: str):
        self._path = path

    def start_bundle(self) -> None:
        floats = {*SCALED, LABEL}
        schema = pa.schema([(name, pa.float32() if name in floats else pa.int32()) for name in OUTPUTS])
        self._writer = numbers_writer(self._path, schema)
        self._pending: list[pa.RecordBatch] = []

    def process(self, element: tuple[pa.RecordBatch, dict]) -> None:
        batch, _ = element
        schema = self._writer.schema
        arrays = [pc.list_flatten(batch.column(field.name)).cast(field.type) for field in schema]
        self._pending.append(pa.RecordBatch.from_arrays(arrays, schema=schema))
        if sum(piece.num_rows for piece in self._pending) >= ROW_GROUP_ROWS:
            self._flush()

    def finish_bundle(self) -> None:
        if self._pending:
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        self._writer.write_table(pa.Table.from_batches(self._pending), row_group_size=ROW_GROUP_ROWS)
        self._pending = []
