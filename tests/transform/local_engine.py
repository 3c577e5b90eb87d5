"""The local engine's parts put together for any rows, without a dataset and without Tidemill's checks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import impl_helper

from tidemill.transform.analysis.ahead import counts_ahead
from tidemill.transform.analysis.analyse import analyse
from tidemill.transform.analysis.counts import Counts
from tidemill.transform.tft.finish import save
from tidemill.transform.tft.trace import Trace

MEMORY_BYTES = 1 << 30


def analyze_rows(function: Callable, rows, folder: Path, *, threads: int = 2, spans: Path | None = None) -> None:
    """Analyses rows and writes `transform_fn/` and `transformed_metadata/` to a folder.

    Args:
        function: A preprocessing_fn.
        rows: `Rows` of the local engine.
        folder: The folder.
        threads: Threads of the analysis.
        spans: Where accumulators are kept. Defaults to nowhere.
    """
    with tempfile.TemporaryDirectory() as work:
        with Counts(work, MEMORY_BYTES, threads, per_file=spans is not None) as counts:
            trace = Trace(function, rows.specs, Path(work), counts_ahead(rows, counts))
            analyse(trace, rows, counts, threads=threads, spans=spans)
        save(trace, folder)


def transform_rows(folder: Path, rows) -> Iterator[pa.RecordBatch]:
    """The record batches that a written transform makes of rows, in their order, as TFT's own transform makes them."""
    output = tft.TFTransformOutput(str(folder))
    converter = impl_helper.make_tensor_to_arrow_converter(output.transformed_metadata.schema)
    loaded = tf.saved_model.load(output.transform_savedmodel_dir)
    names = list(rows.specs)
    for file in rows.files:
        for unit in file.units:
            for batch in unit.batches(names, rows.batch_rows):
                if batch.num_rows:
                    yield converter.convert(loaded.transform_fn(rows.feed(batch, names)))
