"""One preprocessing_fn on the same rows, by Beam's DirectRunner and by the local engine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from tests.transform.equality.data import Given
from tests.transform.here import analyse_here, transform_here

ROW = "row"
"""The output that says which row of the input a row is."""


def by_beam(function: Callable, given: Given, folder: Path) -> pa.Table | None:
    """Writes Beam's artifact to a folder, and returns what Beam's own transform makes of the rows, by `row`, if any."""
    import apache_beam as beam
    import tensorflow_transform.beam as tft_beam

    with tempfile.TemporaryDirectory() as work:
        made = Path(work) / "made"
        made.mkdir()
        context = tft_beam.Context(temp_dir=work, use_deep_copy_optimization=True)
        with beam.Pipeline(runner="DirectRunner") as pipeline, context:
            rows = (pipeline | beam.Create(given.batches, reshuffle=False), given.config)
            analyse = tft_beam.AnalyzeAndTransformDataset(function, output_record_batches=True)
            (transformed, _), transform_fn = rows | analyse
            _ = transform_fn | tft_beam.WriteTransformFn(str(folder))
            _ = transformed | beam.Map(_write_batch, str(made))
        return _table([pa.ipc.open_file(path).read_all() for path in made.iterdir()]) if given.batches else None


def by_local(function: Callable, given: Given, folder: Path, rows=None, **settings) -> pa.Table:
    """As `by_beam`, by the local engine from the Parquet files or other `rows`, with settings of `analyse_here`."""
    rows = rows or parquet_rows(given)
    analyse_here(function, rows, folder, **settings)
    return transformed(folder, rows)


def transformed(folder: Path, rows) -> pa.Table | None:
    """What an artifact makes of rows, by `row`; None where there are none."""
    tables = [pa.Table.from_batches([batch]) for batch in transform_here(folder, rows)]
    return _table(tables) if tables else None


def parquet_rows(given: Given, **settings):
    """The Parquet files as the local engine reads them."""
    from tidemill.transform.rows.parquet_rows import ParquetRows

    return ParquetRows(given.files, given.columns, representations=given.representations, **settings)


def batch_rows(given: Given, **settings):
    """Beam's record batches as the local engine reads them."""
    from tests.transform.batch_rows import BatchRows

    return BatchRows(given.batches, given.config, **settings)


def artifact_files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of all files of an artifact but TensorFlow's `fingerprint.pb`, which holds a random number."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "fingerprint.pb":
            yield path.relative_to(folder).as_posix(), path.read_bytes()


def _write_batch(made: tuple[pa.RecordBatch, dict], folder: str) -> None:
    batch, unary = made
    assert not unary
    descriptor, path = tempfile.mkstemp(dir=folder)
    with open(descriptor, "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)
    assert path


def _table(tables: list[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables)
    numbers = [value[0] for value in table[ROW].to_pylist()]
    order = sorted(range(len(numbers)), key=numbers.__getitem__)
    return table.take(order).select(sorted(table.column_names))
