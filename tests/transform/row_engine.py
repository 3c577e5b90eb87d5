"""Runs the local engine on any row source, without a dataset and without Tidemill's checks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import impl_helper

from tidemill.transform.analysis.background import prefetch_counts
from tidemill.transform.analysis.count_store import CountStore
from tidemill.transform.analysis.run_analyzers import run_analyzers
from tidemill.transform.rows.row_source import RowSource
from tidemill.transform.tft.save import save
from tidemill.transform.tft.trace import Trace

MEMORY_BYTES = 1 << 30


def analyze_rows(
    function: Callable, rows: RowSource, folder: Path, *, threads: int = 2, analyzer_cache: Path | None = None
) -> None:
    """Analyzes rows and writes `transform_fn/` and `transformed_metadata/` to a folder.

    Args:
        function: A preprocessing_fn.
        rows: The rows.
        folder: Folder to write to.
        threads: Number of threads.
        analyzer_cache: Folder of the analyzer cache. Defaults to none.
    """
    with tempfile.TemporaryDirectory() as work:
        with CountStore(work, MEMORY_BYTES, threads, per_file=analyzer_cache is not None) as counts:
            trace = Trace(function, rows.specs, Path(work), prefetch_counts(rows, counts))
            run_analyzers(trace, rows, counts, threads=threads, analyzer_cache=analyzer_cache)
        save(trace, folder)


def transform_rows(folder: Path, rows: RowSource) -> Iterator[pa.RecordBatch]:
    """Yields rows in their order as the graph of an artifact transforms them, converted by TFT's own converter."""
    output = tft.TFTransformOutput(str(folder))
    converter = impl_helper.make_tensor_to_arrow_converter(output.transformed_metadata.schema)
    loaded = tf.saved_model.load(output.transform_savedmodel_dir)
    names = list(rows.specs)
    for file in rows.files:
        for unit in file.units:
            for batch in unit.batches(names, rows.batch_rows):
                if batch.num_rows:
                    yield converter.convert(loaded.transform_fn(rows.feed(batch, names)))
