"""Runs one preprocessing_fn on the same rows with Beam's DirectRunner and with the local engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from tests.transform.batch_rows import BatchRows
from tests.transform.conformance.rows import RowFiles
from tests.transform.row_engine import analyze_rows, transform_rows
from tidemill.transform.rows.parquet_rows import ParquetRows

ROW = "row"
"""The output that holds the number of the row."""


def run_beam(function: Callable, rows: RowFiles, folder: Path) -> pa.Table | None:
    """Writes Beam's artifact to a folder and returns the rows that Beam transforms, ordered by `row`.

    Returns:
        The transformed rows, or None if there are no rows.
    """
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam

    with tempfile.TemporaryDirectory() as work:
        transformed = Path(work) / "transformed"
        transformed.mkdir()
        context = tft_beam.Context(temp_dir=work, use_deep_copy_optimization=True)
        with beam.Pipeline(runner="DirectRunner") as pipeline, context:
            batches = (pipeline | beam.Create(rows.batches, reshuffle=False), rows.adapter_config)
            analyze = tft_beam.AnalyzeAndTransformDataset(function, output_record_batches=True)
            (dataset, _), transform_fn = batches | analyze
            _ = transform_fn | tft_beam.WriteTransformFn(str(folder))
            _ = dataset | beam.Map(_write_batch, str(transformed))
        tables = [pa.ipc.open_file(path).read_all() for path in transformed.iterdir()]
        return _ordered(tables) if rows.batches else None


def run_local(function: Callable, files: RowFiles, folder: Path, rows=None, **settings) -> pa.Table:
    """Does the same as `run_beam` with the local engine.

    Args:
        function: The preprocessing_fn.
        files: The rows.
        folder: Folder for the artifact.
        rows: A row source of the local engine with the same rows. Defaults to the Parquet files.
        settings: Arguments of `analyze_rows`.
    """
    rows = rows or parquet_rows(files)
    analyze_rows(function, rows, folder, **settings)
    return transform_all(folder, rows)


def transform_all(folder: Path, rows) -> pa.Table | None:
    """Returns all rows as an artifact transforms them, ordered by `row`; None if there are no rows."""
    tables = [pa.Table.from_batches([batch]) for batch in transform_rows(folder, rows)]
    return _ordered(tables) if tables else None


def parquet_rows(files: RowFiles, **settings):
    """Returns the Parquet files as a row source of the local engine."""
    return ParquetRows(files.files, files.columns, representations=files.representations, **settings)


def batch_rows(files: RowFiles, **settings):
    """Returns Beam's record batches as a row source of the local engine."""
    return BatchRows(files.batches, files.adapter_config, **settings)


def _write_batch(batch_and_extra: tuple[pa.RecordBatch, dict], folder: str) -> None:
    batch, extra = batch_and_extra
    assert not extra
    descriptor, path = tempfile.mkstemp(dir=folder)
    with open(descriptor, "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    assert path


def _ordered(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    numbers = [value[0] for value in table[ROW].to_pylist()]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return table.take(order).select(sorted(table.column_names))
